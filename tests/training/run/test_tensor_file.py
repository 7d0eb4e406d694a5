"""Tensor files against the safetensors library, and disks that refuse."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vpoet.errors import CheckpointError
from vpoet.files import fingerprint
from vpoet.training.engine.base import Slice
from vpoet.training.run.tensor_file import Sink, is_covered, places, read_into, write_slices

TENSORS = {"weight": torch.randn(3, 5), "a.bias": torch.randn(7), "scalar": torch.tensor(2.5), "none": torch.ones(0, 4)}


def write(path: Path) -> Sink:
    return write_slices(path, {name: Slice(0, tensor.flatten(), tensor.shape) for name, tensor in TENSORS.items()})


def test_the_safetensors_library_reads_what_is_written(tmp_path: Path) -> None:
    told = write(tmp_path / "ours").about
    read = load_file(tmp_path / "ours")
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in TENSORS.items())
    assert fingerprint(tmp_path / "ours") == told


def test_a_changed_byte_changes_the_fingerprint(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(100)}, tmp_path / "file")
    before = fingerprint(tmp_path / "file")
    content = bytearray((tmp_path / "file").read_bytes())
    content[-1] ^= 1
    (tmp_path / "file").write_bytes(content)
    assert fingerprint(tmp_path / "file") != before
    assert fingerprint(tmp_path / "file")["bytes"] == before["bytes"]


def test_a_disk_that_refuses_is_remembered_and_not_raised(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the full disk: both fail in the middle of a write."""
    script = f"""
import json, resource, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_tensor_file import write
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
file = write(Path(sys.argv[2]))
print(json.dumps(file.error and file.error.strerror))
"""
    whole = int(write(tmp_path / "whole").about["bytes"])

    def failed(limit: int) -> str | None:
        done = subprocess.run(
            [sys.executable, "-c", script, str(limit), str(tmp_path / "file")],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        error: str | None = json.loads(done.stdout)
        return error

    assert failed(whole) is None
    assert failed(whole - 1) == "File too large"
    assert (tmp_path / "file").stat().st_size == whole - 1


def test_a_folder_that_is_not_there_is_remembered(tmp_path: Path) -> None:
    assert isinstance(write(tmp_path / "nowhere" / "file").error, FileNotFoundError)


def test_tensors_are_let_go_when_they_are_written(tmp_path: Path) -> None:
    tensors = {"x": Slice(0, torch.ones(3), torch.Size((3,)))}
    write_slices(tmp_path / "file", tensors)
    assert tensors == {}


def test_any_pieces_of_a_tensor_are_read_from_any_others(tmp_path: Path) -> None:
    whole = torch.randn(5, 7, 2)
    cuts = ((0, 1), (1, 33), (33, 70))
    for number, (first, stop) in enumerate(cuts):
        write_slices(tmp_path / f"{number}", {"x": Slice(first, whole.flatten()[first:stop], whole.shape)})
    save_file({"x": whole}, tmp_path / "library")
    slices = [places(tmp_path / f"{number}")["x"] for number in range(3)]
    assert is_covered(slices)
    assert {own.shape for own in slices} == {whole.shape}
    for held in (slices, [places(tmp_path / "library")["x"]]):
        for first, stop in ((0, 70), (0, 1), (32, 34), (33, 70), (5, 5), (69, 70)):
            read = torch.full((stop - first,), torch.nan)
            read_into(read, first, held)
            assert torch.equal(read, whole.flatten()[first:stop])
    assert not is_covered(slices[:2])
    assert not is_covered(slices[1:])
    assert not is_covered([*slices, slices[0]])


@pytest.mark.parametrize(
    "spoil", [
        lambda data: b"", lambda data: b"\xff" * 20, lambda data: data[:-1], lambda data: data[:40],
        lambda data: data.replace(b"F32", b"F16"), lambda data: data.replace(b"[7]", b"[8]"),
        lambda data: data.replace(b'"data_offsets"', b'"data_offset_"'), lambda data: data.replace(b": [0,", b":[-4,"),
    ]
)  # fmt: skip
def test_a_file_of_other_things_is_named(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    write(tmp_path / "file")
    content = (tmp_path / "file").read_bytes()
    assert spoil(content) != content
    (tmp_path / "file").write_bytes(spoil(content))
    with pytest.raises(CheckpointError, match="file: cannot be read"):
        places(tmp_path / "file")
