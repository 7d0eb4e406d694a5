"""How programs start, fail and finish, and the command that dispatches to them."""

import ctypes
import errno
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import vpoet
from vpoet import cli
from vpoet.errors import DataError, VpoetWarning


def program(count: int, name: str = "fox", json: bool = False) -> None:
    """Count foxes.

    Words that are longer than the line is wide are filled, as a paragraph of text
    is everywhere.

    Example:

        count.py 3
        count.py 4
    """
    if name == "wolf":
        raise DataError("wolf.mp4: not a fox; use another")
    if name == "ctrl-c":
        raise KeyboardInterrupt
    if name == "bug":
        raise ZeroDivisionError
    if name == "full":
        raise OSError(errno.ENOSPC, "No space left on device", "fox.mp4")
    if name == "memory":
        np.empty(1 << 60, np.uint8)
    if name == "torch":
        torch.empty(1 << 50)
    if name == "warning":
        warnings.warn("fox is tired", VpoetWarning, stacklevel=2)
    cli.finish({"count": count}, json)


def start(capsys, *arguments):
    """(exit status, standard output, standard error) of the program."""
    with pytest.raises(SystemExit) as stop:
        cli.run(program, name="vpoet count", arguments=arguments)
    out, err = capsys.readouterr()
    return stop.value.code, out, err


def test_result_is_the_last_line(capsys):
    assert start(capsys, "3", "--json") == (0, '{"count": 3}\n', "")
    assert start(capsys, "3") == (0, "", "")


def test_user_errors_are_one_line_and_status_2(capsys):
    assert start(capsys, "3", "--name", "wolf") == (2, "", "error: wolf.mp4: not a fox; use another\n")
    status, _, err = start(capsys, "many")
    assert status == 2
    assert "Invalid value for 'count'" in err


def test_interruption_is_status_130_and_our_faults_show(capsys):
    assert start(capsys, "3", "--name", "ctrl-c")[0] == 130
    with pytest.raises(ZeroDivisionError):
        cli.run(program, arguments=["3", "--name", "bug"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("full", "error: fox.mp4: No space left on device\n"),
        ("memory", "error: out of memory: "),
        ("torch", "error: out of memory: "),
    ],
)
def test_what_the_machine_refuses_is_one_line_and_status_2(capsys, name, said):
    status, _, err = start(capsys, "3", "--name", name)
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith(said)


def read(file: Path, more: Path | None = None) -> None:
    """Read a file."""
    file.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["FIFO"], "fifo: a pipe or device; give a file or folder"),
        (["/dev/zero"], "/dev/zero: a pipe or device"),
        (["FIFO/x"], "fifo/x: Not a directory"),
        (["/"], "/: Is a directory"),
        (["nowhere"], "nowhere: No such file or directory"),
        (["n" * 300], "File name too long"),
        (["nowhere", "--more="], "--more: the path is empty"),
        (["nowhere", "--more", ""], "--more: the path is empty"),
    ],
)
def test_paths_that_cannot_be_are_refused(capsys, tmp_path, arguments, said):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SystemExit, match="2"):
        cli.run(read, arguments=[word.replace("FIFO", str(tmp_path / "fifo")) for word in arguments])
    assert said in capsys.readouterr().err


@pytest.mark.filterwarnings("default::vpoet.errors.VpoetWarning")
def test_warnings_are_one_line(capsys):
    assert start(capsys, "3", "--name", "warning") == (0, "", "warning: fox is tired\n")


def test_help_keeps_the_lines_of_examples(capsys):
    status, out, _ = start(capsys, "--help")
    assert status == 0
    assert "Usage: vpoet count" in out
    assert "      count.py 3\n      count.py 4\n" in out


def test_finish_writes_strict_json(capsys):
    values = {
        "path": Path("a/b"), "nan": float("nan"), "inf": np.float32("inf"), "three": np.int64(3), "yes": True,
        "array": np.arange(2), "nested": {1: [None, "ü"]},
    }  # fmt: skip
    cli.finish(values, as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "path": "a/b", "nan": None, "inf": None, "three": 3, "yes": True, "array": [0, 1], "nested": {"1": [None, "ü"]},
    }  # fmt: skip


def test_overview_lists_every_command_with_a_line_each(capsys):
    cli.main(["--help"])
    out = capsys.readouterr().out
    for name in cli.PROGRAMS:
        (line,) = [line for line in out.splitlines() if line.split()[:1] == [name]]
        assert len(line.split()) > 3
        assert len(line) <= 120
    cli.main([])
    assert capsys.readouterr().out == out


def test_version(capsys):
    cli.main(["--version"])
    assert capsys.readouterr().out == f"vpoet {vpoet.__version__}\n"


def test_the_package_is_the_command_too(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "vpoet", "--version"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"vpoet {vpoet.__version__}\n")


def test_unknown_command_names_the_nearest(capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["smaple"])
    assert "did you mean 'sample'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", cli.PROGRAMS)
def test_every_command_has_a_help_page_with_an_example(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main([name, "--help"])
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: vpoet {name}")
    examples = [line for line in out.splitlines() if line.startswith("    ") and f"{name} " in line]
    assert examples, f"the help of {name} shows no example of it"
    assert "--json" in out


def test_programs_run_by_path_from_anywhere(python, root, tmp_path):
    shown = python(root / "tokenizers" / "train_text.py", "--help", cwd=tmp_path)
    assert shown.returncode == 0
    assert shown.stdout.startswith("Usage: train_text.py")
    assert "vpoet train-text runs/" in shown.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_log_that_cannot_be_written_ends_no_program(tmp_path):
    """Words to a full disk are lost; the program, which says more than any buffer takes, goes on to its end."""
    (tmp_path / "talk.py").write_text(
        "import sys, warnings\n"
        "from rich.console import Console\n"
        "from vpoet import cli\n"
        "def main(steps: int) -> None:\n"
        "    for step in range(steps):\n"
        "        Console(stderr=True).print('x' * 5000)\n"
        "        warnings.warn(f'step {step}', stacklevel=1)\n"
        "        print('y' * 5000, file=sys.stderr)\n"
        "    print('the end')\n"
        "cli.run(main)\n"
    )
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, tmp_path / "talk.py", "20"], stdout=subprocess.PIPE, stderr=full, text=True, check=False
        )
    assert (done.returncode, done.stdout) == (0, "the end\n")


TALK = """
import os, sys
from vpoet import cli
def main(path: str) -> None:
    with open(path, "w") as file:
        print("to people", file=sys.stderr)
        os.write(2, b"a library's words")
        os.write(1, b"a library's words")
        file.write("data")
cli.run(main)
"""


@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_end_no_program(tmp_path, closed):
    """And what would have been said does not go into the next file that is opened."""
    (tmp_path / "talk.py").write_text(TALK)
    done = subprocess.run(
        f"'{sys.executable}' talk.py file {closed}", shell=True, cwd=tmp_path, check=False, capture_output=True
    )
    assert done.returncode == 0
    assert (tmp_path / "file").read_text() == "data"


def test_a_folder_that_is_gone_is_told(tmp_path):
    (tmp_path / "talk.py").write_text(TALK)
    (tmp_path / "gone").mkdir()
    done = subprocess.run(
        f"cd gone && rmdir ../gone && '{sys.executable}' '{tmp_path}/talk.py' /dev/null",
        shell=True, cwd=tmp_path, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        2,
        "error: the folder that this runs in is gone; change to one that is there\n",
    )


def test_the_overview_needs_no_utf8():
    plain = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", "from vpoet import cli; cli.main(['--help'])"]
    done = subprocess.run(command, env=plain, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("written", [b"", b"\x7fELF\x02\x01", bytes(5000)])
def test_what_a_stopped_compiler_left_is_named_with_its_cure(capsys, tmp_path, written):
    """What the loader says of it, alone and as the compiler of torch tells it."""
    (tmp_path / "step.so").write_bytes(written)

    def loads(told: bool = False) -> None:
        """Load it."""
        try:
            ctypes.CDLL(str(tmp_path / "step.so"))
        except OSError as error:
            if not told:
                raise
            raise RuntimeError(f"InductorError: OSError: {error}\n\nSet TORCHDYNAMO_VERBOSE=1") from None

    for words in ([], ["--told"]):
        with pytest.raises(SystemExit, match="2"):
            cli.run(loads, arguments=words)
        said = f"error: {tmp_path}/step.so: half of a file, left by a compiler that was stopped; remove it, and run"
        assert said in capsys.readouterr().err


def test_an_interruption_of_the_imports_is_status_130(capsys, monkeypatch):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "program", interrupted)
    with pytest.raises(SystemExit, match="130"):
        cli.main(["sample"])
    assert capsys.readouterr().err == "interrupted\n"
