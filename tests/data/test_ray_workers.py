"""Jobs on a Ray cluster of three machines, all of them here: the same as on one, and nothing is lost with a machine."""

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from vpoet.data.clips import ClipSettings
from vpoet.data.curate.measuring import measure
from vpoet.data.ingest import ingest
from vpoet.data.ray_workers import RayWorkers
from vpoet.data.sources import divide, gather
from vpoet.data.workers import share_out
from vpoet.errors import DataError
from vpoet.media.video import Video

ray = pytest.importorskip("ray")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
SETTINGS = ClipSettings(frames=5, fps=10.0, height=16, width=16)
JOBS = """
import os
import signal
import time
from pathlib import Path

from vpoet.errors import DataError

def square(job, progress):
    progress(1, job)
    return job * job

def fail(job, progress):
    raise DataError(f"job {job} is bad")

def die_once(job, progress):
    progress(1, 5)
    if job[0] == 2 and not Path(job[1]).exists():
        Path(job[1]).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return job[0]

def die(job, progress):
    os.kill(os.getpid(), signal.SIGKILL)

def slow(job, progress):
    for _ in range(20):
        progress(0, 1)
        time.sleep(0.1)
    return job
"""


class Machines:
    """A head without workers, and two machines with two processors each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.nodes = [self.cluster.add_node(num_cpus=2) for _ in range(2)]
        self.address = str(self.cluster.address)

    def kill_one(self) -> None:
        self.cluster.remove_node(self.nodes.pop(), allow_graceful=False)


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """With the work of these tests in a module that their workers can import, too."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "jobs_of_ray_tests.py").write_text(JOBS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        patch.syspath_prepend(str(folder))
        try:
            made = Machines()
        except Exception:  # Ray gives a machine 30 seconds to begin, which a busy one may need
            made = Machines()
        yield made
        made.cluster.shutdown()


@pytest.fixture
def jobs(machines: Machines) -> ModuleType:
    return importlib.import_module("jobs_of_ray_tests")


def videos(folder: Path, count: int) -> Path:
    for number in range(count):
        frames = np.random.default_rng(number).integers(0, 256, (10, 20, 30, 3), dtype=np.uint8)
        Video(frames, 10.0).write(folder / f"{number:03d}.mp4")
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """All that is finished: what a dead machine had begun lies aside until a later run sweeps it."""
    whole = (path for path in folder.rglob("*") if path.is_file() and ".tmp." not in path.name)
    return {str(path.relative_to(folder)): path.read_bytes() for path in whole}


def nothing(sources: int, clips: int) -> None:
    pass


def test_every_job_gives_its_result_and_is_counted(machines: Machines, jobs: ModuleType) -> None:
    told = [0, 0]

    def progress(sources: int, clips: int) -> None:
        told[0] += sources
        told[1] += clips

    found = dict(share_out(jobs.square, range(7), RayWorkers(machines.address, 3), progress))
    assert found == {job: job * job for job in range(7)}
    assert told == [7, sum(range(7))]


def test_an_error_of_a_job_is_raised_as_it_is(machines: Machines, jobs: ModuleType) -> None:
    with pytest.raises(DataError, match=r"^job \d is bad$"):
        dict(share_out(jobs.fail, range(4), RayWorkers(machines.address, 2), nothing))


def test_a_lost_worker_is_replaced_and_its_progress_taken_back(
    machines: Machines, jobs: ModuleType, tmp_path: Path
) -> None:
    told = [0, 0]

    def progress(sources: int, clips: int) -> None:
        told[0] += sources
        told[1] += clips

    given = [(number, str(tmp_path / "died")) for number in range(5)]
    found = dict(share_out(jobs.die_once, given, RayWorkers(machines.address, 2), progress))
    assert (tmp_path / "died").exists()
    assert sorted(found.values()) == [0, 1, 2, 3, 4]
    assert told == [5, 25]
    with pytest.raises(DataError, match="5 times a worker of the cluster died at one job"):
        dict(share_out(jobs.die, [1], RayWorkers(machines.address, 1), nothing))


def test_what_progress_raises_ends_all(machines: Machines, jobs: ModuleType) -> None:
    def progress(sources: int, clips: int) -> None:
        if clips:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dict(share_out(jobs.slow, range(8), RayWorkers(machines.address, 2), progress))


def test_a_machine_that_dies_in_the_middle_changes_no_byte(machines: Machines, tmp_path: Path) -> None:
    sides = divide(gather([str(videos(tmp_path / "in", 48))]), holdout=0.3)
    ingest(sides, tmp_path / "one", SETTINGS, samples_per_shard=4)
    done = 0

    def progress(sources: int, clips: int) -> None:
        nonlocal done
        done += clips
        if done >= 10 and len(machines.nodes) == 2:
            machines.kill_one()

    ingest(
        sides,
        tmp_path / "ray",
        SETTINGS,
        samples_per_shard=4,
        workers=RayWorkers(machines.address, 4),
        progress=progress,
    )
    assert len(machines.nodes) == 1
    assert done == 96
    assert tree(tmp_path / "ray") == tree(tmp_path / "one")
    pytest.importorskip("cv2")
    for folder, workers in (("one", 1), ("ray", RayWorkers(machines.address))):
        measure(tmp_path / folder / "train", dict[str, Any], workers)
    assert tree(tmp_path / "ray/train/measures") == tree(tmp_path / "one/train/measures")


@pytest.mark.parametrize("address", ["", "somewhere", "a b:1", "ray://", "http://a:1", "a:b"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(DataError, match="--ray is auto, local, HOST:PORT"):
        RayWorkers(address)


def test_a_cluster_that_is_not_there(jobs: ModuleType) -> None:
    with pytest.raises(DataError, match="no cluster of Ray can be reached there"):
        dict(share_out(jobs.square, [1], RayWorkers("127.0.0.1:9"), nothing))
