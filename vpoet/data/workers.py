"""Jobs shared out to worker processes: what each gives, how far all are, and an end when it is asked for.

`share_out` is the whole interface, to processes of this machine as to other workers (`vpoet.data.ray_workers`).
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.connection import wait as wait_for
from typing import Any, Protocol, TypeVar

from vpoet.errors import DataError

Job = TypeVar("Job")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]
"""Called with how many more sources are done, and how many more clips kept; it may raise to stop.

Less than none where a worker was lost, whose job is begun anew."""
Work = Callable[[Job, Progress], Result]
"""Does one job, and tells of its progress often: what stops the work is raised there."""


class Workers(Protocol):
    """Workers other than processes of this machine."""

    def share_out(
        self, work: Work[Job, Result], jobs: Sequence[Job], progress: Progress
    ) -> Iterator[tuple[Job, Result]]:
        """As the function `share_out`."""


def share_out(
    work: Work[Job, Result], jobs: Sequence[Job], workers: int | Workers, progress: Progress
) -> Iterator[tuple[Job, Result]]:
    """Each job with its result, in the order in which they end; one worker is this process.

    With more, or others, ``work`` is a function of a module, and jobs and results are pickled. An exception of a job,
    of ``progress`` or a Ctrl-C ends all workers, and is raised. DataError: a worker died.
    """
    if not isinstance(workers, int):
        yield from workers.share_out(work, jobs, progress)
        return
    if workers == 1:
        yield from ((job, work(job, progress)) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads (torch, a progress bar) can hang
    counts, stop = context.Array("q", 2), context.Event()
    told = [0, 0]
    with ProcessPoolExecutor(workers, context, initializer=_start, initargs=(work, counts, stop)) as pool:
        left, given = iter(jobs), dict[Future[Result], Job]()
        try:
            while True:
                # No more than soon begin: of a long list of jobs few are in memory.
                given |= {pool.submit(_work_there, job): job for job in islice(left, 2 * workers - len(given))}
                if not given:
                    return
                finished, _ = wait(given, timeout=0.2, return_when=FIRST_COMPLETED)
                yield from ((given.pop(future), future.result()) for future in finished)
                now = counts[:]
                progress(now[0] - told[0], now[1] - told[1])
                told = now
        except BrokenProcessPool:
            raise DataError("a worker process died, perhaps for want of memory: rerun with fewer --workers") from None
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


class _Stopped(Exception):
    """Raised inside a worker when the run is to end."""


def _start(work: Work[Any, Any], counts: Any, stop: Any) -> None:
    global _work, _counts, _stop
    _work, _counts, _stop = work, counts, stop
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent alone decides, by `stop`


def _end_with_parent() -> None:
    """Writing on after the run was killed would be writing into the folder of the next one."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait_for([parent.sentinel])
    os._exit(1)


def _work_there(job: Any) -> Any:
    def progress(sources: int, clips: int) -> None:
        with _counts.get_lock():
            _counts[0] += sources
            _counts[1] += clips
        if _stop.is_set():
            raise _Stopped

    return _work(job, progress)


_work: Work[Any, Any]
_counts: Any
_stop: Any
