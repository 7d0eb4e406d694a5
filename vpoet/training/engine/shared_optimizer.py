"""The optimiser that DeepSpeed is given: AdamW, and Muon for matrices that ZeRO has cut into flat pieces.

DeepSpeed's stages hand an optimiser flat tensors: this process's even share of all weights of a group, their ends
anywhere in a matrix. AdamW does not mind. Muon orthogonalises whole matrices, and all else of it goes element by
element. So its momentum is shared as evenly as AdamW's states, and for the one operation each matrix visits a process:

    process 0                      process 1
    |A A A A A A|B B B     |       |      B B|C C C C|D D D D|      momentum, updated in pieces
         all-to-all in bf16: A and C go to process 0, B and D to process 1
    A A A A A A   C C C C          B B B B B   D D D D              orthogonalised, whole
         all-to-all in bf16, the way back
    |A A A A A A|B B B     |       |      B B|C C C C|D D D D|      stepped, in pieces

Each matrix belongs to the process that has least to do when the largest are given out first. bf16 loses nothing:
Newton-Schulz begins with rounding to it, and ends in it (`vpoet.training.optim.orthogonal`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from deepspeed.runtime.zero.utils import ZERO_SUPPORTED_OPTIMIZERS
from torch import Tensor, nn

from vpoet.processes import Processes
from vpoet.training.optim import (
    MOMENTUM,
    OptimizerConfig,
    adamw_settings,
    as_adamw,
    block_matrices,
    muon_step,
    orthogonal,
    parameter_groups,
)

ROUND = 2**26
"""Values that each process orthogonalises at once, of which it has four copies in bf16 meanwhile: half a gigabyte."""


@dataclass(frozen=True)
class Piece:
    """What one process holds of a matrix: ``size`` values of its rows end to end, from ``start`` on; they lie in its
    flat tensor from ``at`` on."""

    start: int
    size: int
    at: int


class CutMatrices:
    """Matrices that one flat tensor of each process holds pieces of, orthogonalised at once."""

    def __init__(self, shapes: dict[str, torch.Size], pieces: Sequence[dict[str, Piece]], processes: Processes) -> None:
        """``pieces`` are those of every process, by rank; all processes are told the same."""
        self.shapes, self._processes = shapes, processes
        self._pieces = pieces
        self._owned: list[list[str]] = [[] for _ in pieces]
        work = [0] * len(pieces)
        costs = {name: shape.numel() * min(shape) for name, shape in shapes.items()}
        for name in sorted(costs, key=lambda name: -costs[name]):
            owner = work.index(min(work))
            self._owned[owner].append(name)
            work[owner] += costs[name]
        rank = processes.rank
        self._given = [sum(pieces[rank][name].size for name in names) for names in self._owned]
        self._taken = [sum(held[name].size for name in self._owned[rank]) for held in pieces]

    @property
    def mine(self) -> list[tuple[str, Piece]]:
        """This process's pieces, in the order in which they travel."""
        held = self._pieces[self._processes.rank]
        return [(name, held[name]) for names in self._owned for name in names]

    def orthogonal(self, pieces: Sequence[Tensor]) -> Sequence[Tensor]:
        """The pieces of the orthogonalised matrices from those of the matrices, bf16, in the order of `mine`; every
        process must call."""
        rank = self._processes.rank
        send = torch.cat([*pieces])
        received = self._processes.exchange(send, self._given, self._taken)
        wholes = {name: received.new_empty(self.shapes[name].numel()) for name in self._owned[rank]}
        parts = [wholes[name][held[name].start :][: held[name].size] for held in self._pieces for name in wholes]
        for part, values in zip(parts, torch.split(received, [len(part) for part in parts]), strict=True):
            part.copy_(values)
        for name, whole in wholes.items():
            whole.copy_(orthogonal(whole.view(self.shapes[name])).flatten())
        back = self._processes.exchange(torch.cat(parts) if parts else received, self._taken, self._given)
        return torch.split(back, [len(piece) for piece in pieces])


def cut(
    shapes: Mapping[str, torch.Size], pieces: Sequence[dict[str, Piece]], processes: Processes
) -> list[CutMatrices]:
    """The matrices that one flat tensor of each process holds ``pieces`` of, in rounds that take no more memory than
    `ROUND` says."""
    rounds: list[list[str]] = [[]]
    values = 0
    for name in pieces[0]:
        if rounds[-1] and values + shapes[name].numel() > ROUND * processes.world:
            rounds.append([])
            values = 0
        rounds[-1].append(name)
        values += shapes[name].numel()
    return [
        CutMatrices(
            {name: shapes[name] for name in names}, [{name: each[name] for name in names} for each in pieces], processes
        )
        for names in rounds
    ]


class SharedOptimizer(torch.optim.AdamW):
    """AdamW, and Muon in the groups marked ``muon``; steps only where ``allow`` says so.

    A group's rate is ``rate`` times that of AdamW. ``cut`` tells of each flat tensor of a Muon group what it holds;
    without ZeRO its weights are the matrices themselves.
    """

    def __init__(
        self, module: nn.Module, config: OptimizerConfig, allow: Callable[[], bool], device: torch.device
    ) -> None:
        weights = dict(module.named_parameters())
        self.matrices = list(block_matrices(weights)) if config.matrix_lr else []
        others = [weights[name] for name in self.matrices]
        groups = [group | {"muon": False, "rate": 1.0} for group in parameter_groups(module, config, others)]
        ratio = config.matrix_lr / config.lr
        groups.append({"params": others, "weight_decay": config.weight_decay, "muon": True, "rate": ratio})
        super().__init__([group for group in groups if group["params"]], **adamw_settings(config))
        self.allow = allow
        self.device = device
        """Where processes exchange what they hold, and orthogonalise; weights may be offloaded."""
        self.cut: dict[Tensor, list[CutMatrices]] = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        if not self.allow():
            return
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["muon"]]
        super().step()
        self.param_groups = groups
        for group in groups:
            if group["muon"]:
                for weight in group["params"]:
                    self._muon(weight, group)

    def _muon(self, weight: Tensor, group: dict[str, Any]) -> None:
        """A step of Muon for what this process has of one flat tensor, or for one matrix."""
        grad = weight.grad
        assert grad is not None
        momentum = self.state[weight]["momentum_buffer"]
        if weight not in self.cut:
            muon_step(weight, grad, momentum, group)
            return
        momentum.lerp_(grad, 1 - MOMENTUM)
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        for matrices in self.cut[weight]:
            mine = [(name, slice(piece.at, piece.at + piece.size)) for name, piece in matrices.mine]
            raw = [grad[at].lerp(momentum[at], MOMENTUM).to(self.device, torch.bfloat16) for _, at in mine]
            for (name, at), update in zip(mine, matrices.orthogonal(raw), strict=True):
                weight[at].add_(update.to(weight.device), alpha=-group["lr"] * as_adamw(matrices.shapes[name]))


# which DeepSpeed otherwise warns of: it goes element by element, but for what it gathers itself
ZERO_SUPPORTED_OPTIMIZERS.append(SharedOptimizer)
