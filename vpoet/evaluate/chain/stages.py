"""The stages of a chain: plain commands, run one after the other, each once, whatever interrupts them.

OUT/chain.json       the plan: what was asked, and the commands with the seconds that each is planned to take
    stages.jsonl     a line for each stage that is done
    .running         locked while a command runs: its stage, and the seconds that this took until now
"""

import ctypes
import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from vpoet.errors import BackendError, ConfigError, DataError
from vpoet.files import appending, read_json, write_atomic
from vpoet.training.run.stop import Stop, leave

PLAN, DONE, RUNNING = "chain.json", "stages.jsonl", ".running"
FORMAT = 1
PRETRAIN = "pretrain"
TRAININGS = {"train-video": "video", PRETRAIN: "pretrain"}
"""The stages that train, and their run folders."""
_STEPS = "steps="
_POLL = 0.2
_NOTED = 5.0
"""Seconds of a stage after which it is noted again how many there were."""


@dataclass(frozen=True)
class Stage:
    """A command, and what it is for."""

    name: str
    what: str
    result: str
    """Where that lies."""
    command: list[str]
    """vpoet COMMAND ... or deepspeed ... PROGRAM ..."""
    seconds: float
    """That it is planned to take."""
    most: int = 0
    """Of a training: the steps after which no more is to be learnt."""
    share: float | None = None
    """Of the seconds from its beginning to the end of all, as they were planned first; None: as they are now."""


@dataclass(frozen=True)
class Plan:
    """All stages, in order."""

    asked: dict[str, Any]
    """What the user said: another plan is for another folder."""
    hours: float
    stages: list[Stage]
    threads: int
    """Of a command that is one process."""
    measured: float = 0.0
    """Seconds that planning took."""
    notes: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return self.measured + sum(stage.seconds for stage in self.stages)

    def save(self, out: Path) -> None:
        write_atomic(out / PLAN, json.dumps({"format": FORMAT, **asdict(self)}, indent=1, ensure_ascii=False))

    @classmethod
    def load(cls, out: Path, asked: Mapping[str, Any]) -> Self | None:
        """The plan of a folder, if it has one. ConfigError: it was made for something else; DataError: damaged."""
        path = out / PLAN
        try:
            values = read_json(path)
            if values.pop("format") != FORMAT:
                raise ValueError("of another version")
            found = cls(**values | {"stages": [Stage(**stage) for stage in values["stages"]]})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: damaged ({error}), so what lies beside it is not known: remove {out}") from None
        changed = [
            f"{name} {found.asked.get(name)!r}, now {value!r}"
            for name, value in asked.items()
            if found.asked.get(name) != value
        ]
        if changed:
            raise ConfigError(f"{out}: planned for {'; '.join(changed)}; choose another --out, or remove it")
        return found

    def stage(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)

    def steps(self, name: str) -> int:
        """Of a training, by the last word of its command that says so."""
        return next(int(word[len(_STEPS) :]) for word in self.stage(name).command[::-1] if word.startswith(_STEPS))

    def room(self, name: str, spent: float, share: float) -> float:
        """Seconds for a stage when it begins, once ``spent`` have passed, so that all ends in a share of the hours:
        what is left, divided as it was planned first."""
        return (share * self.hours * 3600 - spent) * self._share(self.stage(name))

    def _share(self, stage: Stage) -> float:
        rest = self.stages[self.stages.index(stage) :]
        return stage.seconds / sum(each.seconds for each in rest) if stage.share is None else stage.share

    def with_steps(self, name: str, steps: int, seconds: float, note: str) -> Self:
        """The plan with other steps of a training, which then takes so many seconds."""
        stage, before = self.stage(name), self.steps(name)
        command = [f"{_STEPS}{steps}" if word.startswith(_STEPS) else word for word in stage.command]
        what = stage.what.replace(f"{before:,} steps", f"{steps:,} steps")
        new = replace(stage, command=command, what=what, seconds=seconds, share=self._share(stage))
        stages = [new if each is stage else each for each in self.stages]
        return replace(self, stages=stages, notes=[*self.notes, note])


def done(out: Path) -> dict[str, float]:
    """Seconds that each stage took, of those that are done. DataError: the list of them is damaged."""
    path = out / DONE
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        rows = [json.loads(line) for line in lines if line.endswith("}")]  # a kill can leave half a line
        return {row["stage"]: float(row["seconds"]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error}); remove it, and each stage looks for what is left to do") from None


def note_done(out: Path, stage: Stage, seconds: float) -> None:
    row = {"stage": stage.name, "seconds": round(seconds), "result": stage.result, "command": shown(stage.command)}
    with appending(out / DONE) as lines:
        lines.write(json.dumps(row, ensure_ascii=False) + "\n")


def shown(command: Sequence[str]) -> str:
    """A command as a shell takes it."""
    return shlex.join(command)


def processes_here(cores: int) -> tuple[int, str]:
    """Processes that training can share: GPUs, or cores, as a power of two up to 8; and why it is only one."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else cores
    most = 1 << min(3, max(1, count).bit_length() - 1)
    lacking = [name for name in ("deepspeed", "ninja", "c++") if _program(name) is None]
    if most > 1 and lacking:
        return 1, f"one process trains, although {count} could: DeepSpeed's launcher needs {', '.join(lacking)}"
    return most, ""


def _program(name: str) -> str | None:
    return shutil.which(name, path=_path())


def _path() -> str:
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"


@contextmanager
def alone(out: Path, say: Callable[[str], None]) -> Iterator[int]:
    """A handle that commands inherit: while one runs that a chain which was killed has left, this waits for its end."""
    handle = os.open(out / RUNNING, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for a command to end that was left running when this was stopped")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)


def taken(handle: int) -> tuple[str, float]:
    """The stage that was interrupted, and the seconds that it took until then; of none "" and 0."""
    try:
        name, seconds = os.pread(handle, 100, 0).decode().split()
        return name, float(seconds)
    except ValueError:  # the first time, or half written
        return "", 0.0


def _note_taken(handle: int, name: str, seconds: float) -> None:
    os.pwrite(handle, f"{name} {seconds:.0f}".ljust(99).encode() + b"\n", 0)


def run(
    stage: Stage, stop: Stop, handle: int, threads: int, before: float = 0.0,
    stops: Callable[[float], bool] | None = None,
) -> tuple[float, bool]:  # fmt: skip
    """Run a stage's command to its end; the seconds it took, with those of ``before``, and whether it is done. What it
    prints goes to standard error.

    ``stops``, given the seconds until now, says when it is to stop, save and be run again. A signal that `Stop` notes
    is passed on; once the command has ended by it, so does this process. BackendError: it failed.
    """
    name, *words = stage.command
    if name == "vpoet":
        words = [sys.executable, "-P", "-c", "from vpoet import cli; cli.main()", *words]
    elif (found := _program(name)) is not None:
        words = [found, *words]
    else:
        raise BackendError(f"{stage.name}: {name} is not installed any more; install it, and run this again")
    threads = 1 if stage.command[0] != "vpoet" else threads
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ, "PATH": _path()}
    began = time.monotonic()
    # a group of its own: Ctrl-C in a terminal reaches this process alone, which passes it on once
    child = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=2, env=environment, pass_fds=(handle,), start_new_session=True,
        preexec_fn=_end_with_parent,
    )  # fmt: skip
    passed = stopped = False
    took = noted = before
    while (status := _ended(child)) is None:
        took = before + time.monotonic() - began
        if took > noted + _NOTED:
            noted = took
            _note_taken(handle, stage.name, took)
        if stop.signal and not passed:
            passed = True
            os.killpg(child.pid, stop.signal)
        elif stops is not None and not stopped and not passed and stops(took):
            stopped = True
            os.killpg(child.pid, signal.SIGTERM)
    if stop.signal:
        leave(stop.signal)
    if status and not stopped:
        raise BackendError(
            f"{stage.name}: its command, above, ended with status {status}; once what it says is mended, run the same "
            "`vpoet chain` again"
        )
    return before + time.monotonic() - began, status == 0


def _ended(child: "subprocess.Popen[bytes]") -> int | None:
    try:
        return child.wait(_POLL)
    except subprocess.TimeoutExpired:
        return None


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


_LIBC = _libc()
_PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    """In the child: Linux sends SIGTERM when its parent is gone. Elsewhere it runs to its end, and is waited for."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
