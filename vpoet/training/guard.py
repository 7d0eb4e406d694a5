"""Which steps are taken: one whose loss or gradient norm is not finite, or far above the last steps', is left out.

A step is compared with those that predicted the same kind of token for the most part: a pack of nothing but actions,
which the tasks policy and inverse predict, can cost many times what a pack of frames does, and is no spike.
"""

import math
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vpoet.errors import ConfigError, TrainingError


@dataclass(kw_only=True)
class GuardConfig:
    """When a step is left out: weights and optimiser stay as they were, and the data goes on."""

    norm: float = 10.0
    """A gradient norm this many times the median of the last steps is a spike; 0: only one that is not finite."""
    loss: float = 2.0
    """The same for the loss, but of its distance in nats: a spike lies this far above the median; 0: never."""
    window: int = 100
    """Steps of a kind that the medians are taken over; until half of them are there, nothing is a spike."""
    patience: int = 10
    """Steps left out in a row that end the run."""

    def __post_init__(self) -> None:
        if self.norm < 0 or self.loss < 0 or self.window < 2 or self.patience < 1:
            raise ConfigError("guard: norm and loss must be at least 0, window at least 2, patience at least 1")


class Guard:
    """Judges the steps of a run, in every process alike. Its state is in the checkpoint, so a resumed run judges as
    an unbroken one."""

    def __init__(self, config: GuardConfig, state: dict[str, Any] | None = None) -> None:
        state = state or {"steps": {}, "skipped": 0, "row": 0}
        self.config = config
        # checkpoints that did not tell kinds apart have no `steps`: what is usual is learned anew
        kept = state.get("steps", {}).items()
        self.steps: dict[str, deque[tuple[float, float]]] = {
            kind: deque(((loss, norm) for loss, norm in steps), config.window) for kind, steps in kept
        }
        """Losses and gradient norms of the last steps of each kind."""
        self.skipped: int = state["skipped"]
        """Steps left out since the run began."""
        self.row: int = state["row"]
        """Steps left out in a row up to now, but for a loss scale too high."""
        self.reason = ""
        """Why the last step was left out; empty if it was not."""

    def state(self) -> dict[str, Any]:
        """Fit for JSON."""
        steps = {kind: [*steps] for kind, steps in self.steps.items()}
        return {"steps": steps, "skipped": self.skipped, "row": self.row}

    def accept(self, loss: float, norm: float, scale: float = 1.0, kind: str = "") -> bool:
        """Whether the step with this loss (nats per token) and gradient norm is taken; call it once a step. ``kind`` is
        what most of the tokens are that it predicted.

        Gradients that overflow fp16 while the loss ``scale`` can be lowered are left out too, and say nothing of a run.
        """
        last = self.steps.setdefault(kind, deque(maxlen=self.config.window))
        if overflow := math.isfinite(loss) and not math.isfinite(norm) and scale > 1:
            self.reason = f"gradients overflow fp16 at a loss scale of {scale:g}, which is halved"
        else:
            self.reason = self._fault(loss, norm, last)
        if self.reason:
            self.skipped += 1
            self.row += not overflow
        else:
            self.row = 0
            last.append((loss, norm))
        return not self.reason

    @property
    def spent(self) -> bool:
        """Whether too many steps in a row were left out."""
        return self.row >= self.config.patience

    def check(self, step: int) -> None:
        """TrainingError if it is `spent`."""
        if self.spent:
            raise TrainingError(
                f"step {step}: the last {self.row} steps were left out, this one as its {self.reason}. Resume from the "
                "last checkpoint with a lower optimizer.lr, a longer optimizer.warmup, a lower optimizer.clip, or "
                "engine.dtype=fp32 if it was another; if such steps are sound, raise guard.norm, guard.loss or "
                "guard.patience"
            )

    def _fault(self, loss: float, norm: float, last: Sequence[tuple[float, float]]) -> str:
        for name, value in (("loss", loss), ("gradient norm", norm)):
            if not math.isfinite(value):
                return f"{name} is not finite"
        if len(last) * 2 < self.config.window:
            return ""
        usual_loss, usual_norm = map(statistics.median, zip(*last, strict=True))
        if self.config.loss and loss > usual_loss + self.config.loss:
            return f"loss {loss:.4g} lies {self.config.loss:g} nats above the last steps' {usual_loss:.4g}"
        if self.config.norm and norm > usual_norm * self.config.norm:
            return f"gradient norm {norm:.4g} is {self.config.norm:g} times the last steps' {usual_norm:.4g}"
        return ""
