"""What an earlier job left in shared memory is removed, and what a living one holds is not."""

import mmap
import os
import time
from pathlib import Path

import pytest

from vpoet.training.engine import shared_memory


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    return tmp_path


def leave(folder: Path, job: str, user: int, age: float = 2 * shared_memory.SETTLED) -> Path:
    path = folder / f"deepspeed_allreduce_buffer_{user}_{job}"
    path.write_bytes(bytes(mmap.PAGESIZE))
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def test_only_what_nobody_holds_is_removed(folder: Path) -> None:
    me = os.getuid()
    abandoned = [leave(folder, job, me) for job in ("127.0.0.1_29610_0", "node_7.lan_29500_1")]
    kept = [
        leave(folder, "127.0.0.1_29500_1", me),  # of this job: another process may be about to open it
        leave(folder, "127.0.0.1_29611_0", me, age=1),  # of a job that is starting, perhaps in another container
        leave(folder, "127.0.0.1_29612_0", me + 1),
        folder / "torch_1",
    ]
    kept[-1].write_bytes(b"of another program")
    alive = leave(folder, "127.0.0.1_29613_0", me)
    with alive.open("r+b") as file, mmap.mmap(file.fileno(), mmap.PAGESIZE):
        file.close()  # as DeepSpeed's may be: what is mapped is in use
        shared_memory.remove_abandoned(folder)
        assert sorted(folder.iterdir()) == sorted([*kept, alive])
    shared_memory.remove_abandoned(folder)
    assert sorted(folder.iterdir()) == sorted(kept)
    assert not any(path.exists() for path in abandoned)


def test_a_process_removes_its_own_name_alone(folder: Path) -> None:
    mine, other = (leave(folder, f"127.0.0.1_29500_{rank}", os.getuid(), age=0) for rank in (0, 1))
    shared_memory.remove_name(0, folder)
    assert (mine.exists(), other.exists()) == (False, True)
    shared_memory.remove_name(0, folder)  # of memory that was never made: on GPUs
