"""Arrays on their way to the device that decodes."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def send(values: np.typing.NDArray[Any], device: torch.device) -> Tensor:
    """An array on a device. A GPU is not waited for: it may be at work on what came before."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
