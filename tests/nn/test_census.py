"""A census of a micro-batch on a GPU, taken without one: on meta tensors every operation is counted and none computed.

A kernel costs some microseconds of the host's time to launch, whatever its size; and where the host waits for the
device, or for a copy to it, the device idles afterwards. So a micro-batch has a budget of launches that does not depend
on how many documents its pack holds, and waits for nothing.
"""

import contextlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from vpoet.nn.attention import backend
from vpoet.nn.flash_attention import flash_backend
from vpoet.nn.nats import PackTensors
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.nn.visibility import Attend, Backend, Visibility
from vpoet.sequence.document import KINDS, Sequence
from vpoet.sequence.packing import Pack, pack
from vpoet.sequence.vocabulary import Vocabulary
from vpoet.training.blocks import runner
from vpoet.training.loss import PackLoss

META = torch.device("meta")
VOCABULARY = Vocabulary(20, (6, 4), "t", "v")
LENGTH = 960
ONCE, LAYER, PREFIX = 270, 195, 20
"""Launches of a pack, forward and backward: those of embedding, heads and loss, those of a layer, and those that
prefixes add to a layer. On a GPU they are fewer, as norms are one kernel there and several on meta tensors."""


PACK = {"_to_copy to meta": 1}
"""The pack: nobody waits for it, and nothing else goes to the device."""


class _Flash(torch.autograd.Function):
    """One launch forward, and one backward."""

    @staticmethod
    def forward(ctx: object, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(q, k, v)  # type: ignore[attr-defined]
        return q.clone()

    @staticmethod
    def backward(ctx: object, do: Tensor) -> tuple[Tensor, ...]:
        _, k, v = ctx.saved_tensors  # type: ignore[attr-defined]
        return do.clone(), torch.empty_like(k), torch.empty_like(v)


def flash(q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens_q: Tensor, max_seqlen_q: int, **_: object) -> Tensor:
    assert (cu_seqlens_q.dtype, cu_seqlens_q.device) == (torch.int32, q.device)
    out: Tensor = _Flash.apply(q, k, v)
    return out


KERNELS = {
    "varlen": lambda: backend("varlen", META, torch.bfloat16, head=8, deterministic=True),
    "flash": lambda: flash_backend(flash, deterministic=True),
}


def row(documents: int, *, prefixes: bool) -> Pack:
    """A pack of so many documents alike, half text and half codes."""
    length = LENGTH // documents
    text, codes = (VOCABULARY.ranges[name].start for name in ("text", "codes"))
    is_text = np.arange(length) < length // 2
    document = Sequence(
        np.where(is_text, text, codes).astype(np.int32),
        np.zeros((length, 3), np.int32),
        np.where(is_text, KINDS.index("text"), KINDS.index("video")).astype(np.uint8),
        np.arange(length) >= 3,
    )
    return pack([document] * documents, LENGTH, bidirectional=prefixes)


def micro_batch(attention: Backend, packed: Pack, *, depth: int = 1, checkpointed: bool = False) -> None:
    """What a training engine does with a pack, from the host's memory to gradients."""
    config = TransformerConfig(width=32, depth=depth, heads=4, kv_heads=2, hidden=48)
    with META:
        transformer = Transformer(config, VOCABULARY).bfloat16()
    loss = PackLoss(transformer, attention, z_loss=1e-4, run=runner(checkpointed=checkpointed))
    sums = loss(PackTensors.of(packed, META))
    (sums.sum() / 7).backward()


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("prefixes", [False, True])
def test_a_micro_batch_waits_for_nothing_and_launches_as_much_whatever_its_documents(
    name: str, prefixes: bool, census: type
) -> None:
    counted = {}
    for documents in (2, 40):
        for depth in (1, 3):
            packed = row(documents, prefixes=prefixes)
            with census() as count:
                micro_batch(KERNELS[name](), packed, depth=depth)
            assert not count.waits
            assert count.copies == PACK
            counted[documents, depth] = count.launches.total()
    assert counted[2, 1] == counted[40, 1]
    assert counted[2, 3] == counted[40, 3]
    layer = (counted[2, 3] - counted[2, 1]) // 2
    assert layer <= LAYER + (PREFIX if prefixes else 0)
    assert counted[2, 1] - layer <= ONCE


def test_blocks_computed_again_wait_for_nothing_either(census: type) -> None:
    with census() as count:
        micro_batch(KERNELS["varlen"](), row(8, prefixes=True), checkpointed=True)
    assert not count.waits


def test_flex_makes_its_mask_of_what_lies_on_the_device(census: type) -> None:
    launches = set()
    for documents in (2, 40):
        visibility = PackTensors.of(row(documents, prefixes=True), META).visibility
        with census() as count:
            backend("flex", META, torch.bfloat16)(visibility, META)
        assert not count.waits
        assert not count.copies
        launches.add(count.launches.total())
    assert len(launches) == 1


def test_a_loop_over_documents_is_seen(census: type) -> None:
    """sdpa takes them one by one, as it may: on CPUs."""
    launches = {}
    for documents in (2, 40):
        with census() as count:
            micro_batch(backend("sdpa", torch.device("cpu"), torch.float32), row(documents, prefixes=False))
        launches[documents] = count.launches.total()
    assert launches[40] > launches[2] + 38 * 2


def offsets_from_a_list(visibility: Visibility, device: torch.device) -> None:
    torch.tensor([0, *visibility.lengths], device=device).cumsum(0)


def offsets_copied_while_the_host_waits(visibility: Visibility, device: torch.device) -> None:
    torch.from_numpy(np.array(visibility.lengths)).to(device)


def documents_spread_over_tokens(visibility: Visibility, device: torch.device) -> None:
    offsets = visibility.offsets(device)
    torch.repeat_interleave(offsets.prefixes)


def longest_from_the_device(visibility: Visibility, device: torch.device) -> None:
    int(visibility.offsets(device).cu_seqlens.diff().max())


def prefixes_found_on_the_device(visibility: Visibility, device: torch.device) -> None:
    torch.nonzero(torch.arange(LENGTH, device=device) < visibility.per_token(device)[1])


def tokens_chosen_by_a_mask(visibility: Visibility, device: torch.device) -> None:
    index_T = torch.arange(LENGTH, device=device)
    index_T[index_T < visibility.per_token(device)[1]]


def asked_whether_any_has_a_prefix(visibility: Visibility, device: torch.device) -> None:
    bool(visibility.offsets(device).prefixes.any())


def brought_back(visibility: Visibility, device: torch.device) -> None:
    visibility.offsets(device).prefixes.cpu()


@pytest.mark.parametrize(
    "culprit",
    [
        offsets_from_a_list, offsets_copied_while_the_host_waits, documents_spread_over_tokens, longest_from_the_device,
        prefixes_found_on_the_device, tokens_chosen_by_a_mask, asked_whether_any_has_a_prefix, brought_back,
    ],
)  # fmt: skip
def test_whatever_waits_is_seen(culprit: Callable[[Visibility, torch.device], None], census: type) -> None:
    varlen = KERNELS["varlen"]()

    def waiting(visibility: Visibility, device: torch.device) -> Attend:
        culprit(visibility, device)
        return varlen(visibility, device)

    with census() as count, contextlib.suppress(RuntimeError):  # a meta tensor has no values that one could wait for
        micro_batch(waiting, row(8, prefixes=True))
        assert count.waits or count.copies != PACK
