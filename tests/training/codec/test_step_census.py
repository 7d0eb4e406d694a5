"""How often a step of a tokenizer's training looks at the device: each look has a GPU stand still.

Counted on a CPU: operators whose result the host must have (a number, a shape that depends on data), and the methods of
a tensor that read it.
"""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from vpoet.nn.features import FeatureNetwork
from vpoet.tokenizer.autoencoder import AutoencoderConfig
from vpoet.tokenizer.quantiser import QuantiserConfig
from vpoet.training.codec.adversarial import AdversarialConfig
from vpoet.training.codec.loss import LossConfig
from vpoet.training.codec.recipe import VideoTokenizerRecipe
from vpoet.training.codec.training import TokenizerTraining

READS = {"item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__", "__array__"}
"""Methods of a tensor that copy it to the host."""
WAITS = {"nonzero", "_unique2", "unique_dim", "unique_consecutive", "masked_select", "is_nonzero", "equal"}
"""Operators that the host waits for; `_local_scalar_dense` belongs to the methods above."""


class Reads(TorchFunctionMode):
    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        self.counts[name] += name in READS
        return func(*args, **(kwargs or {}))


class Waits(TorchDispatchMode):
    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.counts[name] += name in WAITS
        return func(*args, **(kwargs or {}))


def looks(training: TokenizerTraining, *batches: np.ndarray) -> dict[str, int]:
    counts: Counter[str] = Counter()
    with Reads(counts), Waits(counts):
        training.update(*batches)
    return {name: count for name, count in counts.items() if count}


def frames(count: int, length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, length, 16, 16, 3), dtype=np.uint8)


def training(blocks: int = 1, features: FeatureNetwork | None = None, **changes: Any) -> TokenizerTraining:
    model = AutoencoderConfig(
        widths=[8, 8, 8],
        encoder_blocks=[0, blocks, 0],
        decoder_blocks=[blocks, 0, 1],
        quantiser=QuantiserConfig(levels=[5, 5, 5]),
    )
    return TokenizerTraining(VideoTokenizerRecipe(run="x", data=["x"], steps=50, model=model, **changes), features)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_step_looks_at_the_device_once_however_deep_the_network_and_large_the_batch(dtype: str) -> None:
    all_parts = LossConfig(motion=1, changes=1, still=1, evenness=1)
    for blocks, clips in ((1, 1), (3, 4)):
        one = training(blocks, loss=all_parts, dtype=dtype)
        assert looks(one, frames(clips, 5), frames(2, 1)) == {"tolist": 1}


def test_an_adversary_looks_once_more() -> None:
    one = training(adversarial=AdversarialConfig(weight=0.5, start=1, width=8, layers=2))
    assert looks(one, frames(2, 5)) == {"tolist": 1}
    assert looks(one, frames(2, 5)) == {"tolist": 2}
