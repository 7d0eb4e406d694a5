"""This process among those that a launcher started: who it is, and what they do together.

Any launcher will do that sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. Without one, a process is
alone, and nothing here waits for anybody, nor for torch to be imported.
"""

import contextlib
import faulthandler
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from vpoet.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Parameter

T = TypeVar("T")
R = TypeVar("R")
Watched = Callable[[Sequence[int]], Iterable[int]]

DEVICES = ("auto", "cpu", "cuda")

_LAUNCH = "start with torchrun or deepspeed, or unset RANK and WORLD_SIZE for a process alone"
_GRACE = 5.0
"""Seconds that a process group gets to tell of a timeout itself, as it can say who was missing."""
_watching = False


def launched() -> bool:
    """Whether a launcher started this process."""
    return "RANK" in os.environ


def announced() -> tuple[int, int]:
    """This process's rank and the number of all, as the launcher says: for work that needs no talk between them.

    ConfigError: the environment says half of it, or no rank of so many.
    """
    told = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if told == (None, None):
        return 0, 1
    try:
        rank, world = (int(each or "") for each in told)
    except ValueError:
        rank, world = 0, 0
    if not 0 <= rank < world:
        said = " and ".join(
            f"{name} = {each or 'nothing'}" for name, each in zip(("RANK", "WORLD_SIZE"), told, strict=True)
        )
        raise ConfigError(f"{said}: a launcher sets a rank below a number of processes; {_LAUNCH}")
    return rank, world


def own_device(name: str) -> "torch.device":
    """The device called auto, cpu or cuda: of several GPUs the one of this process. ConfigError if it is none, or if
    there are fewer GPUs than processes on this machine."""
    if name not in DEVICES:
        raise ConfigError(f"device is {name!r}; choose one of {', '.join(DEVICES)}")
    import torch

    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    if torch.cuda.is_available() and device.index >= torch.cuda.device_count():
        raise ConfigError(
            f"LOCAL_RANK = {device.index}: this machine shows {torch.cuda.device_count()} GPUs, and each process needs "
            "its own; start as many processes as there are GPUs, and see what CUDA_VISIBLE_DEVICES leaves"
        )
    torch.cuda.set_device(device)  # NCCL gathers objects through the current one
    return device


@contextlib.contextmanager
def watch(timeout: float) -> Iterator[None]:
    """End the process, with a traceback of all its threads, if what is inside takes longer than so many seconds.

    A group's own timeout is not enough: DeepSpeed makes groups with torch's default of half an hour, and torch waits
    more than twice as long as it was told for a first process that is gone. The watch needs no lock of Python's, so it
    also ends a process that waits inside a communication library. Inside a watch, another changes nothing.
    """
    global _watching
    if _watching or math.isinf(timeout):
        yield
        return
    _watching = True
    faulthandler.dump_traceback_later(timeout + _GRACE, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        _watching = False


@dataclass
class Processes:
    """This process among all that work together; by default it is alone. All of them call each method alike."""

    rank: int = 0
    world: int = 1
    timeout: float = math.inf
    """Seconds that it waits for the others before it ends with an error."""

    @classmethod
    def joined(cls, timeout: float = math.inf) -> "Processes":
        """Those of torch's process group, as far as there is one."""
        if "torch.distributed" not in sys.modules:  # then nobody has made a group
            return cls()
        import torch.distributed as dist

        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size(), timeout)

    @classmethod
    def join(cls, device: "torch.device", patience: timedelta | None = None) -> "Processes":
        """Meet the others that the launcher started, to exchange what lies on ``device``.

        ``patience``: how long one may be waited for, instead of torch's own 10 or 30 minutes. ConfigError: the
        environment does not say where to meet.
        """
        if not launched():
            return cls.joined()
        import torch.distributed as dist

        if not dist.is_initialized():
            announced()
            place, port = (os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT"))
            if not place or not (port.isdecimal() and int(port) < 2**16):
                raise ConfigError(
                    f"MASTER_ADDR = {place or 'nothing'} and MASTER_PORT = {port or 'nothing'}: no place where the "
                    f"processes could meet; {_LAUNCH}"
                )
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=patience)
        return cls.joined()

    @classmethod
    def sharing(cls) -> "Processes":
        """Those that share out work of any length among them, and meet again when it is done."""
        if not launched():
            return cls.joined()
        import torch

        return cls.join(torch.device("cpu"), timedelta(days=30))

    def total(self, values: "Tensor") -> "Tensor":
        """``values``, which become their sum over all processes, in place."""
        if self.world > 1:
            import torch.distributed as dist

            with watch(self.timeout):
                dist.all_reduce(values)
        return values

    def average(self, values: "Tensor") -> None:
        """Mean over all processes, in place."""
        if self.world > 1:
            self.total(values)
            values /= self.world

    def average_gradients(self, parameters: "Iterable[Parameter]") -> None:
        """Each gradient becomes its mean over all processes; one message for all of them."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.world == 1 or not gradients:
            return
        import torch

        flat = torch.cat([gradient.flatten() for gradient in gradients])
        self.average(flat)
        for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def take_first(self, values: "Tensor") -> None:
        """The values of process 0 in all processes, in place."""
        if self.world > 1:
            import torch.distributed as dist

            with watch(self.timeout):
                dist.broadcast(values, 0)

    def slice_of(self, count: int) -> tuple[int, int]:
        """The first of ``count`` things in a row that are this process's, and the first that are not any more."""
        size = -(-count // self.world)
        return min(count, self.rank * size), min(count, (self.rank + 1) * size)

    def spread(self, values: "Tensor") -> None:
        """In place, everybody's `slice_of` the flat values in all processes; each sends its own alone."""
        if self.world == 1:
            return
        import torch.distributed as dist

        size = -(-len(values) // self.world)
        first, stop = self.slice_of(len(values))
        mine, everyones = values.new_zeros(size), values.new_empty(size * self.world)
        mine[: stop - first] = values[first:stop]
        with watch(self.timeout):
            dist.all_gather_into_tensor(everyones, mine)
        values.copy_(everyones[: len(values)])

    def exchange(self, values: "Tensor", given: list[int], taken: list[int]) -> "Tensor":
        """A flat tensor's first ``given[0]`` values go to process 0, the next to 1 and so on; what they send here, as
        many as ``taken`` says of each, end to end."""
        if self.world == 1:
            return values
        import torch.distributed as dist

        received = values.new_empty(sum(taken))
        with watch(self.timeout):
            dist.all_to_all_single(received, values, taken, given)
        return received

    def gather(self, value: Any) -> list[Any]:
        """``value`` of every process, by rank."""
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.world
        with watch(self.timeout):
            dist.all_gather_object(values, value)
        return values

    def each(self, call: Callable[[T], R], items: Sequence[T], watched: Watched = iter) -> list[R]:
        """``call`` of each item, in the items' order, by all: each process works out every ``world``-th of them.

        ``watched`` passes on those of this process and shows how many are done.
        """
        found = {i: call(items[i]) for i in watched(range(len(items))[self.rank :: self.world])}
        everything = {i: value for part in self.gather(found) for i, value in part.items()}
        return [everything[i] for i in range(len(items))]

    def leave(self) -> None:
        """Leave the group, as a process should before it ends."""
        if "torch.distributed" not in sys.modules:
            return
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()
