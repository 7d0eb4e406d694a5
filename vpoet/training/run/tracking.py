"""Curves of a run: ``metrics.jsonl`` in the run folder, and Weights & Biases. Neither ever stops the training.

``metrics.jsonl`` has one object a line: ``step``, ``time`` (Unix seconds) and the metrics; a value that is not finite
is null, as JSON has no nan. ``starts.jsonl`` has one line for each time the run was started or resumed: after which
step, with which code, on what. They are the record that the project itself reads; wandb gets the same numbers, a
summary of them, and the videos.

wandb is offline unless the user asked for more: ``WANDB_MODE`` decides where it is set, else a login (``WANDB_API_KEY``
or an entry in the netrc file) means online. All its files lie in ``RUN/wandb``; ``wandb sync`` uploads an offline run.
"""

import json
import math
import netrc
import os
import re
import secrets
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vpoet.errors import OutputError, VpoetWarning
from vpoet.files import write_atomic
from vpoet.training.run.folder import METRICS, STARTS, WANDB
from vpoet.training.run.provenance import versions
from vpoet.training.run.summary import Summary, table

INIT_TIMEOUT = 15.0
"""Seconds to wait for the wandb server before going on offline, unless WANDB_INIT_TIMEOUT says otherwise."""
LATEST = 2e11
"""Unix seconds of which there is a date: the year 8300."""
FINISH_TIMEOUT = 60.0
"""Seconds that the last uploads may take at the end; what is left over stays in RUN/wandb."""


@dataclass(frozen=True)
class Sampled:
    """A clip that was sampled for a prompt, and a real one to hold it against, where there is one."""

    prompt: str
    path: Path
    real: Path | None = None
    caption: str = ""
    """What the real one shows."""


class Tracker:
    """Writes the metrics of one run; a disabled one (every rank but 0) does nothing.

    ``about`` is what this start should be remembered by, beside the `versions` of the code: parameters, processes.
    ``tokens_per_step``, of the packs of a global batch, lets the summary count tokens.

    ``resume_step`` is the last step done, which the run goes on from: rows of later steps, written by a run that died
    after its last checkpoint, are dropped, so that the curve has every step once. Zero starts a new curve.
    """

    def __init__(
        self,
        run: Path,
        *,
        config: Mapping[str, Any],
        about: Mapping[str, Any] | None = None,
        tokens_per_step: int = 0,
        project: str = "vpoet",
        name: str | None = None,
        enabled: bool = True,
        resume_step: int = 0,
    ) -> None:
        self._path = Path(run) / METRICS
        self._enabled = enabled
        self._warned: set[str] = set()
        self._torn: set[str] = set()  # files that may end in half a line
        self._wandb: Any = None
        self._summary = Summary(tokens_per_step)
        self._start: dict[str, Any] = {}
        if enabled:
            self._start = {**(about or {}), **versions()}
            self._rewind(resume_step)
            self._append(STARTS, {"step": resume_step, "time": round(time.time(), 3), **self._start})
            self._start_wandb({**config, "start": self._start}, project, name or Path(run).resolve().name, resume_step)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Append one row. Values are numbers or one-element tensors."""
        if not self._enabled:
            return
        row = {key: float(value) for key, value in metrics.items()}
        finite = {key: value if math.isfinite(value) else None for key, value in row.items()}
        self._append(METRICS, {"step": step, "time": round(time.time(), 3), **finite})
        self._summary.add({"step": step, **finite})
        if self._wandb is not None:
            self._tell_wandb({**row, "step": step})
            if any(name.startswith(("heldout/", "speed/")) for name in row):
                self._summarise()

    def samples(self, shown: Sequence[Sampled], step: int) -> None:
        """Show what was sampled: a clip for each prompt, and a table of them beside the real ones."""
        for index, sampled in enumerate(shown):
            self.video(f"samples/{index}", sampled.path, sampled.prompt, step)
        rows = [[step, each.prompt, each.path, each.real, each.caption] for each in shown]
        if rows:
            self._show_table(
                "samples/beside_real", ["step", "prompt", "sampled", "real", "the real one shows"], rows, step
            )

    def video(self, name: str, path: str | Path, caption: str, step: int) -> None:
        """Show a .mp4, .gif or .webm file in wandb; the file itself stays where it is."""
        self._show("Video", name, path, caption, step)

    def image(self, name: str, path: str | Path, caption: str, step: int) -> None:
        """Show a .png or .jpg file in wandb; the file itself stays where it is."""
        self._show("Image", name, path, caption, step)

    def _show(self, kind: str, name: str, path: str | Path, caption: str, step: int) -> None:
        if self._wandb is None:
            return
        try:
            import wandb

            media = getattr(wandb, kind)(str(path), caption=caption)
        except Exception as error:
            self._warn(kind, f"wandb does not take {path}: {error}")
        else:
            self._tell_wandb({name: media, "step": step})

    def close(self) -> None:
        """Finish the wandb run, with its summary as a table too; waits for uploads, but not for ever."""
        if self._wandb is not None:
            self._summarise()
            facts = self._summary.facts()
            self._show_table("summary", ["what", "how much"], table(facts, self._start), int(facts["total/steps"]))
        if self._wandb is not None:
            try:
                self._wandb.finish()
            except Exception as error:
                self._warn("wandb", f"wandb did not finish: {error}")
            self._wandb = None

    def _rewind(self, resume_step: int) -> None:
        """Keep the rows up to ``resume_step``; half a line at the end (a killed run) goes too."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if resume_step == 0:
                self._path.unlink(missing_ok=True)
                self._path.with_name(STARTS).unlink(missing_ok=True)
            elif self._path.exists():
                kept = [row for row in read_numbers(self._path) if row["step"] <= resume_step]
                for row in kept:
                    self._summary.add(row)
                write_atomic(self._path, "".join(json.dumps(row) + "\n" for row in kept))
        except (OSError, OutputError) as error:
            self._warn("metrics", f"metrics not rewound: {error}; training goes on")

    def _append(self, name: str, row: dict[str, Any]) -> None:
        path = self._path.with_name(name)
        line = json.dumps(row, allow_nan=False)
        try:
            # Opened anew each time: after a full disk or a lost mount the curve goes on as soon as writing works again.
            with path.open("a") as file:
                file.write(f"\n{line}\n" if name in self._torn else f"{line}\n")
            self._torn.discard(name)
        except OSError as error:
            self._torn.add(name)
            self._warn(name, f"{path}: not written: {error.strerror}; training goes on")

    def _start_wandb(self, config: dict[str, Any], project: str, name: str, resume_step: int) -> None:
        try:
            import wandb  # here, as it takes a second that the other ranks need not spend

            mode: Any = os.environ.get("WANDB_MODE") or ("online" if _logged_in() else "offline")
            settings = wandb.Settings(
                console="off",
                quiet=True,
                init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT", INIT_TIMEOUT)),
                finish_timeout=FINISH_TIMEOUT,
            )
            options: dict[str, Any] = {
                "dir": self._path.parent,
                "config": config,
                "project": project,
                "name": name,
                "id": self._run_id(resume_step),
                "settings": settings,
            }
            try:
                self._wandb = wandb.init(mode=mode, resume="allow" if mode == "online" else None, **options)
            except Exception as error:
                if mode != "online":
                    raise
                self._warn("wandb", f"wandb does not answer ({error}); this run is kept offline")
                wandb.teardown()  # the attempt still holds the run's id
                self._wandb = wandb.init(mode="offline", **options)
            # Our own step axis: wandb's may not go back, as a resumed run does.
            self._wandb.define_metric("*", step_metric="step")
        except Exception as error:
            self._drop_wandb(error)

    def _run_id(self, resume_step: int) -> str:
        """The id under which a resumed run goes on in wandb; a new curve gets a new one."""
        path = self._path.parent / WANDB / "id"
        kept = path.read_text(errors="replace").strip() if resume_step and path.exists() else ""
        if re.fullmatch("[0-9a-f]{8}", kept):  # wandb makes a name of a folder of it
            return kept
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, fresh := secrets.token_hex(4))
        return fresh

    def _tell_wandb(self, row: dict[str, Any]) -> None:
        try:
            self._wandb.log(row)
        except Exception as error:
            self._drop_wandb(error)

    def _summarise(self) -> None:
        """Bring the summary up to now, so that a run that is killed has one, too."""
        try:
            self._wandb.summary.update({**self._summary.facts(), **self._start})
        except Exception as error:
            self._drop_wandb(error)

    def _show_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """A table in wandb; a cell that is a path is shown as the video it leads to."""
        if self._wandb is None:
            return
        # wandb passes what a table shows through this folder. By itself that lies in the home of this machine's user,
        # from where no other machine could upload an offline run.
        lent = "WANDB_DATA_DIR" not in os.environ
        if lent:
            os.environ["WANDB_DATA_DIR"] = str((self._path.parent / WANDB).resolve())
        try:
            import wandb

            cells = [[wandb.Video(str(cell)) if isinstance(cell, Path) else cell for cell in row] for row in rows]
            self._wandb.log({name: wandb.Table(columns=list(columns), data=cells), "step": step})
        except Exception as error:
            self._warn(name, f"wandb does not take the table {name} of step {step}: {error}")
        finally:
            if lent:
                del os.environ["WANDB_DATA_DIR"]

    def _drop_wandb(self, error: Exception) -> None:
        self._wandb = None
        self._warn("wandb lost", f"wandb failed and is left out from here: {error}; {self._path} has the metrics")

    def _warn(self, topic: str, message: str) -> None:
        if topic not in self._warned:
            self._warned.add(topic)
            warnings.warn(message, VpoetWarning, stacklevel=3)


def read_numbers(path: str | Path) -> list[dict[str, Any]]:
    """`read_metrics` of a ``metrics.jsonl``, without what is neither a number nor null."""
    rows = read_metrics(path)
    return [{name: value for name, value in row.items() if value is None or _is_number(value)} for row in rows]


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a ``metrics.jsonl`` or ``starts.jsonl``; lines that a dying disk or process left torn are skipped."""
    rows = []
    for line in Path(path).read_text(errors="replace").splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int) and 0 <= row["step"] < 2**53:
            if not (_is_number(row.get("time")) and 0 <= row["time"] < LATEST):
                row.pop("time", None)
            rows.append(row)
    return rows


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _logged_in() -> bool:
    """Whether the user gave wandb a key; looks where wandb itself would."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).netloc
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
