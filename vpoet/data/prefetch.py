"""An endless iterator that works ahead in a process of its own, and never holds the interpreter's lock of this one.

    here                                      there: a new interpreter, which imports what it is sent and no more
    start: the work, pickled  ------------>  load it; make items until so many have not been asked for
    an item was taken: one more  ---------->
                        <-------------------  an item, or what was raised in its stead
    nothing comes: what are you at?  ------>
                        <-------------------  what it is at
    close, or this process ends  ---------->  end of file: it ends at once, whatever it is doing

No fork: a copy of a process with threads and a GPU can hang. No multiprocessing: it would run the program's file again,
which imports torch and DeepSpeed. A group of its own: Ctrl-C and signals to the whole job are for the trainer, which
still wants items to finish its step.
"""

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, Generic, Protocol, TypeVar

from vpoet.errors import ConfigError, DataError, VpoetError

Item = TypeVar("Item", covariant=True)
_ORPHAN = 1.0
"""Seconds after which a process looks whether its parent is still there, which a fork of the parent's may hide."""
_START = (
    "import pickle, sys; from multiprocessing.connection import Connection; "
    "sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from vpoet.data.prefetch import _serve; _serve(Connection(int(sys.argv[1])), *map(int, sys.argv[2:4]))"
)


class Work(Protocol[Item]):
    """What is done ahead. It is pickled, and goes on in the other process from where it is here."""

    def __next__(self) -> Item: ...

    def at(self) -> str:
        """What it is doing right now; asked by another thread."""


class Prefetch(Generic[Item]):
    """``work``'s items in order, up to ``ahead`` of them made before they are asked for.

    What is raised there is raised here, in its turn and ever after. DataError: the process died. Close it; a forgotten
    one is closed when it is collected, and with this process it ends however this one does.
    """

    def __init__(self, work: Work[Item], ahead: int) -> None:
        self._taken = 0
        self._connection, there = Pipe()
        try:
            sent = pickle.dumps(sys.path) + pickle.dumps(work)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise _unsendable(error) from None
        with there:
            numbers = map(str, (there.fileno(), ahead, os.getpid()))
            command = [sys.executable, "-c", _START, *numbers, "vpoet-packs"]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[there.fileno()], process_group=0)
        # a thread, as what is sent may be more than a pipe takes before the other end reads
        threading.Thread(target=_feed, args=(self._process, sent), daemon=True).start()
        self.close = weakref.finalize(self, _end, self._process, self._connection)
        """Ends the process; safe to call twice."""

    @property
    def pid(self) -> int:
        return self._process.pid

    def take(self, patience: float, stalled: Callable[[float, str], None]) -> Item:
        """The next item. ``stalled`` is told after so many seconds how long it has waited, and what the work is at;
        again after twice as long."""
        waited = 0.0
        try:
            while True:
                if not self._connection.poll(patience - waited):
                    waited, patience = patience, 2 * patience
                    self._connection.send((self._taken, waited))
                    continue
                kind, content = pickle.loads(self._connection.recv_bytes())
                if kind == "item":
                    self._taken += 1
                    self._connection.send(None)
                    return content  # type: ignore[no-any-return]
                if kind == "error":
                    raise content
                asked, seconds, at = content
                if asked == self._taken:  # and not what was asked before the last item came
                    stalled(seconds, at)
        except (EOFError, ConnectionError):
            status = self._process.wait()
            how = signal.Signals(-status).name if status < 0 else f"status {status}"
            raise DataError(
                f"the process that makes packs ended with {how}: killed, or out of memory; go on with --resume"
            ) from None


def _feed(process: "subprocess.Popen[bytes]", sent: bytes) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
        pipe.write(sent)


def _unsendable(error: Exception) -> ConfigError:
    return ConfigError(
        f"what makes packs cannot be sent to another process ({error}): use functions and classes of modules that can "
        "be imported there, or prefetch=0"
    )


def _end(process: "subprocess.Popen[bytes]", connection: Connection) -> None:
    process.kill()  # it has nothing to leave behind
    process.wait()
    connection.close()


def _serve(connection: Connection, ahead: int, parent: int) -> None:
    """The other process."""
    room, out = threading.Semaphore(ahead), queue.SimpleQueue[bytes]()
    doing: list[Work[Any]] = []
    threading.Thread(target=_listen, args=(connection, parent, room, doing, out), daemon=True).start()
    threading.Thread(target=_send, args=(connection, out), daemon=True).start()
    try:
        try:
            doing.append(pickle.load(sys.stdin.buffer))
        except (AttributeError, ImportError) as error:
            raise _unsendable(error) from None
        while True:
            room.acquire()
            out.put(pickle.dumps(("item", next(doing[0])), protocol=5))
    except BaseException as error:
        out.put(_raised(error))
    threading.Event().wait()  # until the parent has read that, and ends this process


def _listen(
    connection: Connection,
    parent: int,
    room: threading.Semaphore,
    doing: list[Work[Any]],
    out: "queue.SimpleQueue[bytes]",
) -> None:
    try:
        while os.getppid() == parent:
            if connection.poll(_ORPHAN):
                asked = connection.recv()
                if asked is None:
                    room.release()
                else:
                    at = doing[0].at() if doing else "starting"
                    out.put(pickle.dumps(("at", (*asked, at))))
    except (EOFError, OSError):
        pass
    os._exit(0)


def _send(connection: Connection, out: "queue.SimpleQueue[bytes]") -> None:
    try:
        while True:
            connection.send_bytes(out.get())
    except OSError:  # the parent is gone
        os._exit(0)


def _raised(error: BaseException) -> bytes:
    if not isinstance(error, VpoetError):
        error.add_note(f"raised in the process that makes packs:\n{''.join(traceback.format_exception(error))}")
    try:
        message = pickle.dumps(("error", error))
        pickle.loads(message)
    except Exception:
        return pickle.dumps(("error", RuntimeError("".join(traceback.format_exception(error)))))
    return message
