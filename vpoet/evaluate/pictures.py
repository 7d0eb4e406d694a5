"""Pictures for people: clips as rows of frames, and curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from vpoet.errors import ShapeError

GAP = 4
"""Pixels between frames and rows."""
TEXT_HEIGHT = 16
INK, PAPER = (32, 32, 32), (255, 255, 255)
POINTS = 300
"""Points that a curve is drawn with at most; a longer one is shown by means of so many stretches, and their range."""
Curve = tuple[Sequence[float], Sequence[float]]
"""Steps, ascending, and values."""


@dataclass(frozen=True)
class Panel:
    """Curves that share their axes, by label; an empty label is not shown."""

    title: str
    curves: Mapping[str, Curve]
    scale: Literal["plain", "log", "percent"] = "plain"


def contact_sheet(
    rows: Sequence[tuple[str, npt.NDArray[np.uint8]]], max_frames: int = 8, scale: int | None = None
) -> Image.Image:
    """One row a clip: its label, and below it ``max_frames`` frames at most, evenly spaced, first and last among them.

    A row is (label, uint8 [T, H, W, 3]); clips may differ in size and length. ``scale`` enlarges by whole pixels; by
    itself it brings the smallest clip to about 128 pixels of height.
    """
    if not rows or max_frames < 1:
        raise ShapeError(f"a contact sheet of {len(rows)} clips and {max_frames} frames would be empty")
    for label, frames in rows:
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
            raise ShapeError(f"{label}: frames are uint8 [T, H, W, 3] with T >= 1, not {frames.dtype} {frames.shape}")
    scale = scale or max(1, round(128 / min(frames.shape[1] for _, frames in rows)))

    strips = []
    for _, frames in rows:
        shown = np.linspace(0, len(frames) - 1, min(len(frames), max_frames)).round().astype(int)
        enlarged = frames[shown].repeat(scale, axis=1).repeat(scale, axis=2)
        strips.append(np.pad(enlarged, ((0, 0), (0, 0), (0, GAP), (0, 0)), constant_values=255).swapaxes(0, 1))
    strips = [strip.reshape(strip.shape[0], -1, 3) for strip in strips]  # [H, T * (W + GAP), 3]

    font = ImageFont.load_default(size=TEXT_HEIGHT - 4)
    texts = [int(font.getlength(label)) for label, _ in rows]
    width = GAP + max(*texts, *(strip.shape[1] for strip in strips))
    sheet = Image.new("RGB", (width, GAP + sum(strip.shape[0] + TEXT_HEIGHT + GAP for strip in strips)), PAPER)
    draw = ImageDraw.Draw(sheet)
    top = GAP
    for (label, _), strip in zip(rows, strips, strict=True):
        draw.text((GAP, top), label, fill=INK, font=font)
        sheet.paste(Image.fromarray(strip), (GAP, top + TEXT_HEIGHT))
        top += strip.shape[0] + TEXT_HEIGHT + GAP
    return sheet


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
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


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
