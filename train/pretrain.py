"""Pretrain the transformer on token shards, in one process or under the deepspeed launcher."""

import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from vpoet import cli, config
from vpoet.data.token_stream import PackStream, heldout_packs
from vpoet.errors import CheckpointError
from vpoet.evaluate.samples import sample_prompts
from vpoet.nn.attention import backend
from vpoet.nn.packed import PackTensors
from vpoet.nn.transformer import Transformer
from vpoet.sequence.document import KINDS
from vpoet.sequence.vocabulary import Vocabulary, grouped
from vpoet.tokenizer.text import TextTokenizer
from vpoet.tokenizer.video import VideoTokenizer
from vpoet.training import checkpoint, engines
from vpoet.training.engine import DTYPES, Engine
from vpoet.training.loss import PackLoss, counts, losses
from vpoet.training.meter import Meter, matmul_peak
from vpoet.training.optim import learning_rate
from vpoet.training.recipe import PretrainConfig
from vpoet.training.tracking import Tracker

STOPPED = {signal.SIGINT: 130, signal.SIGTERM: 143}
console = Console(stderr=True, soft_wrap=True, highlight=False)


def main(
    recipe: Annotated[Path, typer.Argument(help="YAML recipe, for instance train/configs/demo.yaml")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, dotted: optimizer.lr=3e-4")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the run's newest checkpoint; start anew if none")] = False,
    local_rank: Annotated[int, typer.Option("--local_rank", hidden=True, help="Given by the launcher")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON line at the end")] = False,
) -> None:
    """Pretrain the transformer on token shards.

    One process, then two with ZeRO stage 2, then going on after an interruption:

      vpoet pretrain train/configs/demo.yaml run=runs/a steps=200
      deepspeed --num_accelerators 2 train/pretrain.py train/configs/demo.yaml run=runs/a engine.zero=2
      deepspeed --num_accelerators 2 train/pretrain.py train/configs/demo.yaml run=runs/a engine.zero=2 --resume

    Ctrl-C or SIGTERM finishes the step, writes a checkpoint and exits (130, 143). The run folder then holds
    checkpoints/, metrics.jsonl, samples/, wandb/ (offline unless you are logged in) and resolved.yaml.
    """
    cfg = config.load(recipe, PretrainConfig, overrides or [])
    run = Path(cfg.run)
    torch.manual_seed(cfg.seed)
    text, video = TextTokenizer.load(cfg.text), VideoTokenizer.load(cfg.video)
    vocabulary = Vocabulary(text.size, grouped(video.levels, cfg.model.visual_groups), text.hash, video.hash)
    transformer = Transformer(cfg.model, vocabulary)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = DTYPES[cfg.engine.dtype]
    module = PackLoss(transformer, backend(cfg.attention, device, dtype))
    trainer = engines.start(module, cfg.engine, cfg.optimizer, cfg.packs_per_process)
    hashes = {"text": text.hash, "video": video.hash, "vocabulary": vocabulary.hash}

    start, lanes = begin(run, trainer, hashes, resume)
    stream = PackStream(
        cfg.data, vocabulary=vocabulary, text=text.encode, seed=cfg.seed, lanes=cfg.batch, rank=trainer.rank,
        world=trainer.world, state=lanes, prefetch=2,
    )  # fmt: skip
    heldout = []
    if cfg.heldout:
        held = replace(cfg.data, sources=cfg.heldout)
        heldout = heldout_packs(held, vocabulary=vocabulary, text=text.encode, count=cfg.evaluate_packs)
    if trainer.rank == 0:
        config.save(cfg, run / "resolved.yaml")
        console.print(
            f"{transformer.parameter_count / 1e6:.1f}M parameters, {trainer.world} processes, {cfg.engine.dtype}, "
            f"{cfg.batch} packs of {cfg.data.length} tokens a step; run folder {run}"
        )
    peak = float(trainer.total(torch.tensor(matmul_peak(device, dtype))))
    meter = Meter(peak)
    tracker = Tracker(
        run, config=config.to_dict(cfg), project=cfg.project, name=run.name, enabled=trainer.rank == 0,
        resume_step=start,
    )  # fmt: skip
    stop = {"signal": 0}
    for number in STOPPED:
        signal.signal(number, lambda received, _: stop.update(signal=received))

    last: dict[str, float] = {}
    stopping = 0.0
    for step in range(start, cfg.steps):
        began = time.perf_counter()
        packs = next(stream)
        waited = time.perf_counter() - began
        batch = [PackTensors.of(pack, device) for pack in packs]
        flops = sum(transformer.flops(b.visibility, len(b.after_M)) for b in batch)
        mine = [sum(map(len, packs)), sum(p.padding for p in packs), flops, waited, stop["signal"]]
        targets = trainer.total(sum(counts(pack) for pack in packs))
        tokens, padding, flops, waited, stopping = trainer.total(torch.tensor(mine, dtype=torch.double)).tolist()

        total = float(targets.sum())
        lr = learning_rate(cfg.optimizer, step, cfg.steps)
        sums, norm = trainer.step(batch, lambda nats: nats.sum() / total, lr)  # noqa: B023 (used within the step)
        last = losses("train", trainer.total(sums), targets) | {"train/lr": lr, "train/grad_norm": norm}
        meter.count(tokens=int(tokens), padding=int(padding), flops=flops, waited=waited / trainer.world)

        done = step + 1
        if done % cfg.log_every == 0 or done == cfg.steps:
            last |= meter.read()
            if trainer.rank == 0:
                console.print(line(done, cfg.steps, last))
        paused = time.perf_counter()
        if heldout and (done % cfg.evaluate_every == 0 or done == cfg.steps):
            last |= evaluate(trainer, heldout, device)
            if trainer.rank == 0:
                console.print(f"held out: {last['heldout/loss']:.4f} nats a token, {last['heldout/bits']:.3f} bits")
        tracker.log(last, done)
        if done % cfg.save_every == 0 or done == cfg.steps or stopping:
            state = {"step": done, "hashes": hashes, "lanes": merge(trainer.gather(stream.state()))}
            folder = checkpoint.save(run, trainer, state, cfg.keep)
            if trainer.rank == 0:
                console.print(f"saved {folder}")
        if cfg.samples.every and cfg.samples.prompts and (done % cfg.samples.every == 0 or done == cfg.steps):
            weights = trainer.weights()
            if trainer.rank == 0:
                for i, path in enumerate(sample_prompts(cfg, weights, vocabulary, text, video, done)):
                    tracker.video(f"samples/{i}", path, cfg.samples.prompts[i], done)
        meter.pause(time.perf_counter() - paused)
        if stopping:
            break

    stream.close()
    tracker.close()
    received = stop["signal"] or (signal.SIGTERM if stopping else 0)  # or another process's
    if trainer.rank == 0:
        for problem, count in stream.problems.counts.items():
            console.print(f"skipped: {count} x {problem}")
        if received:
            console.print(f"stopped by {signal.Signals(received).name} and saved; go on with --resume")
        else:
            console.print(f"done: {run}; next: vpoet export {run} --out BUNDLE")
        cli.finish({"run": str(run), "step": done if received else cfg.steps} | last, as_json)
    if received:
        sys.exit(STOPPED[signal.Signals(received)])


def begin(run: Path, trainer: Engine, hashes: dict[str, str], resume: bool) -> tuple[int, dict[str, Any] | None]:
    """The first step and the data stream's state: zero and None, or a checkpoint's."""
    folders = checkpoint.complete(run)
    if not resume and folders:
        raise CheckpointError(f"{run}: holds a run up to {folders[-1].name}; add --resume, or choose another run=")
    if not folders:
        run.mkdir(parents=True, exist_ok=True)
        return 0, None
    state = checkpoint.load(folders[-1], trainer, hashes)
    if trainer.rank == 0:
        console.print(f"resuming from {folders[-1]}")
    return state["step"], state["lanes"]


def merge(lanes: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: state for mine in lanes for name, state in mine.items()}


def evaluate(trainer: Engine, heldout: list[Any], device: torch.device) -> dict[str, float]:
    """Held-out losses; every process takes as many passes, as sharded weights need."""
    sums, targets = torch.zeros(len(KINDS), dtype=torch.double), torch.zeros(len(KINDS), dtype=torch.double)
    for first in range(0, len(heldout), trainer.world):
        pack = heldout[(first + trainer.rank) % len(heldout)]
        nats = trainer.evaluate(PackTensors.of(pack, device)).double().cpu()
        if first + trainer.rank < len(heldout):
            sums, targets = sums + nats, targets + counts(pack)
    return losses("heldout", trainer.total(sums), trainer.total(targets))


def line(done: int, steps: int, row: dict[str, float]) -> str:
    """The console's line for the person waiting."""
    left = int((steps - done) * row["speed/seconds_per_step"])
    bits = "  ".join(f"{kind} {row[key]:.3f}" for kind in KINDS if (key := f"train/{kind}_bits") in row)
    return (
        f"step {done}/{steps}  loss {row['train/loss']:.4f}  bits: {bits}  |g| {row['train/grad_norm']:.2f}  "
        f"lr {row['train/lr']:.1e}  {row['speed/tokens_per_second']:,.0f} tok/s  mfu {row['speed/mfu']:.0%}  "
        f"padding {row['speed/padding']:.1%}  wait {row['speed/data_wait']:.1%}  left {left // 60}:{left % 60:02}"
    )


if __name__ == "__main__":
    cli.run(main)
