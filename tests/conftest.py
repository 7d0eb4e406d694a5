"""What every test relies on: no network, no colours, the same random numbers on every machine."""

import os

# Before torch and matplotlib are imported anywhere.
os.environ.update(WANDB_MODE="offline", WANDB_SILENT="true", MPLBACKEND="agg", TERM="dumb", NO_COLOR="1", COLUMNS="100")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")

import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from vpoet import cli

hypothesis.settings.register_profile("vpoet", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("vpoet")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run this Python on arguments, as a user would: ``python("train/pretrain.py", "--help", cwd=...)``."""

    def run(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
        # Its own ninja before the system's: DeepSpeed compiles with it.
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, **options)

    return run


@pytest.fixture
def program(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a program in this process: exit status, stdout, stderr."""

    def run(path: str, *arguments: object) -> tuple[int, str, str]:
        main = runpy.run_path(str(ROOT / path), run_name="program")["main"]
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            cli.run(main, arguments=[str(argument) for argument in arguments])
            status: Any = 0
        except SystemExit as stop:
            status = stop.code
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        out, err = capsys.readouterr()
        return status or 0, out, err

    return run
