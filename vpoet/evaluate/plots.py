"""Figures: curves on panels that share one look."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vpoet.errors import ShapeError
from vpoet.files import aside

POINTS = 300
"""Points that a curve is drawn with at most; a longer one is shown by means of so many stretches, and their range."""
SHEETS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
PLOTS = (".png", ".svg", ".pdf")
"""What contact sheets and curves are written as."""
Curve = tuple[Sequence[float], Sequence[float]]
"""Steps, ascending, and values."""


@dataclass(frozen=True)
class Panel:
    """Curves that share their axes, by label; an empty label is not shown."""

    title: str
    curves: Mapping[str, Curve]
    scale: Literal["plain", "log", "percent"] = "plain"


def curves(metrics: Mapping[str, Curve], path: str | Path) -> None:
    """Draw each metric on axes of its own, as `panels` does."""
    panels([Panel(name, {"": curve}) for name, curve in metrics.items()], path)


def panels(drawn: Sequence[Panel], path: str | Path) -> None:
    """Draw curves, three panels to a row; by suffix a .png, .svg or .pdf. Values that are not finite leave gaps."""
    if not drawn:
        raise ShapeError(f"{path}: no curves to draw")
    columns = min(3, len(drawn))
    lines = -(-len(drawn) // columns)
    from matplotlib.figure import Figure  # here: importing it takes longer than sampling a frame

    figure = Figure(figsize=(4.2 * columns, 2.8 * lines), layout="constrained")
    for index, panel in enumerate(drawn, start=1):
        axes = figure.add_subplot(lines, columns, index)
        for label, curve in panel.curves.items():
            _plot(axes, label, *(np.asarray(values, dtype=float) for values in curve))
        if any(panel.curves):
            axes.legend(fontsize=8, frameon=False)
        _scale(axes, panel)
        axes.set_title(panel.title, fontsize=9, loc="left")
        axes.grid(alpha=0.25)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    with aside(path) as fresh:
        figure.savefig(fresh, dpi=110)


def _plot(axes: Any, label: str, steps: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
    """A line, or for a long curve the means of its stretches over a shade from their least to their greatest value."""
    values = np.where(np.isfinite(values), values, np.nan)
    (line,) = axes.plot([], [], linewidth=1.2, label=label or None)
    if len(steps) > POINTS:
        stretches = np.array_split(np.arange(len(steps)), POINTS)
        kept = [part for part in stretches if np.isfinite(values[part]).any()]
        least, means, most = (
            [float(measure(values[part])) for part in kept] for measure in (np.nanmin, np.nanmean, np.nanmax)
        )
        steps, values = np.array([steps[part].mean() for part in kept]), np.array(means)
        axes.fill_between(steps, least, most, color=line.get_color(), alpha=0.2, linewidth=0)
    line.set_data(steps, values)
    line.set_marker("." if len(steps) < 30 else "")
    axes.relim()
    axes.autoscale_view()


def _scale(axes: Any, panel: Panel) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, PercentFormatter, StrMethodFormatter

    if panel.scale == "percent":
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        axes.set_ylim(bottom=0)
    elif panel.scale == "log" and any(value > 0 for _, values in panel.curves.values() for value in values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter("")
    else:
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
