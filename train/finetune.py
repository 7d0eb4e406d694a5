"""Fine-tune a bundle on new clips: all of its weights, or a LoRA adapter."""

import re
import warnings
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track

from vpoet import adapter, bundle, cli, config, hub
from vpoet.data.control_parts import read_kinds
from vpoet.data.shards import MANIFEST, Manifest
from vpoet.errors import ConfigError, VpoetWarning
from vpoet.evaluate.kept_samples import sample
from vpoet.files import aside
from vpoet.generate.model import Request, load
from vpoet.processes import announced
from vpoet.sequence.tasks import PAINTED, TABLE
from vpoet.training.finetune import check_controls, check_same, defaults, usable_tasks
from vpoet.training.recipe import PretrainConfig
from vpoet.training.run.folder import METRICS, RESOLVED
from vpoet.training.run.tracking import read_numbers
from vpoet.training.subject import PRIOR, for_subject, read_prior, write_frames, write_prior

console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
AT_ONCE = 16
"""Clips of the prior that are decoded together."""


def main(
    model: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle to start from; it stays as it is.")],
    clips: Annotated[
        Path, typer.Argument(help="A .csv or .jsonl with columns path and caption; or a folder of raw or token shards.")
    ],
    out: Annotated[Path, typer.Option(help="The bundle to write; with --lora also FILE.safetensors, an adapter.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value: steps=400, optimizer.lr=1e-4")] = None,
    lora: Annotated[
        int | None,
        typer.Option(
            metavar="RANK", min=1, max=4096, help="Train a LoRA adapter of this rank; the bundle's weights stay frozen."
        ),
    ] = None,
    controls: Annotated[
        str,
        typer.Option(
            metavar="KIND,KIND",
            help="Learn controls: edges, flow, grey, sketch of any clip; others that the shards have "
            "(vpoet ingest --controls). What reads them is trained alone, unless train=all or --lora.",
        ),
    ] = "",
    subject: Annotated[
        str,
        typer.Option(
            metavar="WORD",
            help="What the clips show gets this word, which their captions use (a sks walks left): prompts can then "
            "ask for it. One clip is enough. Needs --prior.",
        ),
    ] = "",
    prior: Annotated[
        Path | None,
        typer.Option(
            metavar="PROMPTS",
            help="With --subject: a file with a prompt on each line, about all else that the bundle shall go on to "
            "know. It makes clips of them first, and is trained on these, too.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Fine-tune a bundle on new clips: all of its weights, or a LoRA adapter.

    Clips of a list are brought to the size, rate and length that the model was trained on, and encoded by its own
    tokenizer. Training is that of `vpoet pretrain`, begun with the bundle's weights; its run folder is OUT-run, and
    every key of its recipe can be changed. Ctrl-C saves; running the same command again resumes.

    Examples:

        vpoet finetune runs/demo/bundle dog.csv --out runs/dog/bundle
        vpoet finetune runs/demo/bundle dog.csv --out runs/dog.safetensors --lora 8 steps=400
        vpoet finetune runs/demo/bundle runs/raw/train --controls edges,depth --out runs/controls/bundle
        vpoet finetune runs/demo/bundle sks.csv --subject sks --prior prompts.txt --out runs/sks
        vpoet export runs/demo/bundle --adapter runs/dog.safetensors --out runs/dog/bundle
    """
    if announced()[1] > 1:
        raise ConfigError(
            "vpoet finetune is one process; for many, give a recipe of train/pretrain.py the keys begin and lora"
        )
    if out.suffix == adapter.SUFFIX and lora is None:
        raise ConfigError(f"--out {out}: an adapter is what LoRA trains; add --lora RANK, or name a folder")
    kinds = read_kinds(controls)
    if out.suffix == adapter.SUFFIX and kinds:
        raise ConfigError(f"--out {out}: an adapter has no place for what reads controls; name a folder")
    (adapter if out.suffix == adapter.SUFFIX else bundle).check_vacant(out)
    if bool(subject) != (prior is not None):
        raise ConfigError("--subject WORD and --prior PROMPTS go together: one is learned, the other is kept")
    config.check_overrides(PretrainConfig, overrides or [])
    run = out.with_name(f"{out.stem}-run")
    cli.hold(run)
    model = hub.local(model, bundle.FILES)
    base = bundle.load(model)
    prompts = read_prior(prior, subject, base.config.words) if prior else []
    shards = ingested(clips, run, base, kinds)
    tokens = encoded(shards, run / "tokens", model, base)
    check_controls(tokens, base, kinds)
    tasks, told = usable_tasks(tokens, base)
    console.print("\n".join(told))
    wanted = defaults(model, base.config, tokens, tasks, run, lora, kinds)
    if subject:
        write_frames(shards, run / "frames", subject)
        frames = encoded(run / "frames", run / "frames-tokens", model, base)
        wanted = for_subject(wanted, frames, prior_clips(model, prompts, run))
    del base  # training loads its weights anew
    recipe = run / "recipe.yaml"
    with aside(recipe) as fresh:
        config.save(wanted, fresh)
    check_same(run / RESOLVED, config.load(recipe, PretrainConfig, overrides or []))
    try:
        cli.program("pretrain")(recipe, overrides, resume=True)
    except SystemExit:
        console.print("run the same command again to resume")
        raise
    cli.program("export")(run, out)
    curve = [row["train/loss"] for row in read_numbers(run / METRICS)]
    cli.finish({"out": out, "run": run, "steps": len(curve), "first_loss": curve[0], "loss": curve[-1]}, as_json)


def ingested(clips: Path, run: Path, base: bundle.Bundle, controls: tuple[str, ...]) -> Path:
    """The folder of shards, raw or of tokens: ``clips``, or one below ``run`` made of a list, with these controls."""
    if (clips / MANIFEST).is_file():
        return clips
    about, raw = base.config, run / "raw"
    cli.program("ingest")(
        [str(clips)], raw, frames=about.frames, fps=about.fps, height=about.height, width=about.width,
        controls=",".join(controls),
    )  # fmt: skip
    return raw


def encoded(shards: Path, out: Path, model: Path, base: bundle.Bundle) -> Path:
    """The folder of token shards: ``shards`` if they are, or ``out``, made of them with the bundle's tokenizer."""
    if Manifest.load(shards).kind == "tokens":
        return shards
    keyframes = any(TABLE[task].keyframes for task in base.config.tasks)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    paintings = int(any(task in PAINTED for task in base.config.tasks))
    cli.program("encode")(shards, model / bundle.VIDEO, out, keyframes=keyframes, paintings=paintings, device=device)
    return out


def prior_clips(model: Path, prompts: list[str], run: Path) -> Path:
    """Token shards of what the bundle draws of the prompts, as it is: without guidance, at temperature 1."""
    sampler, out = load(model), run / "prior"
    requests = [Request(prompt=prompts[seed % len(prompts)], seed=seed) for seed in range(PRIOR)]
    sampling = sampler.sampling(guidance=1.0, temperature=1.0)
    # what was drawn are codes, without pixels to hide: it keeps what other tasks know
    warnings.filterwarnings("ignore", f"{re.escape(str(out))}: no paintings", VpoetWarning)
    watched = partial(track, description="sampling the prior", console=console)
    made = sample(sampler, requests, sampling, run / "prior.jsonl", AT_ONCE, watched)
    told = [request.prompt for request in requests]
    write_prior(out, told, made, sampler.bundle.config.fps, sampler.bundle.video.codes)
    return out


if __name__ == "__main__":
    cli.run(main)
