"""What lies where in the folder of a run, of pretraining and of a video tokenizer alike.

RUN/resolved.yaml          the recipe with all its defaults
    checkpoints/step-N/    what a run goes on from (`vpoet.training.run.checkpoint`)
    metrics.jsonl          a line for each logged step
    starts.jsonl           a line for each start (both: `vpoet.training.run.tracking`)
    samples/               clips and pictures made on the way: step-N-INDEX.mp4, step-N.png
    wandb/                 all that wandb writes
    tokenizer/             of a video tokenizer's run, at its end: the tokenizer
"""

from pathlib import Path
from typing import Any

from vpoet import config
from vpoet.files import aside

RESOLVED = "resolved.yaml"
CHECKPOINTS = "checkpoints"
METRICS = "metrics.jsonl"
STARTS = "starts.jsonl"
SAMPLES = "samples"
WANDB = "wandb"
TOKENIZER = "tokenizer"


def save_resolved(recipe: Any, run: Path) -> None:
    """Write a run's recipe, whole or not at all: a dataclass, as `vpoet.config.load` gives it. OutputError: no room."""
    with aside(run / RESOLVED) as unfinished:
        config.save(recipe, unfinished)


def checkpoint_of(run: Path, step: int) -> Path:
    """The folder of the checkpoint after ``step`` steps."""
    return run / CHECKPOINTS / f"step-{step}"


def step_of(checkpoint: Path) -> int:
    """The inverse, of a folder or of a file step-N.SUFFIX."""
    return int(checkpoint.stem.removeprefix("step-"))
