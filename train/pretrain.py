"""Pretrain the transformer on token shards, in one process or under the deepspeed launcher."""

import signal
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from vpoet import bundle, cli, config
from vpoet.data.token_documents import Documents
from vpoet.data.token_stream import PackStream, heldout_packs
from vpoet.errors import CheckpointError
from vpoet.evaluate.preview_process import Previews
from vpoet.nn import initial
from vpoet.nn.nats import PackTensors
from vpoet.nn.transformer import Transformer
from vpoet.outputs import expect_folder
from vpoet.tokenizer.text import TextTokenizer
from vpoet.tokenizer.video import VideoTokenizer
from vpoet.training import trained
from vpoet.training.blocks import runner
from vpoet.training.engine import start
from vpoet.training.engine.base import Engine
from vpoet.training.engine.ulysses import Share
from vpoet.training.guard import Guard
from vpoet.training.heeded import heeded_bits
from vpoet.training.loss import PackLoss, heldout_losses, losses
from vpoet.training.meter import Meter, peaks, progress
from vpoet.training.optim import learning_rate
from vpoet.training.precision import DTYPES, spoken
from vpoet.training.recipe import PretrainConfig
from vpoet.training.run import checkpoint
from vpoet.training.run.folder import save_resolved
from vpoet.training.run.saver import Saver
from vpoet.training.run.stop import Stop, leave
from vpoet.training.run.tracking import Tracker
from vpoet.training.tally import Tally

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
    checkpoints/, metrics.jsonl, samples/, wandb/ (offline unless you are logged in) and resolved.yaml; `vpoet report
    runs/a` shows it all on one page.
    """
    cfg = config.load(recipe, PretrainConfig, overrides or [])
    run = Path(cfg.run)
    expect_folder(run)
    cli.hold(run)
    torch.manual_seed(cfg.seed)
    text, video = TextTokenizer.load(cfg.text), VideoTokenizer.load(cfg.video)
    vocabulary = cfg.vocabulary(text, video)
    hashes = {"text": text.hash, "video": video.codes, "vocabulary": vocabulary.hash}
    with nullcontext() if cfg.lora else initial.Weightless():
        transformer = Transformer(cfg.model, vocabulary)
    weights: initial.Weights = initial.drawn(transformer)
    if cfg.begin:
        hashes["begin"], weights = bundle.begin(transformer, cfg.begin)
    unfilled = trained.begin(transformer, weights, cfg)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run_block = runner(compiled=cfg.compile, checkpointed=cfg.checkpoint_blocks)
    module = PackLoss(transformer, cfg.attends(device), cfg.z_loss, run=run_block)
    trainer = start.start(module, cfg.engine, cfg.optimizer, cfg.packs_per_process, unfilled)
    share = Share(trainer.rank, trainer.world, cfg.engine.sequence_parallel)

    state = begin(run, trainer, hashes, resume)
    guard = Guard(cfg.guard, state["guard"])
    documents = Documents(cfg.data, vocabulary=vocabulary, text=text.encode, seed=cfg.seed)
    stream = PackStream(documents, lanes=cfg.batch, rank=share.group, world=share.groups, state=state["lanes"])
    heldout = []
    if cfg.heldout:
        held = replace(cfg.data, sources=cfg.heldout)
        heldout = heldout_packs(held, vocabulary=vocabulary, text=text.encode, count=cfg.evaluate_packs)
    if trainer.rank == 0:
        save_resolved(cfg, run)
        console.print(
            f"{transformer.parameter_count / 1e6:.1f}M parameters, "
            f"{trainer.world} process{'es' * (trainer.world > 1)}, {spoken(cfg.engine.dtype, device)}, "
            f"{cfg.batch} packs of {cfg.data.length} tokens per step; run folder {run}"
        )
    meter = Meter(*trainer.total(peaks(device, DTYPES[cfg.engine.dtype])).tolist())
    tracker = Tracker(
        run, config=config.to_dict(cfg), project=cfg.project, name=run.name, enabled=trainer.rank == 0,
        resume_step=state["step"], tokens_per_step=cfg.batch * cfg.data.length,
        about={"parameters": transformer.parameter_count, "processes": trainer.world},
    )  # fmt: skip
    stop = Stop()
    previews = Previews(cfg, tracker, enabled=trainer.rank == 0, resume_step=state["step"], say=console.print)
    saver = Saver(
        run, trainer, keep=cfg.keep, keep_every=cfg.keep_every, needed=previews.needed, say=console.print
    )  # fmt: skip

    last: dict[str, float] = {}
    stopping = 0.0
    for step in range(state["step"], cfg.steps):
        began = time.perf_counter()
        packs = next(stream)
        waited = time.perf_counter() - began
        batch = [PackTensors.of(pack, device) for pack in packs]
        flops = sum(transformer.flops(b.visibility, len(b.after_M)) for b in batch)
        tally = Tally(trainer, share, packs, flops=flops, waited=waited, signal=stop.signal)
        divisor = tally.divisor
        lr = learning_rate(cfg.optimizer, step, cfg.steps)
        # the lambdas are used within the step alone; by the time of accept the device has done all of it
        sums, norm = trainer.step(
            [share.piece(whole) for whole in batch], lambda nats: nats.sum() / divisor, lr,  # noqa: B023
            seeds=share.seeds(cfg.seed, step, cfg.batch),
            accept=lambda sums, norm: guard.accept(
                float(sums.sum()) / tally.predicted, norm, trainer.loss_scale.scale, tally.kind  # noqa: B023
            ),
        )  # fmt: skip
        last = losses("train", sums.cpu(), tally.targets)
        last |= {"train/lr": lr, "train/grad_norm": norm, "train/skipped": float(guard.skipped)}
        if trainer.loss_scale.used:
            last["train/loss_scale"] = trainer.loss_scale.scale
        tokens, padding, stopping = int(tally["tokens"]), int(tally["padding"]), tally["signal"]
        meter.count(tokens=tokens, padding=padding, flops=tally["flops"], waited=tally["waited"] / share.groups)

        done = step + 1
        if guard.reason and trainer.rank == 0:
            console.print(f"step {done} left out: {guard.reason}")
        if done % cfg.log_every == 0 or done == cfg.steps:
            last |= meter.read()
            if trainer.rank == 0:
                console.print(progress(done, cfg.steps, last))
        paused = time.perf_counter()
        if heldout and (done % cfg.evaluate_every == 0 or done == cfg.steps):
            last |= heldout_losses(trainer, heldout, share)
            last |= heeded_bits(trainer, heldout, share, vocabulary, last)
            if trainer.rank == 0:
                console.print(f"held out: {last['heldout/loss']:.4f} nats per token, {last['heldout/bits']:.3f} bits")
        tracker.log(last, done)
        saver.poll(wait=guard.spent)
        previews.poll()
        guard.check(done)
        ends = done == cfg.steps or bool(stopping)
        if done % cfg.save_every == 0 or cfg.samples.due(done, cfg.steps) or ends:
            lanes = {lane: place for mine in trainer.gather(stream.state()) for lane, place in mine.items()}
            saver.save({"step": done, "hashes": hashes, "lanes": lanes, "guard": guard.state()}, last=ends)
            previews.ask(done)
        meter.pause(time.perf_counter() - paused)
        if stopping:
            break

    unsound = {shard: count for mine in trainer.gather(stream.skipped) for shard, count in mine.items()}
    stream.close()
    trainer.processes.leave()
    previews.close(stopped=lambda: bool(stopping) or stop.signal != 0)
    tracker.close()
    received = stop.signal or (signal.SIGTERM if stopping else 0)  # or another process's
    if trainer.rank == 0:
        for problem, count in stream.problems.counts.items():
            console.print(f"skipped: {count} x {problem}")
        for shard, count in unsound.items():
            console.print(f"skipped: {count} samples of {shard}")
        if received:
            console.print(f"stopped by {signal.Signals(received).name} and saved; go on with --resume")
        else:
            console.print(f"done: {run}; next: vpoet report {run}, vpoet export {run} --out BUNDLE")
        cli.finish({"run": str(run), "step": done if received else cfg.steps} | last, as_json)
    if received:
        leave(received)


def begin(run: Path, trainer: Engine, hashes: dict[str, str], resume: bool) -> dict[str, Any]:
    """The state to start from: of step 0, or a checkpoint's."""
    folders = trainer.gather(checkpoint.complete(run))[0]
    if not resume and folders:
        raise CheckpointError(f"{run}: holds a run up to {folders[-1].name}; add --resume, or choose another run=")
    if not folders:
        return {"step": 0, "lanes": None, "guard": None}
    folder, state = checkpoint.resume(run, trainer, hashes)
    if trainer.rank == 0:
        console.print(f"resuming from {folder}, written by {state['engine']} with {state['world']} processes")
    return state


if __name__ == "__main__":
    cli.run(main)
