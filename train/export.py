"""Make a bundle, everything that sampling loads, from a training run; or an adapter from a LoRA run."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vpoet import adapter as adapters
from vpoet import bundle, cli, config, hub
from vpoet.data import measures
from vpoet.data.token_dataset import caption_words, played_as
from vpoet.errors import CheckpointError, ConfigError, HashMismatch
from vpoet.nn import lora
from vpoet.nn.transformer import Transformer
from vpoet.tokenizer.contract import Tokenizer
from vpoet.tokenizer.text import TextTokenizer
from vpoet.tokenizer.video import VideoTokenizer
from vpoet.training.precision import DTYPES, IN_FILES
from vpoet.training.recipe import PretrainConfig, SampleConfig
from vpoet.training.run import checkpoint
from vpoet.training.run.folder import RESOLVED, checkpoint_of

MOST_WORDS = 300
"""A model of so small a language can say what it knows."""
console = Console(stderr=True, soft_wrap=True, highlight=False)


def main(
    run: Annotated[Path, typer.Argument(help="Run folder of vpoet pretrain; with --adapter or --video a bundle")],
    out: Annotated[Path, typer.Option(help="Bundle folder to write; FILE.safetensors writes an adapter")],
    adapter: Annotated[Path | None, typer.Option(help="Adapter to add to the weights of a bundle")] = None,
    decoder: Annotated[
        Path | None,
        typer.Option("--video", help="Of a bundle: another video tokenizer of the same codes, its decoder trained on"),
    ] = None,
    step: Annotated[int | None, typer.Option(help="Checkpoint to take; default the newest whole one")] = None,
    dtype: Annotated[str, typer.Option(help="Of the weights in the file: fp32, or fp16 in half the space")] = "fp32",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON line at the end")] = False,
) -> None:
    """Make a bundle from a checkpoint of a training run, written by any engine and number of processes.

      vpoet export runs/demo/pretrain --out runs/demo/bundle

    The bundle holds config.yaml, model.safetensors, text.model, video_tokenizer/ and card.md, and needs nothing else.

    A run with LoRA becomes a bundle whose weights have the update added, or the update alone, an adapter, which can be
    added to its bundle later:

      vpoet export runs/dog-run --out runs/dog.safetensors
      vpoet export runs/demo/bundle --adapter runs/dog.safetensors --out runs/dog/bundle

    A decoder that was trained alone (train: decoder) takes the place of a bundle's; where it draws larger pictures
    (model.upscale), the bundle's size grows with it:

      vpoet export runs/platformer/bundle --video runs/platformer/upscaled/tokenizer --out runs/platformer/large
    """
    (adapters if out.suffix == adapters.SUFFIX else bundle).check_vacant(out)
    cli.hold(out, replaced=True)
    if adapter is not None or decoder is not None:
        run = hub.local(run, bundle.FILES)
        whole = bundle.load(run, adapter=adapter)
        about = (run / bundle.CARD).read_text("utf-8")
        if adapter is not None:
            about += f"\nThe adapter {adapter.name} is added to its weights.\n"
        tokenizer, described = whole.video, whole.config
        if decoder is not None:
            tokenizer, described = drawn_by(decoder, tokenizer, described)
            about += f"\nIts video tokenizer is another, {tokenizer.hash}, of the same codes.\n"
        bundle.save(out, whole.transformer, described, whole.text, tokenizer, about)
        finish(out, run, as_json)
        return
    if dtype not in IN_FILES:
        raise ConfigError(f"--dtype {dtype}: there are {' and '.join(IN_FILES)}")
    folder = checkpoint.newest(run) if step is None else checkpoint_of(run, step)
    if folder not in checkpoint.complete(run):
        names = ", ".join(path.name for path in checkpoint.complete(run))
        raise CheckpointError(f"{folder}: no whole checkpoint there; there are {names}")
    cfg = config.load(run / RESOLVED, PretrainConfig)
    text, video = TextTokenizer.load(cfg.text), VideoTokenizer.load(cfg.video)
    vocabulary = cfg.vocabulary(text, video)
    state = checkpoint.read_state(folder)
    if state["hashes"]["vocabulary"] != vocabulary.hash:
        trained, found = state["hashes"]["vocabulary"], vocabulary.hash
        raise HashMismatch(
            f"{folder}: trained with vocabulary {trained}, but {cfg.text} and {cfg.video} now make {found}; "
            "put the tokenizers back that the run was started with"
        )
    each = [caption_words(source.path, MOST_WORDS) for source in cfg.data.sources if Path(source.path).is_dir()]
    weights = {name.removeprefix("transformer."): value for name, value in checkpoint.read_weights(folder).items()}
    if out.suffix == adapters.SUFFIX:
        if cfg.lora is None:
            raise ConfigError(
                f"{run}: trained all weights, without LoRA, so there is no adapter; name a folder as --out"
            )
        if cfg.data.controls:
            raise ConfigError(f"{run}: learned controls, which an adapter has no place for; name a folder as --out")
        base = state["hashes"]["begin"]
        adapters.Adapter(lora.update(weights), cfg.lora.scale, base, bundle.join_words(*each)).save(out)
        finish(out, folder, as_json)
        return
    known = measures.learnt(cfg.data.conditions, [source.path for source in cfg.data.sources])
    drawn = sorted(task for task, weight in cfg.data.tasks.items() if weight > 0)
    if cfg.begin:
        before = config.load(hub.local(cfg.begin, bundle.FILES) / bundle.CONFIG, bundle.BundleConfig)
        each.append(before.words)
        known = measures.joined(before.conditions, known)
        drawn = before.tasks if cfg.train == "controls" else drawn  # all else of it is what it was
    transformer = Transformer(cfg.model, vocabulary)
    transformer.load_state_dict(lora.trained(weights, cfg.lora))
    samples = cfg.samples if cfg.actions is None else as_played(cfg, video)
    described = bundle.BundleConfig(
        model=cfg.model, bidirectional=cfg.data.bidirectional, window=cfg.data.window, length=cfg.data.length,
        tasks=drawn, frames=samples.frames, height=samples.height, width=samples.width,
        fps=samples.fps, guidance=samples.guidance, temperature=samples.temperature, words=bundle.join_words(*each),
        actions=cfg.actions, conditions=known,
    )  # fmt: skip
    bundle.save(out, transformer, described, text, video, card(run, folder, transformer), DTYPES[dtype])
    finish(out, folder, as_json)


def as_played(cfg: PretrainConfig, video: VideoTokenizer) -> SampleConfig:
    """The recipe's ``samples`` at the rate and size of the recordings that a model that plays was trained on."""
    found = played_as(source.path for source in cfg.data.sources)
    cells = video.stride[1]
    each = sorted({(fps, cells * high, cells * wide) for fps, high, wide in found})
    told, samples = ", ".join(f"{high}x{wide} at {fps} fps" for fps, high, wide in each), cfg.samples
    if len(each) == 1 and each[0] != (samples.fps, samples.height, samples.width):
        console.print(f"it plays {told}, as the recordings that it was trained on")
        return replace(samples, fps=each[0][0], height=each[0][1], width=each[0][2])
    if len(each) > 1:
        asked = f"{samples.height}x{samples.width} at {samples.fps} fps"
        console.print(f"warning: the recordings are {told}; it plays {asked}, as the recipe says (samples)")
    return samples


def drawn_by(
    folder: Path, before: Tokenizer, described: bundle.BundleConfig
) -> tuple[VideoTokenizer, bundle.BundleConfig]:
    """Another tokenizer of the same codes, and the bundle's config at the size that it draws. HashMismatch: its codes
    mean something else."""
    found = VideoTokenizer.load(folder)
    if found.codes != before.codes:
        raise HashMismatch(
            f"{folder}: its codes are those of {found.codes}, and the bundle's those of {before.codes}; train its "
            "decoder alone (begin, train: decoder) from the bundle's tokenizer"
        )
    own, other = before.stride[1], found.stride[1]
    height, width = (described.height * other // own, described.width * other // own)
    return found, replace(described, height=height, width=width)


def finish(out: Path, made_of: Path, as_json: bool) -> None:
    """Say what was written."""
    files = [path for path in out.rglob("*") if path.is_file()] if out.is_dir() else [out]
    size = sum(path.stat().st_size for path in files)
    if out.is_dir():
        further = first_use(out, config.load(out / bundle.CONFIG, bundle.BundleConfig).tasks)
    else:
        further = f"vpoet export BUNDLE --adapter {out} --out MERGED, with the bundle that it was trained from"
    console.print(f"{out}: {size / 1e6:.1f} MB; next: {further}")
    kind = "bundle" if out.is_dir() else "adapter"
    cli.finish({kind: str(out), "checkpoint": str(made_of), "bytes": size}, as_json)


def first_use(out: Path, tasks: list[str]) -> str:
    """What a bundle that was trained for these tasks is first tried with."""
    if "play" in tasks and "t2v" not in tasks:
        return f"vpoet play {out}"
    if set(tasks) == {"interleaved"}:
        return f"vpoet complete segments.json --model {out} --out DIR"
    return f'vpoet sample --model {out} --prompt "..." --out clip.mp4'


def card(run: Path, folder: Path, transformer: Transformer) -> str:
    """The bundle's card: where it comes from."""
    recipe = (run / RESOLVED).read_text("utf-8")
    return (
        f"# {run.name}\n\nA vpoet bundle of {transformer.parameter_count / 1e6:.2f}M parameters, "
        f"from checkpoint {folder.name}.\n\nTrained with this recipe (`vpoet pretrain`):\n\n```yaml\n{recipe}```\n"
    )


if __name__ == "__main__":
    cli.run(main)
