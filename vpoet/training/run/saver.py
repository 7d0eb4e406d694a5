"""Checkpoints written beside training: copied to host memory in step, written and hashed in a thread.

    main thread   step | copy | step | step | agree | step | step | agree | step
    its thread                |--- write, flush ---|      |- seal -|

`vpoet.training.run.checkpoint` says what a checkpoint holds. The processes talk to each other in their main threads
alone, at steps that all of them reach, so that no collective of a save meets one of training.
"""

import json
import shutil
import threading
from collections.abc import Callable, Container, Generator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from vpoet.errors import CheckpointError
from vpoet.files import sync_folder
from vpoet.processes import Processes
from vpoet.training.engine.base import Engine, Slice
from vpoet.training.run.checkpoint import FORMATS, MANIFEST, STATE, complete
from vpoet.training.run.folder import checkpoint_of, step_of
from vpoet.training.run.tensor_file import Sink, write_bytes, write_slices

T = TypeVar("T")


class Saver:
    """Saves a run; every process has one, and all of them call it alike.

    Of the checkpoints stay the newest ``keep``, those whose step is a multiple of ``keep_every``, and for the time that
    process 0 finds them to be ``needed`` others. A kill at any moment leaves the last one that was told of, and those
    kept before it: a folder gets its name only when whole and on the disk. Every process copies and writes its own
    slices of the tensors alone, and nothing of them passes between processes. Until a copy is written it takes host
    memory: 12 bytes for each weight, which the processes share.
    """

    def __init__(
        self,
        run: Path,
        engine: Engine,
        *,
        keep: int,
        keep_every: int = 0,
        needed: Callable[[], Container[int]] = tuple,
        say: Callable[[str], None] = print,
    ) -> None:
        self.run, self.engine = run, engine
        self.keep, self.keep_every, self.needed = keep, keep_every, needed
        self._say = say
        self._save: Generator[Future[Any], None, Path] | None = None
        self._work: Future[Any] = Future()

    def save(self, state: dict[str, Any], *, last: bool = False) -> None:
        """Begin the checkpoint of ``state["step"]``, after the one before it has ended; `poll` ends it.

        ``last`` waits for it, and a disk that refuses is then a CheckpointError, in every process alike. Otherwise it
        is a warning, nothing of the attempt stays, and the older checkpoints do.
        """
        self.poll(wait=True)
        self._save = self._stages(state)
        self._go_on(fatal=last)
        while last and self._save is not None:
            self._go_on(fatal=True)

    def poll(self, *, wait: bool = False) -> None:
        """Go on with what is being saved, if every process has done its part of it; with ``wait``, to the end."""
        while self._save is not None:
            if not wait and int(self.engine.total(torch.tensor(float(self._work.done())))) < self.engine.world:
                return
            self._go_on(fatal=False)

    def _go_on(self, *, fatal: bool) -> None:
        """To the next stage. What its thread did is waited for there."""
        assert self._save is not None
        said = ""
        try:
            self._work = next(self._save)
        except StopIteration as end:
            said = f"saved {end.value}"
        except CheckpointError as error:
            if fatal:
                self._save = None
                raise
            said = f"warning: {error}; training goes on"
        if said:
            self._save = None
            if self.engine.rank == 0:
                self._say(said)

    def _stages(self, state: dict[str, Any]) -> Generator[Future[Any], None, Path]:
        """A save, in slices between which training goes on; each yields what its thread is at."""
        engine = self.engine
        folder = checkpoint_of(self.run, state["step"])
        aside = beside(folder)
        failed: OSError | None = None
        if engine.rank == 0:
            try:
                clear(aside)
            except OSError as error:
                failed = error
        agree(engine.processes, folder, failed)
        try:
            about = {"world": engine.world, "engine": type(engine).__name__, "updates": engine.updates()}
            about["loss_scale"] = engine.loss_scale.state()
            text = json.dumps(state | about, indent=1).encode()  # now: training changes what the state refers to
            weights, states = _copy(engine)

            def write() -> list[Sink]:
                sinks = [
                    write_slices(aside / f"model-{engine.rank}.safetensors", weights),
                    write_slices(aside / f"optimizer-{engine.rank}.safetensors", states),
                ]
                if engine.rank == 0:
                    sinks.append(write_bytes(aside / STATE, text))
                return sinks

            yield (writing := _in_thread(write))
            sinks = writing.result()
            files = {sink.path.name: sink.about for sink in sinks}
            listed = agree(engine.processes, folder, next((sink.error for sink in sinks if sink.error), None), files)

            def finish() -> OSError | None:
                if engine.rank:
                    return None
                return self._seal(aside, folder, {name: about for each in listed for name, about in each.items()})

            yield (sealing := _in_thread(finish))
            agree(engine.processes, folder, sealing.result())
        except CheckpointError:
            if engine.rank == 0:
                shutil.rmtree(aside, ignore_errors=True)
            raise
        return folder

    def _seal(self, aside: Path, folder: Path, files: dict[str, Any]) -> OSError | None:
        """Write the manifest, give the folder its name, and remove what it supersedes; what went wrong, if anything."""
        try:
            seal(aside, folder, files)
        except OSError as error:
            return error
        for old in complete(self.run)[: -self.keep]:
            if not ((self.keep_every and step_of(old) % self.keep_every == 0) or step_of(old) in self.needed()):
                shutil.rmtree(old, ignore_errors=True)
        return None


def _in_thread(work: Callable[[], T]) -> Future[T]:
    """``work`` in a thread that does not keep a process alive which fails meanwhile."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="checkpoint", daemon=True).start()
    return future


def _copy(engine: Engine) -> tuple[dict[str, Slice], dict[str, Slice]]:
    """What this process writes: its slices of the weights, and of the optimiser's states, copied to host memory."""
    weights, states = {}, {}
    for name in engine.shapes:
        if (own := engine.slice_of(name, "weight")) is not None:
            weights[name] = _copied(own)
        for part in engine.trained.get(name, ()):
            if (own := engine.slice_of(name, part)) is not None:
                states[f"{name}.{part}"] = _copied(own)
    return weights, states


def _copied(own: Slice) -> Slice:
    return replace(own, values=own.values.to("cpu", torch.float32, copy=True))


def beside(folder: Path) -> Path:
    """Where what is to be a checkpoint's folder is written."""
    return folder.with_name(folder.name + ".tmp")


def clear(aside: Path) -> None:
    """Make it anew, without what saves that were killed have left there; OSError if the disk refuses."""
    for left in aside.parent.glob("step-*.tmp"):
        left.unlink() if left.is_file() else shutil.rmtree(left, ignore_errors=True)
    aside.mkdir(parents=True)


def seal(aside: Path, folder: Path, files: dict[str, Any]) -> None:
    """Give a folder its name, with a manifest of its ``files`` (name to size and hash); OSError if the disk refuses."""
    manifest = write_bytes(aside / MANIFEST, json.dumps({"format": FORMATS[-1], "files": files}, indent=1).encode())
    if manifest.error is not None:
        raise manifest.error
    sync_folder(aside)
    if folder.exists():  # damaged, or of a run whose newer checkpoints were
        shutil.rmtree(folder)
    aside.rename(folder)
    sync_folder(folder.parent)


def agree(processes: Processes, folder: Path, error: OSError | None, value: Any = None) -> list[Any]:
    """``value`` of every process; CheckpointError in all of them if one had an error."""
    told = processes.gather((None if error is None else str(error), value))
    for rank, (failed, _) in enumerate(told):
        if failed is not None:
            raise CheckpointError(
                f"{folder}: not written, process {rank} failed: {failed}; the checkpoints before it are as they were. "
                "Make room there, or keep fewer"
            )
    return [value for _, value in told]
