"""What a step costs: tokens per second, the share of the machine's matrix-product speed, the time left."""

import time

import torch
from torch import Tensor

from vpoet.sequence.document import KINDS
from vpoet.training.sheets import sheet_peak


def matmul_peak(device: torch.device, dtype: torch.dtype, size: int = 1024, seconds: float = 0.3) -> float:
    """Floating-point operations per second of a square matrix product of ``size``, the best of several runs.

    The denominator of ``speed/mfu`` is measured, so it holds on any machine; a GPU in `vpoet.training.sheets` has
    ``speed/mfu_data_sheet`` beside it, which is what papers report. Processes that share one machine measure at the
    same time and share its speed as they do in training.
    """
    size = size if device.type == "cpu" else 8 * size
    # ones, as drawing numbers would move the random state that a resumed run continues
    a, b = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop:
        start = time.perf_counter()
        product: Tensor = a @ b
        product[0, 0].item()  # waits for a GPU
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def peaks(device: torch.device, dtype: torch.dtype) -> Tensor:
    """This device's `matmul_peak`, and what its data sheet says (`sheet_peak`): fp64 [2], to be added up.

    Of a CPU it is that of fp32, if that is higher: where bf16 is imitated, what a step computes in fp32 would make more
    than all of bf16's.
    """
    sheet = sheet_peak(torch.cuda.get_device_name(device), dtype) if device.type == "cuda" else 0.0
    kinds = {dtype, torch.float32} if device.type == "cpu" else {dtype}
    return torch.tensor((max(matmul_peak(device, kind) for kind in kinds), sheet), dtype=torch.double)


class Meter:
    """Rates over the steps since the last reading."""

    def __init__(self, peak: float, sheet: float = 0.0) -> None:
        self.peak, self.sheet = peak, sheet
        """Floating-point operations per second of all processes together, as measured and by data sheets; 0: unknown"""
        self._reset()

    def _reset(self) -> None:
        self.start = time.perf_counter()
        self.steps = self.tokens = self.padding = 0
        self.flops = self.waited = 0.0

    def count(self, *, tokens: int, padding: int, flops: float, waited: float) -> None:
        """Add one step: packed tokens and padding of the global batch, operations, seconds waiting for data."""
        self.steps += 1
        self.tokens += tokens
        self.padding += padding
        self.flops += flops
        self.waited += waited

    def pause(self, seconds: float) -> None:
        """Leave time out that was not spent on training steps (evaluation, checkpoints, samples)."""
        self.start += seconds

    def read(self) -> dict[str, float]:
        """Rates since the last reading; starts anew."""
        elapsed = time.perf_counter() - self.start
        rates = {
            "speed/tokens_per_second": self.tokens / elapsed,
            "speed/seconds_per_step": elapsed / self.steps,
            "speed/mfu": self.flops / elapsed / self.peak,
            "speed/data_wait": self.waited / elapsed,
            "speed/padding": self.padding / self.tokens,
        }
        if self.sheet:
            rates["speed/mfu_data_sheet"] = self.flops / elapsed / self.sheet
        self._reset()
        return rates


def progress(done: int, steps: int, row: dict[str, float]) -> str:
    """The console's line for the person waiting."""
    left = int((steps - done) * row["speed/seconds_per_step"])
    time_left = f"{left // 60}:{left % 60:02}"
    bits = "  ".join(f"{kind} {row[key]:.3f}" for kind in KINDS if (key := f"train/{kind}_bits") in row)
    skipped = f"  skipped {row['train/skipped']:.0f}" if row["train/skipped"] else ""
    return (
        f"step {done}/{steps}  loss {row['train/loss']:.4f}  bits: {bits}  |g| {row['train/grad_norm']:.2f}  "
        f"lr {row['train/lr']:.1e}  {row['speed/tokens_per_second']:,.0f} tok/s  mfu {row['speed/mfu']:.0%}  "
        f"padding {row['speed/padding']:.1%}  wait {row['speed/data_wait']:.1%}  left {time_left}{skipped}"
    )
