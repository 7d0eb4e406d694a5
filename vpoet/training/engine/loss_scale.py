"""Loss scaling for fp16, where small gradients would be lost: Mixed Precision Training, arXiv:1710.03740, section 3.2.

The scale is as large as gradients allow: halved when they overflow, doubled after a thousand steps without. Both
engines have it from this one class. DeepSpeed's own divides the gradients of the step in which it doubles by the new
scale (0.19.8), and gives up at a scale of 1.
"""

import math
from typing import Any

START = 2.0**16
WINDOW = 1000
"""Steps without an overflow after which the scale is doubled."""


class LossScale:
    """What the loss of a step is multiplied with; 1 for good unless ``used``. Its state is in the checkpoint."""

    def __init__(self, used: bool) -> None:
        self.used = used
        self.scale = START if used else 1.0
        self.calm = 0
        """Steps since the last change."""

    def update(self, norm: float) -> None:
        """After a step with this gradient norm, infinite if a gradient was not finite."""
        if not self.used:
            return
        if math.isfinite(norm):
            self.calm += 1
            if self.calm == WINDOW:
                self.scale, self.calm = 2 * self.scale, 0
        else:
            self.scale, self.calm = max(1.0, self.scale / 2), 0

    def state(self) -> dict[str, Any] | None:
        """Fit for JSON; none if not used."""
        return {"scale": self.scale, "calm": self.calm} if self.used else None

    def load(self, state: dict[str, Any] | None) -> None:
        """The inverse of `state`; what another type of arithmetic left is nothing to go on from."""
        if self.used and state is not None:
            self.scale, self.calm = state["scale"], state["calm"]
