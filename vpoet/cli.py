"""The door: how every program is started, how it fails, and the ``vpoet`` command that dispatches to them.

A program ends with ``if __name__ == "__main__": cli.run(main)``, where ``main`` is a typer function. ``vpoet sample
...`` runs the same ``main`` as ``python sample/generate.py ...``.
"""

import ast
import contextlib
import difflib
import functools
import inspect
import io
import itertools
import json
import math
import os
import re
import runpy
import sys
import typing
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TextIO, cast

import typer

import vpoet
from vpoet.errors import DataError, VpoetError, VpoetWarning, half_compiled
from vpoet.files import LOCK, locked, programs_folder

PROGRAMS = {
    "ingest": "train/ingest.py",
    "measure": "train/measure.py",
    "select": "train/select_clips.py",
    "train-text": "tokenizers/train_text.py",
    "train-video": "tokenizers/train_video.py",
    "import-tokenizer": "tokenizers/import_tokenizer.py",
    "export-tokenizer": "tokenizers/export_tokenizer.py",
    "evaluate-tokenizer": "tokenizers/evaluate_tokenizer.py",
    "compare-quantisers": "tokenizers/compare_quantisers.py",
    "encode": "tokenizers/encode_shards.py",
    "pretrain": "train/pretrain.py",
    "finetune": "train/finetune.py",
    "export": "train/export.py",
    "export-hf": "train/export_hf.py",
    "push": "train/push.py",
    "pull": "train/pull.py",
    "sample": "sample/generate.py",
    "complete": "sample/complete.py",
    "play": "sample/play.py",
    "serve": "sample/serve.py",
    "score": "sample/score.py",
    "plan": "sample/plan.py",
    "actions": "sample/actions.py",
    "reach": "sample/reach.py",
    "rewards": "sample/rewards.py",
    "evaluate": "sample/evaluate.py",
    "compare": "sample/compare.py",
    "ladder": "sample/ladder.py",
    "drift": "sample/drift.py",
    "evaluate-play": "sample/evaluate_play.py",
    "evaluate-controls": "sample/evaluate_controls.py",
    "evaluate-painting": "sample/evaluate_painting.py",
    "gallery": "sample/gallery.py",
    "reconstruct": "sample/reconstruct.py",
    "chain": "train/chain.py",
    "report": "train/report.py",
    "inspect": "train/describe.py",
}
"""Command -> program, in the order in which the chain uses them."""
Workers = Annotated[
    int | None,
    typer.Option(help="Processes; the result is the same for any number. [default: 1]", min=1, max=1024),
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Workers on a Ray cluster, one a processor, or a GPU with --device cuda: auto, HOST:PORT, or local, which "
        'starts one here (pip install "vpoet[ray]").',
    ),
]
"""What every command has that shares its work out (`vpoet.data.ray_workers.workers_of`)."""
_held = contextlib.ExitStack()


def run(main: Callable[..., None], name: str | None = None, arguments: Sequence[str] | None = None) -> None:
    """Run a program's ``main`` as a command line and exit.

    The docstring of ``main`` is its help page; indented paragraphs of it (examples) keep their line breaks. A
    VpoetError is the user's to mend: its message alone, and exit status 2; so are a disk or memory that is full, and
    whatever else the machine refuses. Ctrl-C exits with 130; any other exception is our fault and shows its traceback.
    """

    @functools.wraps(main)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            for path in (path for value in kwargs.values() for path in (value if isinstance(value, list) else [value])):
                _refuse_special(path)
            main(*args, **kwargs)
        except VpoetError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        except KeyboardInterrupt:
            _interrupted()
        except BrokenPipeError:  # the reader of our output has left (`| head`): nothing more to say, not even at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None
        except (OSError, MemoryError, RuntimeError, ImportError) as error:
            if not (refusal := _refusal(error)):
                raise
            print(f"error: {refusal}", file=sys.stderr)
            raise SystemExit(2) from None
        finally:
            _held.close()

    words = list(sys.argv[1:] if arguments is None else arguments)
    _open_streams()
    if not _is_somewhere():
        print("error: the folder that this runs in is gone; change to one that is there", file=sys.stderr)
        raise SystemExit(2)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error: file names need not be UTF-8
    for option in _path_options(main):
        if f"{option}=" in words or (option, "") in itertools.pairwise(words):
            print(f"error: {option}: the path is empty", file=sys.stderr)
            raise SystemExit(2)
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=_help_page(main))(guarded)
    with warnings.catch_warnings(), contextlib.redirect_stderr(cast(TextIO, _Unfailing(sys.stderr))):
        warnings.showwarning = functools.partial(_show_warning, warnings.showwarning)
        app(args=words, prog_name=name or Path(sys.argv[0]).name)


def hold(out: str | Path, *, replaced: bool = False) -> None:
    """Make the folder that a program writes to, and keep other processes out of it until the program ends.

    ``replaced``: a file or folder that is put in place whole, so that what is held lies beside it. OutputError if
    another process is writing there; `vpoet.files.locked` says more. Where nothing came to be written, as a command was
    refused, the folders that were made for it go again.
    """
    out = Path(out)
    folder = out.parent if replaced else out
    for made in (each for each in (*reversed(folder.parents), folder) if not each.exists()):
        _held.callback(_remove_if_empty, made)
    _held.enter_context(locked(folder, f".{out.name}{LOCK}") if replaced else locked(folder))


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def finish(result: Mapping[str, object], as_json: bool) -> None:
    """With ``--json``: print the result as one line of strict JSON (paths as text, nan and infinities as null)."""
    if as_json:
        print(json.dumps(_plain(result), allow_nan=False), flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """The ``vpoet`` command: ``vpoet NAME ...`` runs the program NAME of `PROGRAMS`."""
    name, *rest = [*(sys.argv[1:] if arguments is None else arguments)] or ["--help"]
    if name in ("-h", "--help", "help"):
        print(_overview())
    elif name == "--version":
        print(f"vpoet {vpoet.__version__}")
    elif name in PROGRAMS:
        try:
            found = program(name)
        except KeyboardInterrupt:  # while torch is imported, for seconds
            _interrupted()
        run(found, name=f"vpoet {name}", arguments=rest)
    else:
        near = difflib.get_close_matches(name, PROGRAMS, n=1, cutoff=0.0)[0]
        print(f"error: no command {name!r}; did you mean {near!r}? `vpoet --help` lists them all", file=sys.stderr)
        raise SystemExit(2)


def program(name: str) -> Callable[..., None]:
    """The ``main`` of a command's program: what a command that is a chain of others calls, with Python's arguments."""
    # Under another name than __main__, so that the program's own last line does not run it without our name.
    found = runpy.run_path(str(programs_folder() / PROGRAMS[name]), run_name=f"vpoet.programs.{name}")
    return cast(Callable[..., None], found["main"])


def _interrupted() -> NoReturn:
    print("interrupted", file=sys.stderr)
    raise SystemExit(130) from None


def _open_streams() -> None:
    """Standard streams that were closed (``2>&-``) lead nowhere. Else the next file that is opened would get their
    number, and hold what libraries print."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            with contextlib.suppress(OSError):
                os.fstat(number)
                continue  # taken by now
            handle = os.open(os.devnull, os.O_RDWR)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 (until the process ends)


def _is_somewhere() -> bool:
    try:
        return Path.cwd().is_dir()
    except OSError:
        return False


def _path_options(main: Callable[..., None]) -> list[str]:
    """The options of a program that take paths."""
    hints = {name: str(hint) for name, hint in typing.get_type_hints(main).items()}
    return [f"--{name.replace('_', '-')}" for name, hint in hints.items() if "Path" in hint]


def _refuse_special(path: object) -> None:
    """DataError for pipes and devices: they can hang or never end, and a result must not replace one."""
    special = False
    if isinstance(path, Path):
        with contextlib.suppress(OSError, ValueError):  # a name that cannot be: whoever opens it says more
            special = path.exists() and not path.is_file() and not path.is_dir()
    if special:
        raise DataError(f"{path}: a pipe or device; give a file or folder")


def _refusal(error: Exception) -> str:
    """What the machine refused, for people; nothing if it is another error."""
    if half := half_compiled(error):
        return half
    words = " ".join(str(error).split())
    no_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # of torch, not imported
    if no_memory or "can't allocate memory" in words:
        return f"out of memory: {words or 'no more to be had'}; ask for less at once: smaller, fewer or shorter clips"
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return f"{where}{error.strerror or words}"
    return ""


class _Unfailing:
    """A stream whose words are lost, and nothing more, where they cannot be written: a full disk under the log of a
    run, or a terminal that has gone, is no reason to end it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            # of names that are no Unicode, the bytes are shown
            self._stream.write(text.encode("utf-8", "backslashreplace").decode())
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _overview() -> str:
    """The help page of ``vpoet``; each line is the first of a program's docstring, read without running the program."""
    lines = ["Usage: vpoet COMMAND [ARGUMENTS]", "", f"{(vpoet.__doc__ or '').splitlines()[0]}", "", "Commands:"]
    for name, path in PROGRAMS.items():
        docstring = ast.get_docstring(ast.parse((programs_folder() / path).read_text(encoding="utf-8"))) or ""
        lines.append(f"  {name:20}{docstring.splitlines()[0] if docstring else ''}")
    return "\n".join([*lines, "", "`vpoet COMMAND --help` explains one. `vpoet --version` prints the version."])


def _help_page(main: Callable[..., None]) -> str:
    """The docstring of ``main``, with click's mark (backspace) before each indented paragraph: don't refill it."""
    paragraphs = re.split(r"\n\s*\n", inspect.getdoc(main) or "")
    return "\n\n".join(f"\b\n{text}" if text.startswith("  ") else text for text in paragraphs)


def _show_warning(show: Callable[..., None], message: Warning | str, category: type[Warning], *args: Any) -> None:
    if issubclass(category, VpoetWarning):
        print(f"warning: {message}", file=sys.stderr)
    else:
        show(message, category, *args)


def _plain(value: object) -> object:
    """``value`` in JSON's own types; numpy's scalars and arrays by their ``tolist``."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
