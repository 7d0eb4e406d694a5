"""What an H100 should take for a training step, a decoding step and an encoded clip: counted on tensors without memory.

    python tests/bench estimates

Every product of matrices is counted with its operations and bytes. What stands between two products is taken as one
kernel, as a compiler fuses it: it reads what it needs from before, and writes what is read after it. train/RESULTS.md
says what is assumed beside this, and `make gpu` measures the same on a card.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from vpoet import config
from vpoet.evaluate import budget
from vpoet.generate.decode import stream
from vpoet.generate.decoder import Decoding
from vpoet.generate.plan import Plan
from vpoet.generate.sampling import Sampling
from vpoet.nn.attention import backend
from vpoet.nn.cache_attention import flash_backend
from vpoet.nn.nats import CHUNK, head_nats
from vpoet.nn.transformer import Transformer
from vpoet.nn.visibility import Visibility
from vpoet.sequence.arrangements import Sample
from vpoet.sequence.tasks import TABLE
from vpoet.tokenizer.autoencoder import Autoencoder, AutoencoderConfig
from vpoet.training.recipe import PretrainConfig
from vpoet.training.sheets import DEVICES

RECIPE = Path(__file__).parents[2] / "train/configs/1b.yaml"
META = torch.device("meta")
PRODUCTS = ("mm", "addmm", "bmm", "linear", "convolution", "conv3d", "conv2d", "convolution_backward")
BANDWIDTH = 3.35e12
"""Bytes per second of an H100's memory by its data sheet, and TF32 operations without sparsity."""
TF32 = 494.7e12


@dataclass
class Kernel:
    """A product, or all that a compiler would fuse between two."""

    product: bool
    flops: float = 0.0
    read: dict[int, int] = field(default_factory=dict)
    written: dict[int, int] = field(default_factory=dict)
    """Bytes by tensor."""


class Trace(TorchDispatchMode):
    """Lists the kernels of what runs inside."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[Kernel] = []
        self.launches = 0
        self.unfused = 0
        """Bytes that go in and out of every operation but products."""
        self._alive: list[Any] = []  # so that no number of a tensor is given twice

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with FlopCounterMode(display=False) as counter:
            made = call(*args, **(kwargs or {}))
        if call.is_view or call.overloadpacket.__name__ in ("detach", "empty_like", "new_empty", "empty"):
            return made
        product = call.overloadpacket.__name__ in PRODUCTS
        if product or not self.kernels or self.kernels[-1].product:
            self.kernels.append(Kernel(product))
        kernel = self.kernels[-1]
        kernel.flops += counter.get_total_flops()
        self.launches += 1
        for tensors, into in (((args, kwargs), kernel.read), (made, kernel.written)):
            for tensor in tree_leaves(tensors):
                if isinstance(tensor, Tensor):
                    self._alive.append(tensor.untyped_storage())
                    size = min(tensor.numel() * tensor.itemsize, tensor.untyped_storage().nbytes())
                    self.unfused += 0 if product else size
                    into[id(self._alive[-1])] = max(size, into.get(id(self._alive[-1]), 0))
        return made

    def moved(self) -> list[float]:
        """Bytes of each kernel: what it reads from before it, and what it writes and another reads."""
        later: set[int] = set()
        found = []
        for kernel in reversed(self.kernels):
            read = sum(size for tensor, size in kernel.read.items() if tensor not in kernel.written)
            found.append(float(read + sum(size for tensor, size in kernel.written.items() if tensor in later)))
            later |= kernel.read.keys()
        return found[::-1]

    def totals(self) -> dict[str, float]:
        moved = self.moved()
        return {
            "product FLOPs": sum(kernel.flops for kernel in self.kernels),
            "product bytes": sum(m for m, kernel in zip(moved, self.kernels, strict=True) if kernel.product),
            "bytes between products": sum(
                m for m, kernel in zip(moved, self.kernels, strict=True) if not kernel.product
            ),
            "bytes between products, not fused": self.unfused,
            "launches, not fused": self.launches,
            "products": sum(kernel.product for kernel in self.kernels),
            "kernels between them": sum(not kernel.product for kernel in self.kernels),
        }


def by_depth(count: Callable[[int], dict[str, float]], depth: int) -> dict[str, float]:
    """What a deep network takes, from shallow ones."""
    few, more = count(2), count(3)
    return {name: few[name] + (depth - 2) * (more[name] - few[name]) for name in few}


def micro_batch(recipe: PretrainConfig, depth: int) -> dict[str, float]:
    """Forward and backward of one pack, but for its attention."""
    words, _ = budget.vocabulary(recipe)
    length = recipe.data.length

    def attend(layer: int, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor) -> Tensor:
        groups = q_TNH.shape[1] // k_TKH.shape[1]
        return q_TNH * 1 + (k_TKH + v_TKH).repeat_interleave(groups, 1)  # reads them and writes one as large as queries

    with FakeTensorMode():
        transformer = Transformer(replace(recipe.model, depth=depth), words)
        for weight in transformer.parameters():
            weight.data = weight.data.bfloat16()
        ids_T, positions_T3 = torch.full((length,), words.language), torch.zeros(length, 3, dtype=torch.long)
        with Trace() as trace:
            h_TD = transformer(ids_T, positions_T3, attend)
            every_T = torch.arange(length)
            nats_T = head_nats(transformer.visual_nats, h_TD, every_T, ids_T, z_loss=0.0, chunk=CHUNK)
            nats_T.sum().backward()  # type: ignore[no-untyped-call]
        return trace.totals()


def decoding_step(recipe: PretrainConfig, depth: int) -> dict[str, float]:
    """One code of one document with guidance, well into it."""
    words, _ = budget.vocabulary(recipe)
    with META:
        transformer = Transformer(replace(recipe.model, depth=depth), words).bfloat16().eval().requires_grad_(False)
    how = Decoding(
        transformer=transformer,
        attention=backend("sdpa", META, torch.float32),
        through=flash_backend(lambda q, k, v, **_: q.clone()),
    )
    document = TABLE["t2v"].document(Sample(np.arange(12, dtype=np.int32), np.zeros((5, 8, 8), np.int32), 8))
    steps = stream(how, Plan.of(transformer, [document], guided=True), [0], Sampling(guidance=2.0))
    for _ in range(3):
        next(steps)
    with Trace() as trace:
        next(steps)
    return trace.totals()


def encoding(clips: int, frames: int, size: int) -> dict[str, float]:
    """A batch of clips by the base tokenizer's encoder."""
    with META:
        encoder = Autoencoder(AutoencoderConfig(size="base")).eval().requires_grad_(False).encoder
        videos = torch.empty(clips, frames, size, size, 3)
    with Trace() as trace:
        encoder(videos)
    return trace.totals()


def estimates(_: float) -> dict[str, Any]:
    """Counts, and times by the shares of the data sheet that are assumed: (likely, careful)."""
    recipe = config.load(RECIPE, PretrainConfig)
    h100, length = DEVICES["h100"], recipe.data.length
    words, _ = budget.vocabulary(recipe)
    with META:
        transformer = Transformer(recipe.model, words)
    documents = Visibility((budget.DOCUMENT,) * (length // budget.DOCUMENT), (0,) * (length // budget.DOCUMENT))
    useful = transformer.flops(documents, sum(documents.lengths)) / sum(documents.lengths) * length
    without = transformer.flops(Visibility((1,) * length, (0,) * length), length)
    pack = by_depth(lambda depth: micro_batch(recipe, depth), recipe.model.depth)
    count, packs, world = transformer.parameter_count, recipe.batch // 8, 8
    step = by_depth(lambda depth: decoding_step(recipe, depth), recipe.model.depth)
    weights = 2 * sum(w.numel() for part in (transformer.blocks, transformer.visual) for w in part.parameters())
    cache = 2 * 2 * recipe.model.depth * recipe.model.kv_heads * recipe.model.head * 160 * 2
    clip = encoding(32, 17, 64)
    found: dict[str, Any] = {
        "micro-batch": pack | {"attention FLOPs": useful - without, "useful FLOPs": useful},
        "decoding step": step | {"weight bytes": weights, "cache bytes": cache},
        "encoding 32 clips": clip,
    }
    for name, products, attention, memory, link, gap in (
        ("likely", 0.75, 0.35, 0.85, 0.7, 1.2e-6), ("careful", 0.65, 0.2, 0.7, 0.5, 2e-6)
    ):  # fmt: skip
        seconds = {
            "products": pack["product FLOPs"] / (products * h100.bf16),
            "attention": (useful - without) / (attention * h100.bf16),
            "between them": pack["bytes between products"] / (memory * BANDWIDTH),
            # bf16 gradients read, fp32 sums read and written
            "summing gradients": 10 * count / (memory * BANDWIDTH),
        }
        once = {
            # NVLink: 450 GB/s each way; fp32 gradients scattered, bf16 weights gathered
            "exchange": 6 * count * (world - 1) / world / (link * 450e9),
            "optimiser": (28 * count / world + 4 * count) / (memory * BANDWIDTH),
        }
        whole = packs * sum(seconds.values()) + sum(once.values())
        decoded = weights / (memory * BANDWIDTH) + cache / (memory * BANDWIDTH)
        decoded += gap * (step["products"] + 2 * step["kernels between them"])  # attention, and what is fused around it
        convolved = clip["product FLOPs"] / (0.5 * products * TF32)
        between = (clip["product bytes"] + clip["bytes between products, not fused"]) / (memory * BANDWIDTH)
        found[name] = {
            "ms of a micro-batch": {part: 1e3 * value for part, value in seconds.items()},
            "ms once a step": {part: 1e3 * value for part, value in once.items()},
            "MFU": packs * useful / whole / h100.bf16,
            "decoding steps a second": 1 / decoded,
            "of the roofline": (weights + cache) / BANDWIDTH / decoded,
            "clips a second": 32 / (convolved + between),
        }
    return found
