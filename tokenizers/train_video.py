"""Train a video tokenizer (causal 3D autoencoder with FSQ, LFQ or VQ) on raw shards."""

import signal
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vpoet import cli, config
from vpoet.data.clip_stream import ClipShape, ClipStream
from vpoet.evaluate.previews import reconstruct_clips
from vpoet.outputs import expect_folder
from vpoet.tokenizer.autoencoder import count_parameters
from vpoet.tokenizer.video import VideoTokenizer
from vpoet.training.codec.pace import Pace
from vpoet.training.codec.recipe import VideoTokenizerRecipe
from vpoet.training.codec.training import TokenizerTraining
from vpoet.training.precision import fastest
from vpoet.training.run.folder import SAMPLES, TOKENIZER, save_resolved
from vpoet.training.run.stop import Stop, leave
from vpoet.training.run.tracking import Tracker

EVALUATION_SEED = 1_000_003
console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)


def main(
    recipe: Annotated[Path, typer.Argument(help="YAML recipe, for instance tokenizers/configs/tiny-platformer.yaml")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, dotted: optimizer.lr=3e-4")] = None,
    local_rank: Annotated[int, typer.Option("--local_rank", hidden=True, help="Given by the launcher.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON line at the end")] = False,
) -> None:
    """Train a video tokenizer on raw shards, as `vpoet ingest` makes them.

    Running the same command again resumes an interrupted run, bit for bit; Ctrl-C or SIGTERM finishes the step, writes
    a checkpoint and exits (130, 143). The run folder holds tokenizer/ (the result, at the end), checkpoints/, samples/
    (clips and their reconstructions), metrics.jsonl, wandb/ and resolved.yaml.

    Examples:

        vpoet train-video tokenizers/configs/tiny-platformer.yaml run=runs/tok 'data=[runs/raw]'
        vpoet train-video tokenizers/configs/droid-64.yaml 'data=[raw/train]' 'held_out=[raw/heldout]' steps=20000
        deepspeed --num_accelerators 2 tokenizers/train_video.py tokenizers/configs/droid-64.yaml
    """
    cfg = config.load(recipe, VideoTokenizerRecipe, overrides or [])
    run = Path(cfg.run)
    expect_folder(run)
    cli.hold(run)
    training = TokenizerTraining(cfg)
    cfg = training.recipe
    processes, leads = training.processes, training.processes.rank == 0
    console.quiet = not leads
    VideoTokenizer(training.average).grid(cfg.frames, cfg.height, cfg.width)
    shape = ClipShape(cfg.frames, cfg.height, cfg.width, cfg.augment, cfg.window, cfg.clips_of_video)
    world, share = processes.world, {"seed": cfg.seed, "rank": processes.rank, "world": processes.world}
    share |= {"decoders": cfg.decoders}
    streams = [ClipStream(cfg.data, shape, batch=cfg.batch // world, **share)]
    if cfg.image_batch:
        images = cfg.images or cfg.data
        streams.append(ClipStream(images, replace(shape, frames=1, clips=1), batch=cfg.image_batch // world, **share))
    # the same clips at every evaluation
    whole = replace(shape, augment=False, window=0, clips=1)
    clips = next(ClipStream(cfg.held_out or cfg.data, whole, batch=cfg.evaluate_clips, seed=EVALUATION_SEED))
    positions = training.restore(run)
    if positions is not None:
        for stream, position in zip(streams, positions, strict=True):
            stream.load_state_dict(position)
        console.print(f"going on from step {training.step} of {run}")
    if leads:
        save_resolved(cfg, run)
    tracker = Tracker(
        run, config=config.to_dict(cfg), project="vpoet", name=run.name, enabled=leads, resume_step=training.step
    )
    if leads and cfg.dtype == "bf16" and fastest(training.device) == "fp32":
        console.print("this CPU imitates bf16, and computes several times as fast in fp32: dtype=auto chooses")
    encoder, decoder = (count_parameters(part) / 1e6 for part in (training.model.encoder, training.model.decoder))
    console.print(
        f"encoder {encoder:.2f}M, decoder {decoder:.2f}M parameters, {training.model.quantiser.size} codes; "
        f"{cfg.dtype} on {processes.world} x {training.device}; run folder {run}"
    )

    stop = Stop()
    result: dict[str, float] = {}
    pace = Pace(cfg, training.step)
    while training.step < cfg.steps and not training.stopping:
        values = training.update(*map(next, streams), stop=bool(stop.signal))
        step, last = training.step, training.step == cfg.steps
        row: dict[str, float] = {}
        if step % cfg.log_every == 0 or last:
            speed = pace.read(step)
            row |= {f"train/{name}": value for name, value in values.items()} | {"speed/clips_per_second": speed}
            console.print(pace.line(step, values, speed))
        if step % cfg.evaluate_every == 0 or last:
            name, sheet = "heldout" if cfg.held_out else "seen", run / SAMPLES / f"step-{step}.png"
            result = reconstruct_clips(VideoTokenizer(training.average), clips, sheet, name, processes)
            tracker.image("reconstructions", sheet, f"step {step}", step)
            row |= result
            console.print("  ".join(f"{name} {value:.4g}" for name, value in result.items()))
        if row:
            tracker.log(row, step)
            pace.restart(step)
        if step % cfg.save_every == 0 or last or training.stopping:
            training.save(run, [stream.state_dict() for stream in streams])

    tracker.close()
    for stream in streams:
        if stream.problems.total:
            console.print(f"skipped: {stream.problems}")
    summary = {"run": run, "step": training.step, **result}
    if training.stopping:
        console.print(f"stopped at step {training.step} and saved; run the same command again to resume")
        cli.finish(summary, as_json and leads)
        processes.leave()
        leave(stop.signal or signal.SIGTERM)  # or another process's
    tokenizer = training.exported()
    if leads:
        tokenizer.save(run / TOKENIZER)
    console.print(f"{run / TOKENIZER}: the tokenizer, hash {tokenizer.hash}; {run / SAMPLES}: what it draws")
    cli.finish(summary | {"tokenizer": run / TOKENIZER, "hash": tokenizer.hash}, as_json and leads)
    processes.leave()


if __name__ == "__main__":
    cli.run(main)
