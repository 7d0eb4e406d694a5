"""The shared memory of processes that train on one machine's CPUs: 66 MB each, which DeepSpeed makes and never removes.

DeepSpeed (csrc/cpu/comm/shm.cpp) gives each process's memory a name in /dev/shm, by which the others find it:

    deepspeed_allreduce_buffer_<user>_<MASTER_ADDR>_<MASTER_PORT>_<rank>

Once all have found it the name serves nobody, and the memory goes with the last process that holds it, if the name is
gone by then. So `remove_name` takes it away right after the start, and neither an end nor a kill leaves anything. What
a kill leaves before that, or another program of DeepSpeed, `remove_abandoned` takes at the next start.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

FOLDER = Path("/dev/shm")
SETTLED = 600.0
"""Seconds after which a name is not one that a job is about to look up."""


def remove_name(rank: int, folder: Path = FOLDER) -> None:
    """Take away the name of this process's memory; only when every process of the job has opened it."""
    (folder / f"{_job()}{rank}").unlink(missing_ok=True)


def remove_abandoned(folder: Path = FOLDER) -> None:
    """Remove the memory of this user's jobs that no process holds any more. That of a job with this one's address and
    port stays: this one writes it anew.

    A job in another container is not seen, but loses nothing: its processes found each other long ago.
    """
    old = time.time() - SETTLED
    left = {}
    for path in folder.glob(f"{_prefix()}*"):
        with suppress(OSError):  # another job, which starts too, may have removed it
            about = path.stat()
            if not path.name.startswith(_job()) and about.st_mtime < old:
                left[about.st_ino] = path
    for number in left.keys() - (_mapped() if left else set()):
        left[number].unlink(missing_ok=True)


def _prefix() -> str:
    return f"deepspeed_allreduce_buffer_{os.getuid()}_"


def _job() -> str:
    address, port = (os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT"))
    return f"{_prefix()}{address}_{port}_"


def _mapped() -> set[int]:
    """Inode numbers of all files that processes have in memory, as far as they tell this user."""
    found: set[int] = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            lines = (process / "maps").read_text(errors="replace").splitlines()
            found.update(int(line.split(maxsplit=5)[4]) for line in lines)
    return found
