"""Which slice of every tensor each process keeps in a checkpoint under DeepSpeed: that which ZeRO gave it anyway.

    stage    weights that are trained, optimiser states          frozen weights
    0        a slice of each, as every process holds all         a slice of each
    1, 2     what lies in this process's part of the group       a slice of each
    3        this process's part of each                         this process's part of each

So a save passes nothing between processes, and after a load they exchange what they would after any step: the weights
in the type of the forward pass at stages 1 and 2, each its own share; nothing at stage 3. (At stage 0, and of frozen
weights, all that was loaded.)
"""

from collections.abc import Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from vpoet.nn.initial import Weights, fill
from vpoet.processes import Processes
from vpoet.training.engine.base import EngineConfig, Part, Slice
from vpoet.training.precision import DTYPES


class Shares:
    """The slices of one process.

    ``weights`` and ``shapes`` are of all weights by name, ``trained`` the states of those that are trained;
    ``optimizer`` is DeepSpeed's, and ``inner`` the one that it wraps.
    """

    def __init__(
        self,
        zero: int,
        processes: Processes,
        weights: Mapping[str, Any],
        *,
        shapes: Mapping[str, torch.Size],
        trained: Mapping[str, tuple[Part, ...]],
        optimizer: Any,
        inner: torch.optim.Optimizer,
    ) -> None:
        self.zero, self.processes = zero, processes
        self.weights, self.shapes, self.trained = weights, shapes, trained
        self.optimizer, self.inner = optimizer, inner

    def slice_of(self, name: str, part: Part) -> Slice | None:
        """As `Engine.slice_of`."""
        weight, shape = self.weights[name], self.shapes[name]
        if self.zero == 3:
            first = self.processes.rank * weight.ds_tensor.numel()
            count = max(0, min(weight.ds_tensor.numel(), shape.numel() - first))  # what is beyond is padding
            return Slice(first, self._part_of_three(name, part)[:count], shape) if count else None
        if self._is_copied(name):
            whole = weight if part == "weight" else self.inner.state[weight][part]
            first, stop = self.processes.slice_of(shape.numel())
            return Slice(first, whole.detach().view(-1)[first:stop], shape) if first < stop else None
        held = weight._hp_mapping
        if held is None:
            return None
        values = held.get_hp_fragment(None if part == "weight" else part)
        return Slice(held.lp_fragment_address.start, values.detach(), shape)

    def refresh(self) -> None:
        """As `Engine.refresh`."""
        if self.zero == 3:
            for name, weight in self.weights.items():
                if name in self.trained:
                    weight.ds_tensor.data.copy_(self._part_of_three(name, "weight"))
                if weight.ds_status.name == "AVAILABLE":
                    weight.partition()  # the small ones stay whole: let go, and gathered anew at the next pass
            return
        for name, weight in self.weights.items():
            if self._is_copied(name):
                self.processes.spread(weight.data.view(-1))
                for part in self.trained.get(name, ()):
                    self.processes.spread(self.inner.state[weight][part].view(-1))
        if self.zero:
            self.optimizer.update_lp_params()

    def _is_copied(self, name: str) -> bool:
        """Whether every process holds all of it."""
        return self.zero == 0 or name not in self.trained

    def _part_of_three(self, name: str, part: Part) -> Tensor:
        """This process's part of a tensor at stage 3, the padding at its end included."""
        # here, as the engine has to choose DeepSpeed's accelerator before its first import
        from deepspeed.utils import safe_get_local_fp32_param, safe_get_local_optimizer_state

        weight = self.weights[name]
        if name not in self.trained:
            held: Tensor = weight.ds_tensor.data.view(-1)
        elif part == "weight":
            held = safe_get_local_fp32_param(weight)
        else:
            held = safe_get_local_optimizer_state(weight, part)
        return held.detach()


@torch.no_grad()
def fill_shared(
    module: nn.Module, weights: Weights, config: EngineConfig, told: dict[str, Any], device: torch.device
) -> None:
    """Give a module on the meta device its weights in the type of the forward pass, on this process's device.

    At stage 3, of which DeepSpeed is ``told`` all, one after the other is shared out: no process ever has them all.
    """
    # here, as in `Shares`
    import deepspeed

    dtype = DTYPES[config.dtype]
    if config.zero < 3:
        fill(module, weights, device, dtype)
        return
    left = iter(weights)
    shared: Any = None
    for part in module.modules():
        own = list(part.parameters(recurse=False))
        if not own:
            continue
        assert not list(part.children()), "weights lie in the leaves"
        fill(part, islice(left, len(own)), device, dtype)
        if shared is None:
            deepspeed.zero.Init(module=part, config_dict_or_path=told)
        else:
            shared.convert_to_zero_parameters(param_list=own)
        shared = own[0]
    assert next(left, None) is None
