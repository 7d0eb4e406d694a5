"""The device that a user names, and the way there."""

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vpoet.errors import BackendError


def pick(name: str) -> torch.device:
    """auto (CUDA where there is one, else the CPU), cpu, cuda or cuda:N; BackendError: another, or it is not there.

    Of several GPUs, auto and cuda are the one of this process, as its launcher says (LOCAL_RANK), else the first.
    """
    cuda = torch.cuda.is_available()
    if name == "auto" and not cuda:
        return torch.device("cpu")
    try:
        found = torch.device("cuda" if name == "auto" else name)
    except RuntimeError:  # not a name that torch knows
        found = torch.device("meta")
    if found.type not in ("cpu", "cuda") or (found.type == "cpu" and found.index):
        raise BackendError(f"device {name!r}: there are auto, cpu, cuda and cuda:N")
    if name in ("auto", "cuda") and "LOCAL_RANK" in os.environ:
        found = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    if found.type == "cuda" and not cuda:
        raise BackendError(f"device {name}: there is no CUDA device that torch can use here; use cpu")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise BackendError(f"device {name}: the last one here is cuda:{torch.cuda.device_count() - 1}")
    return found


def send(values: np.typing.NDArray[Any], device: torch.device) -> Tensor:
    """An array on a device. A GPU is not waited for: it may be at work on what came before."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
