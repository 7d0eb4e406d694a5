"""What a run came to, in a few numbers, from the rows of its ``metrics.jsonl``."""

import math
from collections.abc import Mapping
from typing import Any

RATES = ("tokens_per_second", "mfu", "padding", "data_wait")
"""What `vpoet.training.meter.Meter` reads, as means over the run; padding over its tokens, the others over its time."""


class Summary:
    """Rows in, in the order of their steps; `facts` at any time.

    A reading of the meter stands for the steps since the one before it, so the few steps between a stop and the reading
    before it count at the speed of the next.
    """

    def __init__(self, tokens_per_step: int = 0) -> None:
        self._tokens_per_step = tokens_per_step
        self._step = self._read = 0
        self._last: dict[str, float] = {}
        self._best: dict[str, float] = {}
        self._sums = dict.fromkeys(RATES, 0.0)
        self._seconds = self._positions = 0.0

    def add(self, row: Mapping[str, Any]) -> None:
        """One row of metrics; a value that is not finite, or null, counts as not there."""
        self._step = int(row["step"])
        known = {name: float(value) for name, value in row.items() if value is not None and math.isfinite(value)}
        self._last |= known
        if (loss := known.get("heldout/loss")) is not None and loss < self._best.get("heldout_loss", math.inf):
            self._best = {"heldout_loss": loss, "heldout_bits": loss / math.log(2), "step": float(self._step)}
        if "speed/seconds_per_step" in known:
            self._meter(known)

    def _meter(self, row: Mapping[str, float]) -> None:
        seconds = row["speed/seconds_per_step"] * (self._step - self._read)
        tokens = row.get("speed/tokens_per_second", 0.0) * seconds
        for name in RATES:
            self._sums[name] += row.get(f"speed/{name}", 0.0) * (tokens if name == "padding" else seconds)
        self._seconds += seconds
        self._positions += tokens
        self._read = self._step

    def facts(self) -> dict[str, float]:
        """``final/``, ``best/``, ``total/`` and ``mean/`` numbers, as far as the rows have them.

        Tokens are those of the packs, padding among them; hours are of training steps alone, without evaluations.
        """
        facts = {"total/steps": float(self._step)}
        if self._tokens_per_step:
            facts["total/tokens"] = float(self._step * self._tokens_per_step)
        if self._seconds:
            facts["total/hours"] = self._seconds / 3600
        for name in ("train/loss", "train/bits", "heldout/loss", "heldout/bits"):
            if name in self._last:
                facts[f"final/{name.replace('/', '_')}"] = self._last[name]
        facts |= {f"best/{name}": value for name, value in self._best.items()}
        if "train/skipped" in self._last:
            facts["total/skipped"] = self._last["train/skipped"]
        if self._positions:
            weights = {name: self._positions if name == "padding" else self._seconds for name in RATES}
            facts |= {f"mean/{name}": self._sums[name] / weights[name] for name in RATES}
        return facts


def table(facts: Mapping[str, float], start: Mapping[str, Any]) -> list[tuple[str, str]]:
    """`Summary.facts` and the facts of the run's newest start as people read them: (what, how much)."""
    lines = [("steps", f"{facts['total/steps']:,.0f}")]
    if "total/tokens" in facts:
        padded = f", {facts['mean/padding']:.1%} of them padding" if "mean/padding" in facts else ""
        lines.append(("tokens", f"{facts['total/tokens']:,.0f}{padded}"))
    for name, words in (("train", "training loss, last"), ("heldout", "held-out loss, last")):
        if f"final/{name}_loss" in facts:
            bits = f", {facts[f'final/{name}_bits']:.3f} bits per token" if f"final/{name}_bits" in facts else ""
            lines.append((words, f"{facts[f'final/{name}_loss']:.4f}{' nats' if bits else ''}{bits}"))
    if "best/heldout_loss" in facts:
        bits = f"{facts['best/heldout_loss']:.4f} nats, {facts['best/heldout_bits']:.3f} bits per token"
        lines.append(("held-out loss, best", f"{bits}, at step {facts['best/step']:,.0f}"))
    if "total/skipped" in facts:
        lines.append(("steps left out", f"{facts['total/skipped']:,.0f}"))
    if "total/hours" in facts:
        lines.append(("hours of training", f"{facts['total/hours']:.2f}"))
    if "mean/tokens_per_second" in facts:
        lines.append(("tokens per second", f"{facts['mean/tokens_per_second']:,.0f}"))
        lines.append(("MFU", f"{facts['mean/mfu']:.1%} of the matrix product's speed, measured as the run starts"))
        lines.append(("waiting for data", f"{facts['mean/data_wait']:.2%} of the time"))
    for name, value in start.items():
        lines.append((name.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value)))
    return lines
