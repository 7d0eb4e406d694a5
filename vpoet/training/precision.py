"""The types of arithmetic by the names that recipes and flags have for them."""

import torch

from vpoet.errors import BackendError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
IN_FILES = ("fp32", "fp16")
"""Those in which weights are exported: bf16 would lose more and take as much."""


def check_dtype(dtype: torch.dtype, device: torch.device) -> None:
    """BackendError if the device has no such arithmetic."""
    on_cpu = device.type == "cpu"
    if dtype == torch.float16 and on_cpu and not torch.ops.mkldnn._is_mkldnn_fp16_supported():
        raise BackendError(
            "engine.dtype = fp16: this CPU has no arithmetic in fp16 (AVX512-FP16); use engine.dtype=bf16"
        )


def fastest(device: torch.device) -> str:
    """What products are fastest in, by name: bf16 where the hardware multiplies it, and fp32 on any other CPU.

    A CPU without such instructions widens and rounds each number, and takes several times as long as in fp32.
    """
    if device.type != "cpu" or torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported():
        return "bf16"
    return "fp32"


def spoken(name: str, device: torch.device) -> str:
    """A type's name, and of one that is slow on the device what to take instead."""
    if name == "bf16" and fastest(device) == "fp32":
        return "bf16 (which this CPU only imitates: engine.dtype=fp32 is several times as fast)"
    return name
