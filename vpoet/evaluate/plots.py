"""All figures, in one look. Each function returns one; `save` writes it, by suffix a .png, .svg or .pdf."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from vpoet.errors import ShapeError
from vpoet.files import aside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vpoet.evaluate.codecs import RatePoint, TokenizerPoint
    from vpoet.evaluate.drift import Estimate
    from vpoet.evaluate.scaling import Prediction
    from vpoet.generate.likelihood import Likelihood

POINTS = 300
"""Points that a curve is drawn with at most; a longer one is shown by means of so many stretches, and their range."""
SHEETS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
PLOTS = (".png", ".svg", ".pdf")
"""What contact sheets and figures are written as."""
SMALL, THIN = 8, 1.2
"""Points: of labels and legends, and of lines."""
Curve = tuple[Sequence[float], Sequence[float]]
"""Steps, ascending, and values."""


@dataclass(frozen=True)
class Panel:
    """Curves that share their axes, by label; an empty label is not shown."""

    title: str
    curves: Mapping[str, Curve]
    scale: Literal["plain", "log", "percent"] = "plain"


def save(figure: "Figure", path: str | Path) -> None:
    """Write a figure, whole or not at all."""
    with aside(path) as fresh:
        figure.savefig(fresh, dpi=110)


def panels_figure(drawn: Sequence[Panel]) -> "Figure":
    """Curves, three panels to a row. Values that are not finite leave gaps."""
    if not drawn:
        raise ShapeError("no curves to draw")
    columns = min(3, len(drawn))
    rows = -(-len(drawn) // columns)
    figure = _figure(4.2 * columns, 2.8 * rows)
    for index, panel in enumerate(drawn, start=1):
        axes = _axes(figure.add_subplot(rows, columns, index), panel.title)
        for label, curve in panel.curves.items():
            _plot(axes, label, *(np.asarray(values, dtype=float) for values in curve))
        if any(panel.curves):
            axes.legend(fontsize=SMALL, frameon=False)
        _scale(axes, panel)
    return figure


def surprise_figure(scores: Sequence[tuple[str, "Likelihood"]]) -> "Figure":
    """Mean bits of the codes of each cell in time, as a step over the frames that it stands for, a line for each label.

    What was given leaves a gap.
    """
    if not scores:
        raise ShapeError("no scores to draw")
    figure = _figure(8, 3 + 0.2 * len(scores))
    axes = _axes(figure.add_subplot(), "", "frame", "bits per token")
    lines = [axes.stairs(score.surprise, score.edges, baseline=None, linewidth=1.6) for _, score in scores]
    axes.set_xlim(0, max(score.edges[-1] for _, score in scores))
    labels = [label for label, _ in scores]
    legend = figure.legend(lines, labels, loc="outside lower left", fontsize=SMALL, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a prompt is no formula
    return figure


def rates_figure(
    curves: Mapping[str, Sequence["RatePoint"]], tokenizers: Mapping[str, "TokenizerPoint"], title: str = ""
) -> "Figure":
    """PSNR over bits per pixel (logarithmic): curves of codecs, and one row of points per tokenizer."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    figure = _figure(6.4, 4.4)
    axes = _axes(figure.add_subplot(), title, "bits per pixel", "PSNR in dB")
    for label, points in curves.items():
        ordered = sorted(points, key=lambda point: point.bits_per_pixel)
        rates, values = [point.bits_per_pixel for point in ordered], [point.psnr for point in ordered]
        axes.plot(rates, values, linewidth=THIN, marker=".", label=label)
    for index, (label, point) in enumerate(tokenizers.items(), start=len(curves)):
        colour, dB = f"C{index % 10}", point.psnr
        rates = [rate for rate in (point.as_they_come, point.by_frequency, point.by_model) if rate is not None]
        axes.plot([min(rates), max(rates)], [dB, dB], color=colour, linewidth=0.8)
        axes.plot(point.as_they_come, dB, "o", color=colour, label=label)
        axes.plot(point.by_frequency, dB, "o", color=colour, markerfacecolor="white", label=f"{label}, entropy-coded")
        if point.by_model is not None:
            axes.plot(point.by_model, dB, "D", color=colour, label=f"{label}, by a model")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend(fontsize=SMALL, frameon=False)
    return figure


def quantisers_figure(lines: Sequence[Mapping[str, Any]]) -> "Figure":
    """Use of the codebook and PSNR over its size, a curve for each variant.

    A line has variant, codes (size of the codebook), held_out_codes (how many were counted), and use and psnr with
    their intervals. The dashed curve is the share that as many codes from a uniform source would cover.
    """
    from matplotlib.ticker import PercentFormatter

    figure = _figure(9.6, 4.0)
    labels = ("codes in use on held-out windows", "held-out PSNR in dB")
    panels = [_axes(figure.add_subplot(1, 2, at), "", "codebook, log2", label) for at, label in enumerate(labels, 1)]
    for variant in dict.fromkeys(line["variant"] for line in lines):
        curve = sorted((line for line in lines if line["variant"] == variant), key=lambda line: int(line["codes"]))
        places = [math.log2(line["codes"]) for line in curve]
        for axes, score in zip(panels, ("use", "psnr"), strict=True):
            means, halves = [line[score] for line in curve], [line[f"{score}_interval"] for line in curve]
            axes.errorbar(places, means, halves, marker="o", markersize=4, capsize=3, linewidth=THIN, label=variant)
    if lines:
        counted = max(line["held_out_codes"] for line in lines)
        sizes = np.geomspace(min(line["codes"] for line in lines), max(line["codes"] for line in lines))
        covered = -np.expm1(counted * np.log1p(-1 / sizes))
        panels[0].plot(np.log2(sizes), covered, "--", color="grey", label=f"{counted:,} codes of a uniform source")
    panels[0].yaxis.set_major_formatter(PercentFormatter(1))
    panels[0].set_ylim(0, 1.05)
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=6, fontsize=SMALL, frameon=False)
    return figure


def law_figure(found: "Prediction") -> "Figure":
    """The runs, the law through them, and its interval for the run that was asked about."""
    figure = _figure(5.6, 3.6)
    axes = _axes(figure.add_subplot(), "", "FLOPs of training", "held-out bits per token")
    law, (flops, bits) = found.law, zip(*found.runs.values(), strict=True)
    line = np.geomspace(min(flops) / 1.5, found.asked * 1.5)
    axes.plot(line, law.floor + law.scale * line**-law.slope, linewidth=THIN, label="law")
    axes.plot(flops, bits, "o", markersize=5, label="runs")
    below, above = law.bits - law.interval[0], law.interval[1] - law.bits
    axes.errorbar([found.asked], [law.bits], [[below], [above]], fmt="s", capsize=4, label="predicted")
    axes.set_xscale("log")
    axes.legend(fontsize=SMALL, frameon=False)
    return figure


def drift_figure(
    curve: Sequence[tuple[int, Mapping[str, "Estimate"]]], panels: Mapping[str, Sequence[str]]
) -> "Figure":
    """Measures over the frames of rollouts, with 95% intervals; a panel is title -> names of measures.

    A panel of one measure is of differences to real clips, whose place is the dashed line; others are of shares.
    """
    if len(curve) < 2:
        raise ShapeError(f"a curve of {len(curve)} segments; a longer clip has more")
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = _figure(4.0 * columns, 2.8 * rows)
    frames = [frame for frame, _ in curve]
    for index, (title, names) in enumerate(panels.items(), start=1):
        axes = _axes(figure.add_subplot(rows, columns, index), title, "frame")
        for name, style in zip(names, ("-", "--", ":", "-."), strict=False):  # lines that coincide are all to be seen
            mean, low, high = zip(*(each[name] for _, each in curve), strict=True)
            (line,) = axes.plot(frames, mean, style, linewidth=1.6, label=name.partition("_")[2])
            axes.fill_between(frames, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        if len(names) == 1:
            axes.axhline(0, color="0.3", linestyle="--", linewidth=1)
        else:
            axes.set_ylim(0, 1.03)
            axes.legend(fontsize=SMALL, frameon=False, loc="lower left")
    return figure


def _figure(width: float, height: float) -> "Figure":
    """Inches."""
    from matplotlib.figure import Figure  # here: importing it takes longer than sampling a frame

    return Figure(figsize=(width, height), layout="constrained")


def _axes(axes: Any, title: str, x: str = "", y: str = "") -> Any:
    """What all axes look like."""
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xlabel(x, fontsize=SMALL)
    axes.set_ylabel(y, fontsize=SMALL)
    axes.tick_params(labelsize=SMALL)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _plot(axes: Any, label: str, steps: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
    """A line, or for a long curve the means of its stretches over a shade from their least to their greatest value."""
    values = np.where(np.isfinite(values), values, np.nan)
    (line,) = axes.plot([], [], linewidth=THIN, label=label or None)
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
