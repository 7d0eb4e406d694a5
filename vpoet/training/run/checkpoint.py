"""Checkpoints of a run: found again, checked when read, and what they hold. `vpoet.training.run.saver` writes them.

RUN/checkpoints/step-1200/
    model-0.safetensors       process 0's slices of the weights, fp32: what sampling and export read; and of others
    optimizer-0.safetensors   process 0's slices of the optimiser's states (AdamW two a weight, Muon one), fp32
    state.json                step, place in the data, hashes, and who wrote it
    manifest.json             every other file with its size and SHA-256; written last

Slices are runs of elements of a tensor (`tensor_file` has the layout), and all of them together are every tensor
once, however the engine shared it: any engine, ZeRO stage and number of processes continues from what another wrote,
bit for bit where they are the same. Each process reads of the files only what its own slices have in common with
theirs. Earlier checkpoints have model.safetensors, and whole tensors in all files: slices like any others. Nothing is
unpickled. Random numbers need no state, as they are drawn from (seed, step, pack). All processes write into one folder,
so machines must share the file system that it lies on.
"""

import re
import shutil
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from vpoet.errors import CheckpointError, HashMismatch, VpoetWarning
from vpoet.files import fingerprint, inside, read_json
from vpoet.processes import Processes
from vpoet.training.engine.base import Engine, Part
from vpoet.training.run.folder import CHECKPOINTS, step_of
from vpoet.training.run.tensor_file import Place, is_covered, places, read_into

FORMATS = (2, 3)
"""That are read; the last is written. In 2 tensors are whole."""
WEIGHTS, STATE, MANIFEST = "model*.safetensors", "state.json", "manifest.json"
_NAME = re.compile(r"step-(\d+)")


def complete(run: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first: those whose every file has its size. `damage` looks further."""
    folders = [folder for folder in (run / CHECKPOINTS).glob("step-*") if _NAME.fullmatch(folder.name)]
    return sorted((folder for folder in folders if _is_whole(folder)), key=step_of)


def newest(run: Path) -> Path:
    """The newest whole checkpoint; CheckpointError if there is none."""
    if not (run / CHECKPOINTS).is_dir():
        raise CheckpointError(f"{run}: not a run folder, it has no {CHECKPOINTS}/")
    folders = complete(run)
    if not folders:
        raise CheckpointError(f"{run / CHECKPOINTS}: no whole checkpoint there")
    return folders[-1]


def damage(folder: Path, share: slice = slice(None)) -> list[str]:
    """The files of a checkpoint that are not what was written, by size and SHA-256, each with what is wrong with it.

    Reads all of every file; ``share`` of them when several processes divide the work.
    """
    wrong = []
    for name, expected in sorted(_files(folder).items())[share]:
        try:
            if fingerprint(folder / name) != expected:
                wrong.append(f"{folder / name}: not the bytes that were written")
        except OSError as error:
            wrong.append(f"{folder / name}: {error.strerror}")
    return wrong


def read_state(folder: Path) -> dict[str, Any]:
    """The state that `Saver.save` was given, and the world size, engine and optimiser steps that go with it."""
    path = folder / STATE
    try:
        whole = fingerprint(path) == _files(folder).get(STATE)
        state: dict[str, Any] = read_json(path)
        if not isinstance(state["step"], int):
            raise TypeError("no state of a run")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}; take another checkpoint") from None
    if not whole:
        raise CheckpointError(f"{path}: damaged, not the bytes that were written; take another checkpoint")
    return state


def resume(run: Path, engine: Engine, hashes: dict[str, str]) -> tuple[Path, dict[str, Any]]:
    """Bring the engine to the newest `sound` checkpoint, and return it with its state; every process must call.

    HashMismatch if the run was started with other tokenizers or another vocabulary: both sides are named.
    """
    folder = sound(run, engine.processes)
    return folder, load(folder, engine, hashes)


def sound(run: Path, processes: Processes) -> Path:
    """The newest checkpoint whose every byte is as it was written; every process must call, and reads its share.

    A damaged one is passed over with a warning that names its files. CheckpointError if none is sound.
    """
    folders: list[Path] = processes.gather(complete(run))[0]
    for folder in reversed(folders):
        mine = damage(folder, slice(processes.rank, None, processes.world))
        damaged = [each for one in processes.gather(mine) for each in one]
        if not damaged:
            return folder
        if processes.rank == 0:
            kept = folder.with_name(folder.name + ".damaged")  # a name that no later save counts or takes
            shutil.rmtree(kept, ignore_errors=True)
            folder.rename(kept)
            warnings.warn(f"{folder} left out, kept as {kept.name}: {'; '.join(damaged)}", VpoetWarning, stacklevel=2)
        processes.gather(None)
    raise CheckpointError(f"{run / CHECKPOINTS}: no sound checkpoint there; start anew with another run=")


def load(folder: Path, engine: Engine, hashes: dict[str, str]) -> dict[str, Any]:
    """Bring the engine to a checkpoint, and return its state; every process must call."""
    state = read_state(folder)
    for name, own in hashes.items():
        if (theirs := state.get("hashes", {}).get(name)) != own:
            raise HashMismatch(f"{folder}: its {name} has hash {theirs}, the configured one {own}")
    wanted: dict[str, tuple[str, Part]] = {name: (name, "weight") for name in engine.shapes}
    wanted |= {f"{name}.{part}": (name, part) for name, parts in engine.trained.items() for part in parts}
    held = _held(folder)
    if different := sorted(wanted.keys() ^ held.keys()):
        raise CheckpointError(
            f"{folder}: of another model, which has {_some(held.keys() - wanted.keys())} and lacks "
            f"{_some(wanted.keys() - held.keys())} ({len(different)} differences); resume with its own recipe"
        )
    for key, (name, _) in wanted.items():
        if (shape := held[key][0].shape) != engine.shapes[name]:
            raise CheckpointError(
                f"{folder}: {key} is {list(shape)}, the recipe's model has {list(engine.shapes[name])}; "
                "resume with its own recipe"
            )
    for key, (name, part) in wanted.items():
        if (mine := engine.slice_of(name, part)) is not None:
            values = torch.empty(mine.values.numel())
            read_into(values, mine.first, held[key])
            mine.values.copy_(values)
    engine.refresh()
    engine.set_updates(state["updates"])
    engine.loss_scale.load(state.get("loss_scale"))
    return state


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """All weights, whole, fp32 on the CPU; CheckpointError if the files are not what was written."""
    for path in folder.glob(WEIGHTS):
        _check(path)
    weights = {}
    for name, slices in _held(folder, WEIGHTS).items():
        flat = torch.empty(slices[0].shape.numel())
        read_into(flat, 0, slices)
        weights[name] = flat.view(slices[0].shape)
    return weights


def read_tensors(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """The tensors of one file, as they lie in it, on the CPU; CheckpointError if it is not what was written."""
    path = folder / name
    _check(path)
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dictionary)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None


def _check(path: Path) -> None:
    """CheckpointError if a file is not what was written."""
    try:
        whole = fingerprint(path) == _files(path.parent).get(path.name)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None
    if not whole:
        raise CheckpointError(f"{path}: damaged, not the bytes that were written; take another --step")


def _held(folder: Path, files: str = "*.safetensors") -> dict[str, list[Place]]:
    """Where the slices of each tensor lie; CheckpointError if they are not the whole tensor, each element once."""
    held: dict[str, list[Place]] = {}
    for path in sorted(folder.glob(files)):
        for name, place in places(path).items():
            held.setdefault(name, []).append(place)
    if lacking := [name for name, slices in held.items() if not is_covered(slices)]:
        raise CheckpointError(f"{folder}: its files lack slices of {_some(lacking)}; take another checkpoint")
    return held


def _files(folder: Path) -> dict[str, dict[str, Any]]:
    """The manifest's files; none if there is no manifest of a known format, or a damaged one."""
    try:
        manifest = read_json(folder / MANIFEST)
        if manifest["format"] not in FORMATS:
            return {}
        files: dict[str, dict[str, Any]] = manifest["files"]
        for name, about in files.items():
            inside(folder, name)
            if about.keys() != {"bytes", "sha256"}:
                return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # damaged: the checkpoint is none
        return {}
    return files


def _is_whole(folder: Path) -> bool:
    files = _files(folder)
    try:
        return bool(files) and all((folder / name).stat().st_size == about["bytes"] for name, about in files.items())
    except OSError:
        return False


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "") or "nothing more"
