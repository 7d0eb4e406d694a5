"""Samples on the way, made beside training by a process of its own: no process of the training ever waits for one.

    training, rank 0    save step 200 ... saved | step | step | ... told: show them in wandb, as of step 200
    this process        (idle)                    read the checkpoint, sample on the CPU, write samples/, tell

    python -m vpoet.evaluate.preview_process RUN        steps in on stdin, one JSON a line out on stdout

It runs at the lowest priority and without a GPU, and ends when its stdin does: with the training, however that ends.
What a training that is stopped or killed had not got, its resumption asks for again, as `Previews` says.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from vpoet import config
from vpoet.errors import VpoetError, VpoetWarning
from vpoet.evaluate.previews import sample_prompts
from vpoet.tokenizer.text import TextTokenizer
from vpoet.tokenizer.video import VideoTokenizer
from vpoet.training.recipe import PretrainConfig
from vpoet.training.run import checkpoint
from vpoet.training.run.folder import RESOLVED, SAMPLES, checkpoint_of, step_of
from vpoet.training.run.tracking import Sampled, Tracker

WAITING = 4
"""Checkpoints that are kept while their samples have not been made; a slower sampler leaves out the oldest."""
LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_SIZE", "LOCAL_WORLD_SIZE")


class Previews:
    """The training's side, in process 0; elsewhere not ``enabled``, and nothing happens.

    Samples are made from the checkpoint of their step, which is to be kept while it is in `needed`. What checkpoints up
    to ``resume_step`` are there without their samples, these are asked for at once.
    """

    def __init__(
        self, recipe: PretrainConfig, tracker: Tracker, *, enabled: bool, resume_step: int, say: Callable[[str], None]
    ) -> None:
        self._recipe, self._tracker, self._say = recipe, tracker, say
        self._enabled = enabled
        self._run = Path(recipe.run)
        self._waiting: list[int] = []
        self._at: int | None = None
        self._process: subprocess.Popen[str] | None = None
        self._told: queue.Queue[dict[str, Any] | None] = queue.Queue()
        for folder in checkpoint.complete(self._run) if enabled else []:
            step = step_of(folder)
            clips = [self._run / SAMPLES / f"step-{step}-{i}.mp4" for i in range(len(recipe.samples.prompts))]
            if step <= resume_step and not all(clip.exists() for clip in clips):
                self.ask(step)

    def ask(self, step: int) -> None:
        """Have the prompts sampled from the checkpoint of ``step``, if samples are due then and once it is there."""
        if self._enabled and self._recipe.samples.due(step, self._recipe.steps):
            self._waiting.append(step)
            if len(self._waiting) > WAITING:
                self._say(f"warning: no samples of step {self._waiting.pop(0)}: making them takes too long")

    def needed(self) -> set[int]:
        """Steps whose checkpoints samples are made from, now or later."""
        return {*self._waiting, *([] if self._at is None else [self._at])}

    def poll(self) -> None:
        """Show what has come, and go on with the next; takes no time."""
        while not self._told.empty():
            self._show(self._told.get())
        if self._at is not None or not self._waiting:
            return
        step = self._waiting[0]
        if checkpoint_of(self._run, step).is_dir():  # it has its name once it is whole
            self._at = self._waiting.pop(0)
            self._tell(self._at)
        elif any(step_of(folder) > step for folder in checkpoint.complete(self._run)):
            self._waiting.pop(0)
            self._say(f"warning: no samples of step {step}: its checkpoint is not there")

    def close(self, stopped: Callable[[], int]) -> None:
        """Wait for the last samples, unless the training is ``stopped``; then the next start makes them."""
        if self.needed() and not stopped():
            self._say("waiting for samples")
        while self._at is not None or self._waiting:
            if stopped() or (self._at is None and not checkpoint_of(self._run, self._waiting[0]).is_dir()):
                break
            self.poll()
            time.sleep(0.02)
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _show(self, told: dict[str, Any] | None) -> None:
        step, self._at = self._at, None
        if told is None:  # it is dead
            self._process = None
            told = {"shown": [], "warnings": [f"no samples of step {step}: their process has died"]}
        for line in told["warnings"]:
            self._say(f"warning: {line}")
        shown = [
            Sampled(each["prompt"], Path(each["path"]), Path(each["real"]) if each["real"] else None, each["caption"])
            for each in told["shown"]
        ]
        if step is not None:
            self._tracker.samples(shown, step)

    def _tell(self, step: int) -> None:
        if self._process is None:
            # not one of the launcher's processes; it has the machine's CPUs to itself where nobody else wants them
            environment = {name: value for name, value in os.environ.items() if name not in LAUNCHER}
            self._process = subprocess.Popen(
                command(self._run), text=True, start_new_session=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment | {"CUDA_VISIBLE_DEVICES": ""},
            )  # fmt: skip
            threading.Thread(target=_listen, args=(self._process.stdout, self._told), daemon=True).start()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{step}\n")
            self._process.stdin.flush()
        except OSError:
            pass  # it is dead, which its listener tells


def command(run: Path) -> list[str]:
    """What starts the process for a run."""
    return [sys.executable, "-m", __name__, str(run)]


def _listen(lines: IO[str], told: "queue.Queue[dict[str, Any] | None]") -> None:
    for line in lines:
        told.put(json.loads(line))
    told.put(None)


def serve(run: Path, steps: IO[str], out: IO[str]) -> None:
    """Sample the recipe's prompts of a run from the checkpoint of each step that is asked for; until ``steps`` ends."""
    asked: queue.Queue[int] = queue.Queue()

    def listen() -> None:
        for line in steps:
            asked.put(int(line))
        os._exit(0)  # the training has ended, and what is at work is made again after it

    threading.Thread(target=listen, daemon=True).start()
    recipe = config.load(run / RESOLVED, PretrainConfig)
    text, video = TextTokenizer.load(recipe.text), VideoTokenizer.load(recipe.video)
    vocabulary = recipe.vocabulary(text, video)
    while True:
        step = asked.get()
        shown: list[Sampled] = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", VpoetWarning)
            try:
                weights = checkpoint.read_weights(checkpoint_of(run, step))
                shown = sample_prompts(recipe, weights, vocabulary, text, video, step)
            except VpoetError as error:
                warnings.warn(f"no samples of step {step}: {error}; training goes on", VpoetWarning, stacklevel=1)
        rows = [{name: value and str(value) for name, value in asdict(each).items()} for each in shown]
        print(json.dumps({"shown": rows, "warnings": [str(each.message) for each in caught]}), file=out, flush=True)


if __name__ == "__main__":
    os.nice(19)
    serve(Path(sys.argv[1]), sys.stdin, sys.stdout)
