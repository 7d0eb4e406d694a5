"""Jobs shared out to the machines of a Ray cluster, as `vpoet.data.workers` does it on one.

Each worker is an actor: a process that holds its networks from job to job. All machines see the same folders under the
same paths. A worker that is lost, with its machine or for want of memory, is replaced, and its job begun anew by
another: a job writes its files aside and puts them in place when they are whole, so that nothing is there by half, and
it is the same bytes whoever writes them.
"""

import os
import re
import socket
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vpoet.data.workers import Job, Progress, Result, Work, Workers
from vpoet.errors import BackendError, DataError

AUTO, LOCAL = "auto", "local"
"""Addresses: of the cluster that this machine belongs to; of one that is started for this run, on this machine."""
LOSSES = 4
"""Times that a job may lose its worker; more is its own fault."""
REACHED = 10.0
"""Seconds in which a cluster's machine answers."""
_POLL = 0.3


class RayWorkers:
    """Workers on a cluster: ``workers`` of them, or one for each processor (GPU) that the cluster has at the start.

    A worker takes one processor, and ``gpus`` of a machine's GPUs.
    """

    def __init__(self, address: str, workers: int | None = None, gpus: int = 0) -> None:
        """DataError: not an address. BackendError: Ray is not installed."""
        if address not in (AUTO, LOCAL) and not re.fullmatch(r"(ray://)?[^\s/:]+:\d{1,5}", address):
            raise DataError(f"--ray is auto, local, HOST:PORT or ray://HOST:PORT, not {address!r}")
        self._ray = _ray()
        self._address, self._workers, self._gpus = address, workers, gpus

    def share_out(
        self, work: Work[Job, Result], jobs: Sequence[Job], progress: Progress
    ) -> Iterator[tuple[Job, Result]]:
        """See `vpoet.data.workers.share_out`. DataError: no cluster is there, or a job lost worker after worker."""
        if not jobs:
            return
        with self._connected():
            count = self._workers or int(self._ray.cluster_resources().get("GPU" if self._gpus else "CPU", 0)) or 1
            crew = _Crew(self._ray, work, jobs, min(count, len(jobs)), self._gpus)
            try:
                yield from crew.run(progress)
            finally:
                crew.end()

    @contextmanager
    def _connected(self) -> Iterator[None]:
        if self._ray.is_initialized():
            yield
            return
        host, _, port = self._address.removeprefix("ray://").partition(":")
        try:
            if port:
                socket.create_connection((host, int(port)), REACHED).close()  # Ray itself would try for minutes
            started = {"include_dashboard": False} if self._address == LOCAL else {}
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster started here reports to nobody
            self._ray.init(self._address, log_to_driver=False, logging_level="ERROR", **started)
        except Exception as error:  # Ray raises even that as it is, of a machine that takes more than 30 s to begin
            told = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(
                f"--ray {self._address}: no cluster of Ray can be reached there ({told}): start one by "
                "`ray start --head`, or give --ray local"
            ) from None
        try:
            yield
        finally:
            self._ray.shutdown()


def workers_of(address: str | None, workers: int | None = None, gpus: int = 0) -> int | Workers:
    """What a command shares its jobs out to: ``workers`` processes, 1 unless told, or those of a cluster."""
    return workers or 1 if address is None else RayWorkers(address, workers, gpus)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise BackendError(f'--ray needs Ray ({error}): pip install "vpoet[ray]"') from None
    return ray


class _Worker:
    """What runs on a machine of the cluster: one job at a time, while it can be asked how far that is."""

    def __init__(self, work: Work[Any, Any], folder: str) -> None:
        self._work, self._at, self._counts, self._lock = work, -1, (0, 0), threading.Lock()
        if not Path(folder).is_dir():
            raise DataError(f"{folder}: not on {socket.gethostname()}: all machines have to see the same folders")
        os.chdir(folder)  # paths are told from there

    def ready(self) -> None:
        """Nothing; whoever waits for it knows that the worker has begun."""

    def run(self, at: int, job: Any) -> tuple[Any, tuple[int, int]]:
        """The result of a job, that of number ``at``, and its whole progress."""
        self._at, self._counts = at, (0, 0)

        def progress(sources: int, clips: int) -> None:
            with self._lock:
                self._counts = self._counts[0] + sources, self._counts[1] + clips

        return self._work(job, progress), self._counts

    def told(self) -> tuple[int, tuple[int, int]]:
        """The number of the job that is run, and its progress."""
        return self._at, self._counts


class _Crew:
    """The actors of one `share_out`, each starting, or with a job by its number."""

    def __init__(self, ray: Any, work: Work[Any, Any], jobs: Sequence[Any], count: int, gpus: int) -> None:
        self._ray, self._jobs, self._count = ray, jobs, count
        options = {"num_cpus": 1, "num_gpus": gpus, "max_concurrency": 2, "max_restarts": 0}
        self._kind, self._given = ray.remote(**options)(_Worker), (work, str(Path.cwd()))
        self._left = deque(range(len(jobs)))
        self._busy: dict[Any, tuple[Any, int | None]] = {}
        """By what is waited for."""
        self._told: dict[int, tuple[int, int]] = {}
        """Progress of jobs that has been told on."""
        self._losses: Counter[int] = Counter()

    def run(self, progress: Progress) -> Iterator[tuple[Any, Any]]:
        while self._left or any(job is not None for _, job in self._busy.values()):
            working = sum(job is not None for _, job in self._busy.values())
            while len(self._busy) < min(self._count, len(self._left) + working):
                actor = self._kind.remote(*self._given)
                self._busy[actor.ready.remote()] = actor, None
            for ended in self._ray.wait(list(self._busy), timeout=_POLL)[0]:
                yield from self._ended(ended, progress)
            self._ask(progress)

    def end(self) -> None:
        for actor, _ in self._busy.values():
            self._ray.kill(actor)
        self._busy.clear()

    def _ended(self, what: Any, progress: Progress) -> Iterator[tuple[Any, Any]]:
        """A job's result, if it was one that ended; its worker gets the next."""
        actor, job = self._busy.pop(what)
        try:
            found = self._ray.get(what)
        except self._ray.exceptions.RayTaskError as error:
            self._ray.kill(actor)
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            self._ray.kill(actor)
            self._lost(job, str(error), progress)
            return
        if self._left:
            following = self._left.popleft()
            self._busy[actor.run.remote(following, self._jobs[following])] = actor, following
        else:
            self._ray.kill(actor)
        if job is not None:
            result, counts = found
            self._tell(job, counts, progress)
            yield self._jobs[job], result

    def _lost(self, job: int | None, why: str, progress: Progress) -> None:
        at = -1 if job is None else job
        self._losses[at] += 1
        if self._losses[at] > LOSSES:
            told = why.strip().splitlines()[-1] if why.strip() else "no reason told"
            what = "could not begin" if job is None else "died at one job, perhaps for want of memory"
            raise DataError(f"{LOSSES + 1} times a worker of the cluster {what}: {told}")
        if job is not None:
            self._tell(job, (0, 0), progress)
            self._left.appendleft(job)

    def _ask(self, progress: Progress) -> None:
        """How far the jobs are; a worker that does not answer at once is asked another time."""
        asked = {actor.told.remote(): at for actor, at in self._busy.values() if at is not None}
        for answer in self._ray.wait(list(asked), num_returns=len(asked), timeout=_POLL)[0] if asked else ():
            try:
                at, counts = self._ray.get(answer)
            except self._ray.exceptions.RayError:
                continue  # lost: so ends what it was at
            if at == asked[answer]:  # and has not yet to begin with it
                self._tell(at, counts, progress)

    def _tell(self, job: int, counts: tuple[int, int], progress: Progress) -> None:
        sources, clips = self._told.get(job, (0, 0))
        self._told[job] = counts
        progress(counts[0] - sources, counts[1] - clips)
