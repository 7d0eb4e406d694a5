"""Which code runs, and on what: kept with every start of a run, so that its curve can be explained later."""

import importlib.metadata
import platform
import re
import subprocess
from pathlib import Path

import torch

import vpoet

PACKAGE = Path(vpoet.__file__).parent


def versions(package: Path = PACKAGE) -> dict[str, str]:
    """vpoet's version and commit, those of what computes, and the device, by name; what cannot be told is left out.

    The commit ends in ``+`` where files that git follows differ from it.
    """
    found = {
        "vpoet": vpoet.__version__,
        "commit": _commit(package),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "deepspeed": _installed("deepspeed"),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else _processor(),
    }
    return {name: value for name, value in found.items() if value}


def _commit(package: Path) -> str:
    """Of the checkout that follows this package's files; an installed copy inside somebody's repository has none."""
    if not _git(package, "ls-files", "__init__.py"):
        return ""
    changed = _git(package, "status", "--porcelain", "--untracked-files=no")
    return _git(package, "rev-parse", "--short=12", "HEAD") + ("+" if changed else "")


def _git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _processor() -> str:
    try:
        named = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        named = None
    return named[1] if named else platform.machine()
