"""The curves of a run over its steps: losses and scores, and how fast it was."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vpoet.errors import DataError
from vpoet.evaluate.plots import Curve, Panel, panels_figure, save
from vpoet.sequence.document import KINDS
from vpoet.training.run.tracking import read_numbers

_SPLITS = ("train/", "heldout/", "held_out/")
_TRAINED, _HELD_OUT = "training", "held out"


def draw_learning(metrics: Path, picture: Path) -> int:
    """Draw the losses and scores of a ``metrics.jsonl`` into ``picture`` (.png, .svg, .pdf); return its last step.

    DataError if it has no curves.
    """
    try:
        rows = read_numbers(metrics)
    except OSError as error:
        raise DataError(f"{metrics}: not readable: {error.strerror}; a run folder has one") from None
    series = {name: curve for name, curve in _curves(rows).items() if name.startswith(_SPLITS)}
    if not series:
        raise DataError(f"{metrics}: no curves yet")
    save(panels_figure([Panel(name, {"": curve}) for name, curve in series.items()]), picture)
    return int(rows[-1]["step"])


def learning_panels(rows: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """Losses and scores, training and held out on the same axes, by kind of token too; then how the optimiser fared."""
    series = _curves(rows)
    found = []
    if "train/loss" in series:
        unit = ", nats per token" if "train/bits" in series else ""
        found.append(_panel(f"loss{unit}", series, {"train/loss": _TRAINED, "heldout/loss": _HELD_OUT}, "log"))
    for split, words in (("train", _TRAINED), ("heldout", _HELD_OUT)):
        kinds = {f"{split}/{kind}_bits": kind for kind in KINDS}
        found.append(_panel(f"bits per token by kind, {words}", series, kinds, "log"))
    named = {"train/loss", "heldout/loss", "train/bits", "heldout/bits", "train/lr", "train/grad_norm", "train/skipped"}
    named |= {f"{split}/{kind}_{unit}" for split in ("train", "heldout") for kind in KINDS for unit in ("nats", "bits")}
    rest = {name.partition("/")[2] for name in series if name.startswith(_SPLITS) and name not in named}
    for score in sorted(rest):
        splits = zip((_TRAINED, _HELD_OUT, _HELD_OUT), _SPLITS, strict=True)
        found.append(_panel(score, series, {f"{split}{score}": label for label, split in splits}))
    found.append(_panel("gradient norm, before clipping", series, {"train/grad_norm": ""}, "log"))
    found.append(_panel("learning rate", series, {"train/lr": ""}))
    if any(series.get("train/skipped", ((), ()))[1]):
        found.append(_panel("steps left out so far", series, {"train/skipped": ""}))
    return [panel for panel in found if panel.curves]


def speed_panels(rows: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """What the meter read."""
    series = _curves(rows)
    found = [
        _panel("tokens per second", series, {"speed/tokens_per_second": ""}),
        _panel("clips per second", series, {"speed/clips_per_second": ""}),
        _panel("MFU", series, {"speed/mfu": ""}, "percent"),
        _panel(
            "time spent waiting, tokens spent on padding", series,
            {"speed/data_wait": "waiting for data", "speed/padding": "padding"}, "percent",
        ),
    ]  # fmt: skip
    return [panel for panel in found if panel.curves]


def _panel(title: str, series: Mapping[str, Curve], labels: Mapping[str, str], scale: Any = "plain") -> Panel:
    """Those of ``labels`` (metric -> label) that were measured; logarithmic where they span enough for it."""
    there = {label: series[name] for name, label in labels.items() if name in series}
    values = [value for _, measured in there.values() for value in measured]
    wide = bool(values) and min(values) > 0 and max(values) > 3 * min(values)
    return Panel(title, there, "plain" if scale == "log" and not wide else scale)


def _curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    """Every metric, in the order of names; steps where it is null or was not measured are left out."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        for name, value in row.items():
            if value is not None and name not in ("step", "time"):
                steps, values = found.setdefault(name, ([], []))
                steps.append(float(row["step"]))
                values.append(float(value))
    return dict(sorted(found.items()))
