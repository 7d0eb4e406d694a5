"""Which arithmetic a device is quick at, and that a slow one is told."""

import pytest
import torch

from vpoet.training import meter
from vpoet.training.precision import fastest, spoken


@pytest.mark.parametrize("multiplies", [False, True])
def test_bf16_that_a_cpu_only_imitates_is_told_with_what_to_take(
    monkeypatch: pytest.MonkeyPatch, multiplies: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: multiplies)
    cpu = torch.device("cpu")
    assert fastest(cpu) == ("bf16" if multiplies else "fp32")
    assert spoken("fp32", cpu) == "fp32"
    assert ("engine.dtype=fp32" in spoken("bf16", cpu)) is not multiplies
    assert spoken("bf16", torch.device("cuda")) == "bf16"


@pytest.mark.parametrize(("fp32", "bf16", "expected"), [(8.0, 2.0, 8.0), (2.0, 8.0, 8.0)])
def test_a_run_is_measured_by_the_quicker_arithmetic_of_a_cpu(
    monkeypatch: pytest.MonkeyPatch, fp32: float, bf16: float, expected: float
) -> None:
    """Or a run in bf16 that is imitated reaches more than all of it."""
    speeds = {torch.float32: fp32, torch.bfloat16: bf16}
    monkeypatch.setattr(meter, "matmul_peak", lambda device, dtype: speeds[dtype])
    assert meter.peaks(torch.device("cpu"), torch.bfloat16).tolist() == [expected, 0.0]
    assert meter.peaks(torch.device("cpu"), torch.float32).tolist() == [fp32, 0.0]
