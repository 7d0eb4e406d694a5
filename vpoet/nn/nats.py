"""A pack on the model's device, and -log p of every token in it that the model predicts.

Training sums it up, scoring reports it.

Shapes: T packed tokens, D model width, M predicted tokens, in C chunks of R rows.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vpoet.nn.control import ControlTensors
from vpoet.nn.transformer import Head, RunBlock, Transformer, run_block
from vpoet.nn.visibility import Backend, Offsets, Visibility
from vpoet.sequence.layout import PAYLOADS, Layout
from vpoet.sequence.packing import Pack

CHUNK = 2048
"""Predicted tokens whose logits exist at the same time."""

ROWS = 64
"""A head is given a multiple of so many tokens: oneDNN keeps the kernels of every shape that it ever met."""


@dataclass(frozen=True, eq=False, slots=True)
class PackTensors:
    """A pack on the device of the model."""

    ids_T: Tensor
    positions_T3: Tensor
    before_M: Tensor
    """Indices of the tokens just before the predicted ones: their hidden states predict."""
    after_M: Tensor
    """The predicted ids."""
    kinds_M: Tensor
    """Their kinds."""
    heads: tuple[Tensor, ...]
    """For each of `PAYLOADS`: which of the M its head predicts."""
    controls: ControlTensors | None
    visibility: Visibility
    layout: Layout
    """Of the whole pack, in the host's memory."""

    @classmethod
    def of(cls, row: Pack, device: torch.device) -> "PackTensors":
        """One copy to the device, for which nobody waits."""
        layout = row.layout
        flat = torch.from_numpy(layout.flat)
        if device.type == "cuda":
            flat = flat.pin_memory()
        flat = flat.to(device, non_blocking=True)
        indices = flat.long()
        return cls(
            ids_T=layout.part("ids", indices),
            positions_T3=layout.part("positions", indices),
            before_M=layout.part("before", indices),
            after_M=layout.part("after", indices),
            kinds_M=layout.part("kinds", indices),
            heads=tuple(layout.part(f"head:{payload}", indices) for payload in PAYLOADS),
            controls=ControlTensors.laid(layout, flat),
            visibility=Visibility.of(row, Offsets.of(layout, flat)),
            layout=layout,
        )

    def piece(self, first: int, length: int) -> "PackTensors":
        """``length`` tokens of the pack and the predictions that are read from them.

        The last may be of the next piece's first token. Visibility stays that of the whole pack.
        """
        start, stop = self.layout["before"].searchsorted((first, first + length)).tolist()
        heads = []
        for payload, index in zip(PAYLOADS, self.heads, strict=True):
            begin, end = self.layout[f"head:{payload}"].searchsorted((start, stop)).tolist()
            heads.append(index[begin:end] - start)
        controls = self.controls
        if controls is not None:
            controls = controls.piece(first, *self.layout["control_at"].searchsorted((first, first + length)).tolist())
        return replace(
            self,
            ids_T=self.ids_T[first : first + length],
            positions_T3=self.positions_T3[first : first + length],
            before_M=self.before_M[start:stop] - first,
            after_M=self.after_M[start:stop],
            kinds_M=self.kinds_M[start:stop],
            heads=tuple(heads),
            controls=controls,
        )


def pack_nats(
    transformer: Transformer,
    attention: Backend,
    tensors: PackTensors,
    *,
    z_loss: float = 0.0,
    chunk: int = CHUNK,
    run: RunBlock = run_block,
) -> Tensor:
    """-log p [M] of each predicted token given all before it, in the order of the pack, fp32.

    ``z_loss`` adds a gradient and no value (`vpoet.nn.transformer.nats`). The logits of at most ``chunk`` tokens exist
    at a time: where a pack is longer, the backward pass computes them again, chunk by chunk. ``run`` runs the blocks.
    """
    attend = attention(tensors.visibility, tensors.ids_T.device)
    control_PTD = transformer.control(tensors.controls, len(tensors.ids_T))
    h_TD = transformer(tensors.ids_T, tensors.positions_T3, attend, run, control_PTD)
    nats_M = torch.zeros(len(tensors.after_M), device=h_TD.device)
    for payload, index in zip(PAYLOADS, tensors.heads, strict=True):
        if payload not in transformer.ranges:
            continue
        before_M, after_M, head = tensors.before_M[index], tensors.after_M[index], transformer.head(payload)
        nats_M = nats_M.index_copy(0, index, head_nats(head, h_TD, before_M, after_M, z_loss=z_loss, chunk=chunk))
    return nats_M


def head_nats(
    head: Head,
    h_TD: Tensor,
    before_M: Tensor,
    after_M: Tensor,
    *,
    z_loss: float,
    chunk: int,
) -> Tensor:
    """-log p [M] of the ids ``after_M`` by one head, given the states ``h_TD`` at ``before_M``; see `pack_nats`."""
    # Sharded weights are gathered by all processes together: the number of calls of a head depends on the length of the
    # pack alone, which they share, and a head is called on no tokens if need be.
    chunks = -(-len(h_TD) // chunk)
    rows = -(-len(after_M) // (chunks * ROWS)) * ROWS
    # the last token fills the chunks up, and what it gives there is left out
    fill_CR = torch.arange(chunks * rows, device=h_TD.device).clamp(max=len(after_M) - 1).view(chunks, rows)
    h_CRD, ids_CR = h_TD[before_M[fill_CR]], after_M[fill_CR]
    parts = [
        checkpoint(head, h_RD, ids_R, z_loss, use_reentrant=False, preserve_rng_state=False)
        if chunks > 1
        else head(h_RD, ids_R, z_loss)
        for h_RD, ids_R in zip(h_CRD.unbind(), ids_CR.unbind(), strict=True)
    ]
    return torch.cat(parts)[: len(after_M)]
