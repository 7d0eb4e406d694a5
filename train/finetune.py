"""Teach a bundle new clips: all of its weights, or a small adapter beside them (LoRA)."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from vpoet import adapter, bundle, cli, config
from vpoet.data.shards import MANIFEST, Manifest, Problems
from vpoet.data.token_dataset import TokenDataset
from vpoet.errors import ConfigError, DataError
from vpoet.outputs import expect_file
from vpoet.processes import announced
from vpoet.sequence.tasks import PAINTED, TABLE
from vpoet.training.recipe import PretrainConfig
from vpoet.training.run.folder import METRICS, RESOLVED
from vpoet.training.run.tracking import read_numbers

console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def main(
    model: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle to start from; it stays as it is.")],
    clips: Annotated[
        Path, typer.Argument(help="A .csv or .jsonl with columns path and caption; or a folder of raw or token shards.")
    ],
    out: Annotated[Path, typer.Option(help="The bundle to write; with --lora also FILE.safetensors, an adapter.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value: steps=400, optimizer.lr=1e-4")] = None,
    lora: Annotated[
        int | None, typer.Option(metavar="RANK", help="Train updates of this rank, and leave all weights as they are.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Teach a bundle new clips: all of its weights, or a small adapter beside them (LoRA).

    Clips of a list are brought to the size, rate and length that the model was trained on, and encoded by its own
    tokenizer. Training is that of `vpoet pretrain`, begun with the bundle's weights; its run folder is OUT-run, and
    every key of its recipe can be changed. Ctrl-C saves; running the same command again goes on.

    Examples:

        vpoet finetune runs/demo/bundle dog.csv --out runs/dog/bundle
        vpoet finetune runs/demo/bundle dog.csv --out runs/dog.safetensors --lora 8 steps=400
        vpoet export runs/demo/bundle --adapter runs/dog.safetensors --out runs/dog/bundle
    """
    if announced()[1] > 1:
        raise ConfigError(
            "vpoet finetune is one process; for many, give a recipe of train/pretrain.py the keys begin and lora"
        )
    if out.suffix == adapter.SUFFIX and lora is None:
        raise ConfigError(f"--out {out}: an adapter is what LoRA trains; add --lora RANK, or name a folder")
    (expect_file if out.suffix == adapter.SUFFIX else bundle.check_vacant)(out)
    run = out.with_name(f"{out.stem}-run")
    cli.hold(run)
    base = bundle.load(model)
    tokens = encoded(clips, run, model, base)
    tasks = usable_tasks(tokens, base)

    about = base.config
    del base  # training loads its weights anew
    kept = ("frames", "height", "width", "fps", "guidance", "temperature")
    defaults: dict[str, Any] = {
        "run": str(run),
        "text": str(model / bundle.TEXT),
        "video": str(model / bundle.VIDEO),
        "begin": str(model),
        "model": config.to_dict(about.model),
        "data": {
            "sources": [{"path": str(tokens)}],
            # the prompt alone has to name what is new
            "tasks": {task: 4.0 if task in ("t2i", "t2v") else 1.0 for task in tasks},
            "length": about.length,
            "bidirectional": about.bidirectional,
        },
        "lora": None if lora is None else {"rank": lora, "alpha": 2.0 * lora},
        "optimizer": {"lr": 3e-4 if lora is None else 2e-3, "warmup": 10, "weight_decay": 0.0},
        "samples": {name: getattr(about, name) for name in kept},
        "batch": 1,
        "steps": 100,
        "save_every": 50,
    }
    recipe = run / "recipe.yaml"
    config.save(config.from_dict(defaults, PretrainConfig, "the defaults"), recipe)
    check_same(run / RESOLVED, config.load(recipe, PretrainConfig, overrides or []))
    try:
        cli.program("pretrain")(recipe, overrides, resume=True)
    except SystemExit:
        console.print("the same command goes on")
        raise
    cli.program("export")(run, out)
    curve = [row["train/loss"] for row in read_numbers(run / METRICS)]
    cli.finish({"out": out, "run": run, "steps": len(curve), "first_loss": curve[0], "loss": curve[-1]}, as_json)


def encoded(clips: Path, run: Path, model: Path, base: bundle.Bundle) -> Path:
    """The folder of token shards: ``clips``, or one below ``run``, made of them with the bundle's tokenizer."""
    about = base.config
    raw, tokens = clips, run / "tokens"
    if not (clips / MANIFEST).is_file():
        raw = run / "raw"
        cli.program("ingest")(
            [str(clips)], raw, frames=about.frames, fps=about.fps, height=about.height, width=about.width
        )
    elif Manifest.load(clips).kind == "tokens":
        return clips
    keyframes = any(TABLE[task].keyframes for task in about.tasks)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    paintings = int(any(task in PAINTED for task in about.tasks))
    cli.program("encode")(raw, model / bundle.VIDEO, tokens, keyframes=keyframes, paintings=paintings, device=device)
    return tokens


def usable_tasks(tokens: Path, base: bundle.Bundle) -> list[str]:
    """The bundle's tasks that these clips can train; DataError if they are not what it was trained on."""
    problems = Problems()
    dataset = TokenDataset(tokens, vocabulary=base.transformer.vocabulary, problems=problems)
    samples = [sample for index in range(len(dataset)) for sample in dataset.shard(index)]
    if not samples:
        raise DataError(f"{tokens}: not one clip is usable: {problems}")
    about = base.config
    cells = base.video.grid(about.frames, about.height, about.width)
    sizes = Counter(sample.codes.shape for sample in samples)
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
    }
    tasks = [task for task in about.tasks if not any(task in lost for lost in lacking.values())]
    console.print(f"{len(samples)} clips, {silent} without a caption; tasks: {', '.join(tasks)}")
    if problems.total:
        console.print(f"left out: {problems}")
    for what, forgotten in lacking.items():
        if forgotten:
            console.print(f"not trained, as the clips have no {what}: {', '.join(forgotten)}")
    return tasks


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


if __name__ == "__main__":
    cli.run(main)
