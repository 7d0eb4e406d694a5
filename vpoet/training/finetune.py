"""Training that begins with a bundle: what of it new clips can train, and the recipe that suits."""

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from vpoet import config
from vpoet.bundle import TEXT, VIDEO, Bundle, BundleConfig
from vpoet.data.folder import read_samples
from vpoet.data.measures import measures_of
from vpoet.data.shards import Problems
from vpoet.data.token_dataset import TokenDataset
from vpoet.errors import ConfigError, DataError
from vpoet.sequence.tasks import PAINTED, TABLE
from vpoet.training.recipe import PretrainConfig

FIRST = 64
"""Clips that are asked for their measures."""
CHANCE = 0.6
"""Of a control to be given, where there are several to learn."""


def usable_tasks(tokens: Path, base: Bundle) -> tuple[list[str], list[str]]:
    """The bundle's tasks that these token shards can train, and what there is to tell of the clips, line by line.

    DataError: they are not what the bundle was trained on.
    """
    problems = Problems()
    dataset = TokenDataset(tokens, vocabulary=base.transformer.vocabulary, problems=problems)
    samples = [sample for index in range(len(dataset)) for sample in dataset.shard(index)]
    if not samples:
        raise DataError(f"{tokens}: not one clip is usable: {problems}")
    about = base.config
    cells = base.video.grid(about.frames, about.height, about.width)
    sizes = Counter(sample.codes.shape for sample in samples if sample.segments is None)
    if other := [size for size in sizes if size[0] > cells[0] or size[1:] != cells[1:]]:
        listed = ", ".join(f"{sizes[size]} of {'x'.join(map(str, size))}" for size in other)
        raise DataError(
            f"{tokens}: clips of a size that the model was not trained on: {listed} cells, and it knows "
            f"{'x'.join(map(str, cells))}; `vpoet ingest --frames {about.frames} --height {about.height} "
            f"--width {about.width} --fps {about.fps}` makes clips that it knows, and so does giving the list itself"
        )
    silent = sum(not sample.captions for sample in samples)
    if silent == len(samples):
        raise DataError(
            f"{tokens}: no clip has a caption, so no prompt could ask for what they show; add a column caption"
        )
    painted = {painting.task for sample in samples for painting in sample.paintings}
    lacking = {
        "keyframes (`vpoet encode --keyframes`)": [
            task for task in about.tasks if TABLE[task].keyframes and samples[0].keyframes is None
        ],
        "paintings (`vpoet encode --paintings 1`)": [
            task for task in about.tasks if task in PAINTED and task not in painted
        ],
    } | {
        need: [
            task
            for task in about.tasks
            if TABLE[task].needs == need and not any(getattr(sample, need) is not None for sample in samples)
        ]
        for need in ("actions", "timeline", "segments", "coarse")
    }
    tasks = [task for task in about.tasks if not any(task in lost for lost in lacking.values())]
    told = [f"{len(samples)} clips, {silent} without a caption; tasks: {', '.join(tasks)}"]
    if problems.total:
        told.append(f"left out: {problems}")
    told += [f"not trained, as the clips have no {what}: {', '.join(lost)}" for what, lost in lacking.items() if lost]
    return tasks, told


def measured(tokens: Path, about: BundleConfig) -> dict[str, Any]:
    """The bundle's conditions, as a recipe has them, of which one of the first clips has the measure."""
    there = {name for sample in islice(read_samples(tokens), FIRST) for name in measures_of(sample.json)}
    return {
        name: {"measure": learnt.measure, "edges": list(learnt.edges)}
        for name, learnt in about.conditions.items()
        if learnt.measure in there
    }


def check_controls(tokens: Path, base: Bundle, kinds: Sequence[str]) -> None:
    """DataError: no clip of these token shards has a control that is to be learned."""
    dataset = TokenDataset(tokens, vocabulary=base.transformer.vocabulary)
    there = {kind for index in range(len(dataset)) for sample in dataset.shard(index) for kind in sample.controls}
    if lacking := [kind for kind in kinds if kind not in there]:
        raise DataError(
            f"{tokens}: no clip has controls of kind {', '.join(lacking)}; `vpoet ingest --controls "
            f"{','.join(kinds)}` keeps them beside the clips, and so does giving the list itself"
        )


def defaults(
    model: Path,
    about: BundleConfig,
    tokens: Path,
    tasks: list[str],
    run: Path,
    rank: int | None,
    controls: Sequence[str] = (),
) -> PretrainConfig:
    """The recipe that a user's overrides change. ``rank``: of LoRA's update; None: all weights are trained.
    ``controls``: kinds of controls that are learned, beside those that the bundle reads; without LoRA what reads them
    is trained alone, so that the bundle unlearns nothing."""
    alone = bool(controls) and rank is None
    kept = ("frames", "height", "width", "fps", "guidance", "temperature")
    values: dict[str, Any] = {
        "run": str(run),
        "text": str(model / TEXT),
        "video": str(model / VIDEO),
        "begin": str(model),
        "model": config.to_dict(about.model) | {"controls": list(dict.fromkeys([*about.model.controls, *controls]))},
        "actions": None if about.actions is None else config.to_dict(about.actions),
        "data": {
            "sources": [{"path": str(tokens)}],
            # the prompt alone has to name what is new
            "tasks": {task: 4.0 if task in ("t2i", "t2v") else 1.0 for task in tasks},
            "conditions": measured(tokens, about),
            "length": about.length,
            "bidirectional": about.bidirectional,
            "window": about.window,
            "controls": dict.fromkeys(controls, CHANCE),
        },
        "lora": None if rank is None else {"rank": rank, "alpha": 2.0 * rank},
        "train": "controls" if alone else "all",
        "optimizer": {"lr": 6e-4 if alone else 3e-4 if rank is None else 2e-3, "warmup": 10, "weight_decay": 0.0},
        "samples": {name: getattr(about, name) for name in kept},
        "batch": 1,
        "steps": 100,
        "save_every": 50,
    }
    return config.from_dict(values, PretrainConfig, "the defaults")


def check_same(path: Path, wanted: PretrainConfig) -> None:
    """ConfigError if the run has begun with another recipe."""
    if not path.is_file():
        return
    begun = config.load(path, PretrainConfig)
    if different := config.differences(config.to_dict(begun), config.to_dict(wanted)):
        told = "; ".join(different)
        raise ConfigError(
            f"{path.parent}: holds a run with other settings ({told}); remove it, or choose another --out"
        )
