"""The curves of a run: its losses and scores over the steps, without its speeds."""

from pathlib import Path

from vpoet.errors import DataError
from vpoet.evaluate.pictures import curves
from vpoet.training.tracking import read_metrics

_SPLITS = ("train/", "heldout/", "held_out/")


def draw_learning(metrics: Path, picture: Path) -> int:
    """Draw a ``metrics.jsonl`` into ``picture`` (.png, .svg, .pdf), and return its last step.

    DataError if it has no curves.
    """
    try:
        rows = read_metrics(metrics)
    except OSError as error:
        raise DataError(f"{metrics}: not readable: {error.strerror}; a run folder has one") from None
    series = {}
    for name in sorted({name for row in rows for name in row if name.startswith(_SPLITS)}):
        points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        series[name] = ([float(step) for step, _ in points], [float(value) for _, value in points])
    if not series:
        raise DataError(f"{metrics}: no curves yet")
    curves(series, picture)
    return int(rows[-1]["step"])
