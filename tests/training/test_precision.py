"""Which arithmetic a device is quick at, and that a slow one is told."""

import pytest
import torch

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
