"""Long packs: a group of processes shares each, by DeepSpeed-Ulysses (Jacobs et al., arXiv:2309.14509, section 3.1).

    a group of P = 2, packs of T tokens      process 0                    process 1
    embedding, norms, MLPs, heads, loss      tokens 0 to T/2              tokens T/2 to T
        all-to-all of q, k, v
    attention, by any backend                all tokens, heads 0 to N/2   all tokens, heads N/2 to N
        all-to-all of its output
    what follows                             tokens 0 to T/2              tokens T/2 to T

Every process of a group draws the same packs, and gives the loss of its own piece. All else is as for processes that
share nothing: engines add up what they give, gradients included, and ZeRO shards over all of them.

Shapes: T packed tokens, t = T/P of a piece, M predicted tokens, N query heads, K key/value heads, H head size.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from vpoet.errors import ConfigError, DataError
from vpoet.nn.nats import PackTensors
from vpoet.nn.visibility import Attend, Backend, Visibility
from vpoet.sequence.packing import Pack
from vpoet.training.engine.base import pack_seeds


@dataclass(frozen=True)
class Share:
    """What process ``rank`` of ``world`` does of a global batch when ``pieces`` of them in a row share each pack."""

    rank: int
    world: int
    pieces: int

    def __post_init__(self) -> None:
        if self.world % self.pieces:
            raise ConfigError(
                f"engine.sequence_parallel = {self.pieces} processes share a pack, and must divide the number of all, "
                f"{self.world}; start a multiple of {self.pieces} under the deepspeed launcher"
            )

    @property
    def group(self) -> int:
        """The index of this process's group."""
        return self.rank // self.pieces

    @property
    def groups(self) -> int:
        return self.world // self.pieces

    def packs(self, batch: int) -> range:
        """This process's packs among the ``batch`` of all, by number."""
        return range(self.group, batch, self.groups)

    def seeds(self, seed: int, step: int, batch: int) -> list[int]:
        """A seed for each of `packs`, another in each process of the group: it drops out other tokens' activations."""
        return [pack ^ self.rank % self.pieces for pack in pack_seeds(seed, step, self.packs(batch))]

    def piece(self, whole: PackTensors) -> PackTensors:
        """The t tokens of a pack that are this process's, and the predictions that are read from them."""
        if self.pieces == 1:
            return whole
        length, rest = divmod(len(whole.ids_T), self.pieces)
        assert not rest, "the recipe checks the length of packs"
        return whole.piece(self.rank % self.pieces * length, length)

    def code(self, packs: Sequence[Pack]) -> float:
        """A whole number; its sum over all processes is 0 if every group holds the same packs, and else hardly ever."""
        if self.pieces == 1:
            return 0.0
        weight = self.pieces - 1 if self.rank % self.pieces == 0 else -1
        return float(zlib.crc32(b"".join(pack.ids.tobytes() for pack in packs)) * weight)

    @staticmethod
    def check(codes: float) -> None:
        """DataError if a group does not hold the same packs, by the sum of every process's `code`: after a read that
        failed in one process alone, pieces would be of different packs."""
        if codes:
            raise DataError(
                "processes that share packs have read different ones: a shard is damaged or missing for some of them; "
                "compare the shards' checksums on all machines, and go on with --resume"
            )


def shared_attention(backend: Backend, pieces: int) -> Backend:
    """A backend for pieces of packs, [t, N or K, H] in and out, from one for whole packs.

    Each of the ``pieces`` processes of a group runs ``backend`` on all tokens and its share of the heads: their number
    must divide both N and K.
    """
    if pieces == 1:
        return backend

    def prepare(visibility: Visibility, device: torch.device) -> Attend:
        # imported at the first pack, when the engine has started DeepSpeed
        from deepspeed.sequence.layer import DistributedAttention

        attend = backend(visibility, device)

        def whole(q_T1NH: Tensor, k_T1KH: Tensor, v_T1KH: Tensor, layer: int) -> Tensor:
            return attend(layer, q_T1NH[:, 0], k_T1KH[:, 0], v_T1KH[:, 0])[:, None]

        exchanged = DistributedAttention(whole, _group(pieces))

        def attend_piece(layer: int, q_tNH: Tensor, k_tKH: Tensor, v_tKH: Tensor) -> Tensor:
            q, k, v = (x[:, None] for x in (q_tNH, k_tKH, v_tKH))  # DeepSpeed has the batch on axis 1
            o_t1NH: Tensor = exchanged(q, k, v, 1, None, layer)
            return o_t1NH[:, 0]

        return attend_piece

    return prepare


@cache
def _group(pieces: int) -> Any:
    """The process group that shares this process's packs; made once, at the first pack, by all processes."""
    mine, _ = torch.distributed.new_subgroups(pieces)  # type: ignore[no-untyped-call]
    return mine
