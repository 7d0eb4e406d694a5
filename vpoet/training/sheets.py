"""What GPUs can do by their data sheets, which plans and the MFU of a run are held against."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Device:
    """Peak floating-point operations per second of dense matrix products, and bytes of memory."""

    bf16: float
    fp32: float
    memory: float
    name: str = ""
    """A part of the name that CUDA has for it, and for no other."""

    def peak(self, dtype: torch.dtype) -> float:
        return self.fp32 if dtype == torch.float32 else self.bf16


DEVICES = {
    "h100": Device(989.4e12, 67e12, 80e9, "H100 80GB HBM3"),
    "h200": Device(989.4e12, 67e12, 141e9, "H200"),
    "a100-80": Device(312e12, 19.5e12, 80e9, "A100-SXM4-80GB"),
    "l40s": Device(362.05e12, 91.6e12, 48e9, "L40S"),
    "rtx4090": Device(165.2e12, 82.6e12, 24e9, "RTX 4090"),
}
"""By NVIDIA's data sheets of H100 (SXM), H200 (SXM), A100 80GB (SXM) and L40S, and by appendix A of its Ada GPU
architecture paper (RTX 4090, with fp32 accumulation). bf16, and fp16 with it, is without sparsity, fp32 without TF32,
which PyTorch does not use unless told to."""


def sheet_peak(name: str, dtype: torch.dtype) -> float:
    """Operations per second of the GPU with this `torch.cuda.get_device_name`; 0 for one that is not in `DEVICES`."""
    return next((device.peak(dtype) for device in DEVICES.values() if device.name in name), 0.0)
