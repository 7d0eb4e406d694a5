"""Which steps are taken: one whose loss or gradient norm is not finite, or far above the last steps', is left out."""

import math
import statistics
from collections import deque
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
    """Steps that the medians are taken over; until half of them are there, nothing is a spike."""
    patience: int = 10
    """Steps left out in a row that end the run."""

    def __post_init__(self) -> None:
        if self.norm < 0 or self.loss < 0 or self.window < 2 or self.patience < 1:
            raise ConfigError("guard: norm and loss must be at least 0, window at least 2, patience at least 1")


class Guard:
    """Judges the steps of a run, in every process alike. Its state is in the checkpoint, so a resumed run judges as
    an unbroken one."""

    def __init__(self, config: GuardConfig, state: dict[str, Any] | None = None) -> None:
        state = state or {"losses": [], "norms": [], "skipped": 0, "row": 0}
        self.config = config
        self.losses: deque[float] = deque(state["losses"], config.window)
        self.norms: deque[float] = deque(state["norms"], config.window)
        self.skipped: int = state["skipped"]
        """Steps left out since the run began."""
        self.row: int = state["row"]
        """Steps left out in a row up to now, but for a loss scale too high."""
        self.reason = ""
        """Why the last step was left out; empty if it was not."""

    def state(self) -> dict[str, Any]:
        """Fit for JSON."""
        return {"losses": [*self.losses], "norms": [*self.norms], "skipped": self.skipped, "row": self.row}

    def accept(self, loss: float, norm: float, scale: float = 1.0) -> bool:
        """Whether the step with this loss (nats per token) and gradient norm is taken; call it once a step.

        Gradients that overflow fp16 while the loss ``scale`` can be lowered are left out too, and say nothing of a run.
        """
        if overflow := math.isfinite(loss) and not math.isfinite(norm) and scale > 1:
            self.reason = f"gradients overflow fp16 at a loss scale of {scale:g}, which is halved"
        else:
            self.reason = self._fault(loss, norm)
        if self.reason:
            self.skipped += 1
            self.row += not overflow
        else:
            self.row = 0
            self.losses.append(loss)
            self.norms.append(norm)
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

    def _fault(self, loss: float, norm: float) -> str:
        for name, value in (("loss", loss), ("gradient norm", norm)):
            if not math.isfinite(value):
                return f"{name} is not finite"
        if len(self.losses) * 2 < self.config.window:
            return ""
        usual_loss, usual_norm = statistics.median(self.losses), statistics.median(self.norms)
        if self.config.loss and loss > usual_loss + self.config.loss:
            return f"loss {loss:.4g} lies {self.config.loss:g} nats above the last steps' {usual_loss:.4g}"
        if self.config.norm and norm > usual_norm * self.config.norm:
            return f"gradient norm {norm:.4g} is {self.config.norm:g} times the last steps' {usual_norm:.4g}"
        return ""
