"""Jobs shared out: the same results from any number of processes, and an end to all when one fails or is stopped."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from vpoet.data.workers import share_out
from vpoet.errors import DataError

JOBS = """
import os
import time

def square(job, progress):
    progress(1, job)
    return job * job

def die(job, progress):
    if job == 2:
        os._exit(1)
    return job

def fail(job, progress):
    if job == 2:
        raise KeyError("two")
    return job

def go_on(job, progress):
    while True:
        progress(0, 1)
        time.sleep(0.01)
"""


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Work in a module that worker processes can import, too."""
    (tmp_path / "jobs_of_this_test.py").write_text(JOBS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return importlib.import_module("jobs_of_this_test")


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_gives_its_result_and_is_counted(jobs: ModuleType, workers: int) -> None:
    told = [0, 0]

    def progress(sources: int, clips: int) -> None:
        told[0] += sources
        told[1] += clips

    assert dict(share_out(jobs.square, range(5), workers, progress)) == {0: 0, 1: 1, 2: 4, 3: 9, 4: 16}
    assert told == [5, 10]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_job_is_raised(jobs: ModuleType, workers: int) -> None:
    with pytest.raises(KeyError, match="two"):
        dict(share_out(jobs.fail, range(4), workers, lambda *_: None))


def test_a_worker_that_dies_is_told(jobs: ModuleType) -> None:
    with pytest.raises(DataError, match=r"a worker process died.*fewer --workers"):
        dict(share_out(jobs.die, range(4), 2, lambda *_: None))


@pytest.mark.parametrize("workers", [1, 2])
def test_what_progress_raises_ends_work_that_would_not_end(jobs: ModuleType, workers: int) -> None:
    def progress(sources: int, clips: int) -> None:
        if clips:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dict(share_out(jobs.go_on, range(2), workers, progress))
