"""The devices that a user names."""

import pytest
import torch

from vpoet.devices import pick
from vpoet.errors import BackendError


def test_devices_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(pick(name)) for name in ("auto", "cpu", "cpu:0", "cuda", "cuda:1")] == [
        "cuda", "cpu", "cpu:0", "cuda", "cuda:1"
    ]  # fmt: skip
    with pytest.raises(BackendError, match="device cuda:2: the last one here is cuda:1"):
        pick("cuda:2")


def test_each_process_of_a_launcher_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert [str(pick(name)) for name in ("auto", "cuda", "cuda:0", "cpu")] == ["cuda:1", "cuda:1", "cuda:0", "cpu"]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(BackendError, match="device cuda:2: the last one here is cuda:1"):
        pick("cuda")


def test_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert str(pick("auto")) == "cpu"
    with pytest.raises(BackendError, match="device cuda:0: there is no CUDA device"):
        pick("cuda:0")


@pytest.mark.parametrize(
    "name", ["tpu", "", "cuda:x", "cuda:-1", "meta", "CUDA", "cpu:1", "mps", "\udcff", "cuda:99999"]
)
def test_there_are_no_others(name: str) -> None:
    with pytest.raises(BackendError, match="device "):
        pick(name)
