"""The device that a user names."""

import os
from typing import TYPE_CHECKING

from vpoet.errors import BackendError

if TYPE_CHECKING:
    import torch


def pick(name: str) -> "torch.device":
    """auto (CUDA where there is one, else the CPU), cpu, cuda or cuda:N; BackendError: another, or it is not there.

    cuda, and so auto, is ``cuda:LOCAL_RANK`` in a process that a launcher started: each has a GPU of its own.
    """
    import torch  # late: what needs no device need not wait for it

    cuda = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if cuda else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        found = torch.device(name)
    except RuntimeError:  # not a name that torch knows
        found = torch.device("meta")
    if found.type not in ("cpu", "cuda") or (found.type == "cpu" and found.index):
        raise BackendError(f"device {name!r}: there are auto, cpu, cuda and cuda:N")
    if found.type == "cuda" and not cuda:
        raise BackendError(f"device {name}: there is no CUDA device that torch can use here; use cpu")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise BackendError(f"device {name}: the last one here is cuda:{torch.cuda.device_count() - 1}")
    return found
