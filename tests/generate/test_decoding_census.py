"""A census of decoding on tensors without memory, of which nothing can be read back: no step waits for its device, and
it launches no more kernels than it has to."""

import numpy as np
import pytest
import torch

from vpoet.generate.decode import stream
from vpoet.generate.decoder import Decoder, Decoding
from vpoet.generate.plan import Plan
from vpoet.generate.sampling import Sampling
from vpoet.nn.attention import backend
from vpoet.nn.cache_attention import SDPA, CacheBackend, flash_backend
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.sequence.arrangements import Sample
from vpoet.sequence.document import Document
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Vocabulary

META = torch.device("meta")
KERNEL = flash_backend(lambda q, k, v, **_: q.clone())
"""Attention as one launch, where its result does not matter."""


def decoding(depth: int, through: CacheBackend) -> Decoding:
    config = TransformerConfig(width=32, depth=depth, heads=4, kv_heads=2, hidden=48)
    with META:
        transformer = Transformer(config, Vocabulary(20, (6, 4), "t", "v"))
    attention = backend("sdpa", META, torch.float32)
    return Decoding(transformer=transformer.eval().requires_grad_(False), attention=attention, through=through)


def documents() -> list[Document]:
    return [
        TABLE["t2v"].document(Sample(np.arange(n, dtype=np.int32), np.zeros((n, 2, 2), np.int32), 8)) for n in (3, 2)
    ]


def launches(census: type, depth: int, through: CacheBackend, sampling: Sampling) -> int:
    """Of each step after the first."""
    how = decoding(depth, through)
    plan = Plan.of(how.transformer, documents(), guided=sampling.guidance != 1)
    steps = stream(how, plan, [0, 1], sampling)
    next(steps)
    counts = []
    for _ in range(plan.steps - 2):
        with census() as count:
            next(steps)
        assert not count.waits
        counts.append(count.launches.total())
    assert max(counts) - min(counts) <= 1  # where a document ends, its last token is put back
    return min(counts)


@pytest.mark.parametrize(
    ("through", "layer"), [pytest.param(SDPA, 31, id="sdpa"), pytest.param(KERNEL, 29, id="kernel")]
)
@pytest.mark.parametrize(
    ("sampling", "rest"),
    [pytest.param(Sampling(), 62, id="plain"), pytest.param(Sampling(guidance=2.0, top_k=3), 114, id="guided")],
)
def test_no_step_waits_and_launches_stay_within_their_budget(
    through: CacheBackend, layer: int, sampling: Sampling, rest: int, census: type
) -> None:
    """``layer`` launches for each layer, and ``rest`` for all else."""
    shallow, deep = (launches(census, depth, through, sampling) for depth in (1, 3))
    each = (deep - shallow) // 2
    assert each <= layer
    assert shallow - each <= rest


def test_known_tokens_go_in_without_a_wait_where_their_number_is_told() -> None:
    how = decoding(1, KERNEL)
    slots = Plan.of(how.transformer, documents(), guided=False).slots
    decoder = Decoder(how, slots, documents=2, size=64, sampling=Sampling())
    tokens = torch.zeros(2, 3, dtype=torch.long, device=META)
    place_NW = tokens + 40
    decoder.extend(tokens, torch.zeros(2, 3, 3, dtype=torch.long, device=META), place_NW, 43)
    with pytest.raises(RuntimeError, match="meta"):
        decoder.extend(tokens, torch.zeros(2, 3, 3, dtype=torch.long, device=META), place_NW)
