"""Files of weights, looked at from outside: which they are, and whether one is a program. Nothing is loaded for it."""

import zipfile
from pathlib import Path

SUFFIXES = (".pt", ".pth", ".tar", ".bin", ".ckpt", ".safetensors")
SCRIPT = "constants.pkl"
"""A part that TorchScript archives have, and files of ``torch.save`` have not."""


def is_script(path: Path) -> bool:
    """Whether a file is TorchScript, which is a program."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith(f"/{SCRIPT}") for name in archive.namelist())


def files_of(path: Path) -> list[Path]:
    """The files of weights that a path means: itself, or those of a folder."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
