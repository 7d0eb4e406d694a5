"""Rows of an evaluation, one a line of a .jsonl as it is done, so that the same command goes on behind the last."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from vpoet.errors import ConfigError
from vpoet.files import read_json, write_atomic

Key = TypeVar("Key")


def rows_done(
    path: Path, asked: Mapping[str, Any], key: Callable[[Mapping[str, Any]], Key]
) -> dict[Key, dict[str, Any]]:
    """The rows of a .jsonl that a run before has left, by their key; lines that make no sense, as one that was cut
    short, go from the file.

    Each row tells what it was ``asked`` for. ConfigError: something else than now.
    """
    rows: dict[Key, dict[str, Any]] = {}
    for line in path.read_text("utf-8", "replace").splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
            told = {name: row[name] for name in asked}
            rows[key(row)] = row
        except (ValueError, TypeError, KeyError):
            continue
        for name, value in asked.items():
            if told[name] != value:
                raise ConfigError(f"{path}: made with {name} {told[name]}, and now it is {value}; give another --out")
    write_atomic(path, "".join(json.dumps(row) + "\n" for row in rows.values()))
    return rows


def episode_done(path: Path, setting: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a run before has left of an episode in a file of its own, if it was made with this setting; None if there is
    no such file, or it makes no sense."""
    with suppress(OSError, ValueError, AttributeError):
        kept: dict[str, Any] = read_json(path)
        if kept.get("setting") == setting:
            return kept
    return None
