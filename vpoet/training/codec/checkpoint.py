"""Checkpoints of a video tokenizer's training: a folder as pretraining's, found and checked in the same way.

RUN/checkpoints/step-250/
    model.safetensors          the network in training; average.safetensors, discriminator.safetensors: others
    adamw.safetensors          an optimiser's states, INDEX.NAME of its parameter INDEX; muon.safetensors: another
    random.safetensors         RANK: where the random numbers of each process are
    state.json                 recipe, step, hashes, and of each process the places in its data
    manifest.json              every other file with its size and SHA-256; written last

Runs begun before have step-250.pt, one file of torch.save; they go on from it.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from vpoet.errors import CheckpointError
from vpoet.processes import Processes
from vpoet.training.run.checkpoint import complete, read_state, read_tensors, sound
from vpoet.training.run.folder import CHECKPOINTS, checkpoint_of, step_of
from vpoet.training.run.saver import agree, beside, clear, seal
from vpoet.training.run.tensor_file import write_bytes

KEPT = 2
"""Checkpoints of a run that stay."""

Networks = dict[str, nn.Module]
Optimizers = dict[str, torch.optim.Optimizer]
Tensors = dict[str, dict[str, Tensor]]
"""Tensors by name, by the stem of the file that holds them."""


def tensors_of(networks: Networks, optimizers: Optimizers) -> Tensors:
    """All that an exact resume needs of them: the settings of the optimisers follow from the recipe."""
    held: Tensors = {name: network.state_dict() for name, network in networks.items()}
    return held | {name: _flat(optimizer.state_dict()) for name, optimizer in optimizers.items()}


def load_tensors(networks: Networks, optimizers: Optimizers, held: Tensors) -> None:
    """The inverse of `tensors_of`, into others that were made alike."""
    for name, network in networks.items():
        network.load_state_dict(held[name])
    for name, optimizer in optimizers.items():
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in held[name].items():
            index, _, part = key.partition(".")
            state.setdefault(int(index), {})[part] = value
        optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


def _flat(optimizer: dict[str, Any]) -> dict[str, Tensor]:
    return {f"{index}.{part}": value for index, state in optimizer["state"].items() for part, value in state.items()}


def save(run: Path, state: dict[str, Any], held: Tensors, processes: Processes) -> None:
    """Write the checkpoint of ``state["step"]`` in process 0, whole or not at all; the newest two stay."""
    folder = checkpoint_of(run, state["step"])
    error = _write(run, folder, state, held) if processes.rank == 0 else None
    agree(processes, folder, error)


def _write(run: Path, folder: Path, state: dict[str, Any], held: Tensors) -> OSError | None:
    aside = beside(folder)
    try:
        clear(aside)
        sinks = [write_bytes(aside / "state.json", json.dumps(state, indent=1).encode())]
        for name, tensors in held.items():
            whole = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
            sinks.append(write_bytes(aside / f"{name}.safetensors", to_bytes(whole)))
        for sink in sinks:
            if sink.error is not None:
                raise sink.error
        seal(aside, folder, {sink.path.name: sink.about for sink in sinks})
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        return error
    for old in sorted([*complete(run), *pickled(run)], key=step_of)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True) if old.is_dir() else old.unlink(missing_ok=True)
    return None


def newest(run: Path, processes: Processes) -> Path | None:
    """The newest sound checkpoint, None if there never was one; every process must call."""
    if processes.gather(complete(run))[0]:
        return sound(run, processes)
    return next(reversed(pickled(run)), None)


def read(path: Path) -> tuple[dict[str, Any], Tensors]:
    """What `save` was given; CheckpointError if it is damaged."""
    if path.is_file():
        return _unpickled(path)
    held = {file.stem: read_tensors(path, file.name) for file in path.glob("*.safetensors")}
    return read_state(path), held


def pickled(run: Path) -> list[Path]:
    """The checkpoints of the earlier form, oldest first."""
    files = (run / CHECKPOINTS).glob("step-*.pt")
    return sorted((file for file in files if re.fullmatch(r"step-\d+\.pt", file.name)), key=step_of)


def _unpickled(path: Path) -> tuple[dict[str, Any], Tensors]:
    """`read` of a file of the earlier form."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        held: Tensors = {"model": saved["model"], "average": saved["average"]}
        held |= {name: _flat(state) for name, state in zip(("adamw", "muon"), saved["optimizers"], strict=True)}
        if saved["adversary"]:
            held["discriminator"] = saved["adversary"]["discriminator"]
            held["discriminator-adamw"] = _flat(saved["adversary"]["optimizer"])
        held["random"] = {str(rank): position["random"] for rank, position in enumerate(saved["positions"])}
        streams = [position["streams"] for position in saved["positions"]]
        return {"recipe": dict(saved["recipe"]), "step": int(saved["step"]), "streams": streams}, held
    except Exception as error:  # a damaged file has no error type of its own in torch.load
        raise CheckpointError(f"{path}: damaged ({error!r}); delete it to go on from the one before") from None
