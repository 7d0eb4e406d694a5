"""Checkpoints of a run: written aside, renamed when whole, and found again.

RUN/checkpoints/step-1200/
    model.safetensors       all weights, fp32: what sampling and export read
    engine/                 the engine's own files (optimiser; with DeepSpeed one shard for each process)
    random-0.safetensors    state of the random number generators, one file for each process
    state.json              step, position of every lane of the data stream, hashes, world size
    manifest.json           every file with its size; written last
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from vpoet.errors import CheckpointError, HashMismatch
from vpoet.training.engine import Engine

_NAME = re.compile(r"step-(\d+)")


def save(run: Path, engine: Engine, state: dict[str, Any], keep: int) -> Path:
    """Write the checkpoint of ``state["step"]`` and drop all but the newest ``keep``; every process must call.

    A kill at any moment leaves the checkpoints before this one as they were: the folder gets its name only when
    whole.
    """
    folder = run / "checkpoints" / f"step-{state['step']}"
    aside = folder.with_name(folder.name + ".tmp")
    if engine.rank == 0:
        shutil.rmtree(aside, ignore_errors=True)
        (aside / "engine").mkdir(parents=True)
    engine.gather(None)
    weights = engine.weights()
    engine.save(aside / "engine")
    save_file(_random_state(), aside / f"random-{engine.rank}.safetensors")
    if engine.rank == 0:
        save_file(weights, aside / "model.safetensors")
        state = state | {"world": engine.world, "engine": type(engine).__name__}
        (aside / "state.json").write_text(json.dumps(state, indent=1))
    engine.gather(None)
    if engine.rank == 0:
        files = sorted(path for path in aside.rglob("*") if path.is_file())
        for path in files:
            _flush(path)
        manifest = {str(path.relative_to(aside)): path.stat().st_size for path in files}
        (aside / "manifest.json").write_text(json.dumps(manifest, indent=1))
        _flush(aside / "manifest.json")
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
        _flush(folder.parent)
        for old in complete(run)[:-keep]:
            shutil.rmtree(old)
    engine.gather(None)
    return folder


def complete(run: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first: those whose every file has its size."""
    found = []
    for folder in (run / "checkpoints").glob("step-*"):
        match = _NAME.fullmatch(folder.name)
        if match and _is_whole(folder):
            found.append((int(match[1]), folder))
    return [folder for _, folder in sorted(found)]


def newest(run: Path) -> Path:
    """The newest whole checkpoint; CheckpointError if there is none."""
    if not (run / "checkpoints").is_dir():
        raise CheckpointError(f"{run}: not a run folder, it has no checkpoints/")
    folders = complete(run)
    if not folders:
        raise CheckpointError(f"{run}/checkpoints: no whole checkpoint there")
    return folders[-1]


def read_state(folder: Path) -> dict[str, Any]:
    """The state that `save` was given, and the world size and engine that saved it."""
    try:
        state: dict[str, Any] = json.loads((folder / "state.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{folder}/state.json: cannot be read: {error}") from None
    return state


def load(folder: Path, engine: Engine, hashes: dict[str, str]) -> dict[str, Any]:
    """Bring engine and random number generators to a checkpoint, and return its state; every process must call.

    HashMismatch if the run was started with other tokenizers or another vocabulary, CheckpointError if another number
    of processes or another engine wrote it: both sides are named.
    """
    state = read_state(folder)
    for name, own in hashes.items():
        if state["hashes"].get(name) != own:
            raise HashMismatch(f"{folder}: its {name} has hash {state['hashes'].get(name)}, the configured one {own}")
    writer, reader = (state["engine"], state["world"]), (type(engine).__name__, engine.world)
    if writer != reader:
        raise CheckpointError(
            f"{folder}: written by {writer[0]} with {writer[1]} processes, this is {reader[0]} with {reader[1]}; "
            "resume with as many processes as the run was started with"
        )
    engine.load(folder / "engine")
    try:
        random = load_file(folder / f"random-{engine.rank}.safetensors")
    except OSError as error:
        raise CheckpointError(f"{folder}/random-{engine.rank}.safetensors: {error}") from None
    torch.set_rng_state(random["cpu"])
    if "cuda" in random:
        torch.cuda.set_rng_state(random["cuda"])
    return state


def _random_state() -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _is_whole(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        return all((folder / name).stat().st_size == size for name, size in manifest.items())
    except (OSError, json.JSONDecodeError):
        return False


def _flush(path: Path) -> None:
    """Bring a file or a folder's entries to the disk: a rename must not overtake the data."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
