"""Make a bundle, everything that sampling loads, from a training run."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vpoet import cli, config
from vpoet.errors import CheckpointError, HashMismatch
from vpoet.generate import bundle
from vpoet.nn.transformer import Transformer
from vpoet.sequence.vocabulary import Vocabulary, grouped
from vpoet.tokenizer.text import TextTokenizer
from vpoet.tokenizer.video import VideoTokenizer
from vpoet.training import checkpoint
from vpoet.training.recipe import PretrainConfig

console = Console(stderr=True, soft_wrap=True, highlight=False)


def main(
    run: Annotated[Path, typer.Argument(help="Run folder of vpoet pretrain")],
    out: Annotated[Path, typer.Option(help="Bundle folder to write")],
    step: Annotated[int | None, typer.Option(help="Checkpoint to take; default the newest whole one")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON line at the end")] = False,
) -> None:
    """Make a bundle from a checkpoint of a training run, written by any engine and number of processes.

      vpoet export runs/demo/pretrain --out runs/demo/bundle

    The bundle holds config.yaml, model.safetensors, text.model, video_tokenizer/ and card.md, and needs nothing else.
    """
    folder = checkpoint.newest(run) if step is None else run / "checkpoints" / f"step-{step}"
    if folder not in checkpoint.complete(run):
        names = ", ".join(path.name for path in checkpoint.complete(run))
        raise CheckpointError(f"{folder}: no whole checkpoint there; there are {names}")
    cfg = config.load(run / "resolved.yaml", PretrainConfig)
    text, video = TextTokenizer.load(cfg.text), VideoTokenizer.load(cfg.video)
    vocabulary = Vocabulary(text.size, grouped(video.levels, cfg.model.visual_groups), text.hash, video.hash)
    state = checkpoint.read_state(folder)
    if state["hashes"]["vocabulary"] != vocabulary.hash:
        trained, found = state["hashes"]["vocabulary"], vocabulary.hash
        raise HashMismatch(
            f"{folder}: trained with vocabulary {trained}, but {cfg.text} and {cfg.video} now make {found}; "
            "put the tokenizers back that the run was started with"
        )
    transformer = Transformer(cfg.model, vocabulary)
    weights = checkpoint.read_weights(folder)
    transformer.load_state_dict({name.removeprefix("transformer."): weight for name, weight in weights.items()})
    samples = cfg.samples
    described = bundle.BundleConfig(
        model=cfg.model, bidirectional=cfg.data.bidirectional, length=cfg.data.length, tasks=sorted(cfg.data.tasks),
        frames=samples.frames, height=samples.height, width=samples.width, fps=samples.fps,
    )  # fmt: skip
    bundle.save(out, transformer, described, text, video, card(run, folder, transformer))
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    console.print(f'{out}: {size / 1e6:.1f} MB; next: vpoet sample --model {out} --prompt "..." --out clip.mp4')
    cli.finish({"bundle": str(out), "checkpoint": str(folder), "bytes": size}, as_json)


def card(run: Path, folder: Path, transformer: Transformer) -> str:
    """The bundle's card: where it comes from."""
    recipe = (run / "resolved.yaml").read_text()
    return (
        f"# {run.name}\n\nA vpoet bundle of {transformer.parameter_count / 1e6:.2f}M parameters, "
        f"from checkpoint {folder.name}.\n\nTrained with this recipe (`vpoet pretrain`):\n\n```yaml\n{recipe}```\n"
    )


if __name__ == "__main__":
    cli.run(main)
