"""Which commit a run was made with: that of the checkout, never of somebody's repository around an installed copy."""

import subprocess
from pathlib import Path

import torch

import vpoet
from vpoet.training.run.provenance import versions


def git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_the_checkouts_and_marks_changed_files(tmp_path: Path) -> None:
    package = tmp_path / "vpoet"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert "commit" not in versions(package), "no repository"
    git(tmp_path, "init", "--quiet")
    (tmp_path / ".gitignore").write_text("vpoet/")
    git(tmp_path, "add", ".gitignore")
    git(tmp_path, "commit", "--quiet", "--message", "theirs")
    assert "commit" not in versions(package), "installed inside somebody's repository"
    git(tmp_path, "add", "--force", "vpoet/__init__.py")
    git(tmp_path, "commit", "--quiet", "--message", "ours")
    head = git(tmp_path, "rev-parse", "--short=12", "HEAD")
    (tmp_path / "note.txt").write_text("not followed")
    assert versions(package)["commit"] == head
    (package / "__init__.py").write_text("changed = True")
    assert versions(package)["commit"] == head + "+"


def test_versions_are_those_of_what_runs() -> None:
    found = versions()
    assert (found["vpoet"], found["torch"]) == (vpoet.__version__, torch.__version__)
    assert found["device"]
