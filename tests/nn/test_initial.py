"""Weights one at a time are those of a transformer that is made at once, bit for bit; laid out, it takes no memory."""

import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from vpoet.nn.initial import Weightless, drawn, fill
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.sequence.vocabulary import Vocabulary

SMALL = TransformerConfig(width=48, depth=3, heads=4, kv_heads=2, hidden=72)
WORDS = Vocabulary(37, (8, 5), "", "")


@pytest.mark.parametrize(
    "words",
    [WORDS, Vocabulary(301, (64,), "", ""), Vocabulary(3, (2, 2, 3), "", "", (("actions", 5),))],
    ids=["two groups", "one group", "three groups and an appended range"],
)  # fmt: skip
@pytest.mark.parametrize("seed", [0, 7])
def test_the_weights_are_those_of_a_transformer_made_at_once(words: Vocabulary, seed: int) -> None:
    torch.manual_seed(seed)
    whole = Transformer(SMALL, words)
    torch.manual_seed(seed)
    state = torch.get_rng_state()
    with Weightless():
        laid_out = Transformer(SMALL, words)
    assert {weight.device.type for weight in laid_out.parameters()} == {"meta"}
    fill(laid_out, drawn(laid_out), torch.device("cpu"))
    found, expected = laid_out.state_dict(), whole.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert torch.equal(torch.get_rng_state(), state), "no one else's random numbers move"
    assert laid_out.parameter_count == whole.parameter_count


def test_weights_are_rounded_once() -> None:
    """In bf16 they are the fp32 ones rounded, as DeepSpeed rounds them."""
    torch.manual_seed(3)
    whole = Transformer(SMALL, WORDS).bfloat16()
    torch.manual_seed(3)
    with Weightless():
        laid_out = Transformer(SMALL, WORDS)
    fill(laid_out, drawn(laid_out), torch.device("cpu"), torch.bfloat16)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), laid_out.parameters(), strict=True))


MEASURED = """
import json, resource, sys
from pathlib import Path
from vpoet import config
from vpoet.nn.initial import Weightless
from vpoet.nn.transformer import Transformer
from vpoet.sequence.vocabulary import Vocabulary
from vpoet.training.recipe import PretrainConfig

def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

recipe = config.load(Path(sys.argv[1]), PretrainConfig)
before = peak()
with Weightless():
    transformer = Transformer(recipe.model, Vocabulary(8192, (256, 256), "", ""))
told = {"count": transformer.parameter_count, "laid_out": peak() - before}
print(json.dumps(told | {"compiler": "torch._inductor" in sys.modules}))
"""


def test_eight_billion_weights_are_laid_out_in_less_than_two_gibibytes(python: Any, root: Path) -> None:
    done = python("-c", MEASURED, root / "train/configs/8b.yaml")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["count"] > 7.5e9
    assert told["laid_out"] < 100e6, "of the 2 GiB that it may take; fp32 weights are 32 GB"
    assert not told["compiler"], "drawing on the meta device imports it, for seconds"


def test_one_weight_exists_at_a_time() -> None:
    """Whoever keeps none holds no other than the one that he is given."""
    with Weightless():
        laid_out = Transformer(SMALL, WORDS)
    given: list[weakref.ref[Any]] = []
    for _, value in drawn(laid_out):
        assert sum(each() is not None for each in given) <= 1
        given.append(weakref.ref(value))
    assert len(given) > 20
