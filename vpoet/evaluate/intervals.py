"""Runs that differ by their seed as one line, with an interval; a table of such lines; and quantisers as a picture."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

NORMAL = 1.959964
"""97.5% quantile of the normal distribution."""
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""The same of Student's t, for 1 to 9 degrees of freedom."""

Line = Mapping[str, Any]


def student(degrees: int) -> float:
    """97.5% quantile of Student's t."""
    if degrees <= len(STUDENT):
        return STUDENT[degrees - 1]
    # beyond the table the expansion in 1 / degrees (Abramowitz and Stegun, 26.7.5), good to 0.1%
    first, second = (NORMAL**3 + NORMAL) / 4, (5 * NORMAL**5 + 16 * NORMAL**3 + 3 * NORMAL) / 96
    return NORMAL + first / degrees + second / degrees**2


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95% interval by Student's t: NaN for one value."""
    mean, degrees = statistics.mean(values), len(values) - 1
    if degrees < 1:
        return mean, math.nan
    return mean, student(degrees) * statistics.stdev(values) / math.sqrt(len(values))


def clustered_interval(values: Sequence[float], clusters: Sequence[Any]) -> tuple[float, float]:
    """Mean, and half the width of its 95% interval if only the clusters, a label each value, are independent.

    Clips of one video are alike, and count almost as one. The linearised variance of cluster sampling (Cochran, 1977,
    11.8), with Student's t; `mean_interval` where no two values share a cluster, NaN for one cluster.
    """
    mean, sums = statistics.fmean(values), dict.fromkeys(clusters, 0.0)
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] += value - mean
    count = len(sums)
    if count < 2:
        return mean, math.nan
    variance = count / (count - 1) * sum(each**2 for each in sums.values()) / len(values) ** 2
    return mean, student(count - 1) * math.sqrt(variance)


def over_seeds(rows: Sequence[Line], alike: Sequence[str], scores: Sequence[str]) -> list[dict[str, Any]]:
    """A line for all rows with equal values of ``alike``, in the order of the first.

    It has these values, the rows' number as "seeds", and of each score the mean, by its name, and NAME_interval.
    """
    groups: dict[tuple[Any, ...], list[Line]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in alike), []).append(row)
    lines = []
    for values, group in groups.items():
        line = dict(zip(alike, values, strict=True)) | {"seeds": len(group)}
        for score in scores:
            line[score], line[f"{score}_interval"] = mean_interval([row[score] for row in group])
        lines.append(line)
    return lines


def markdown(lines: Sequence[Line], columns: Mapping[str, tuple[str, str]]) -> str:
    """A table; a column is key -> (heading, format, as "{:.2f}"), and a score's interval stands behind it after ±."""
    left = [bool(lines) and isinstance(lines[0][key], str) for key in columns]
    rows = [[heading for heading, _ in columns.values()], ["---" if text else "--:" for text in left]]
    for line in lines:
        cells = []
        for key, (_, form) in columns.items():
            half = line.get(f"{key}_interval", math.nan)
            cells.append(form.format(line[key]) + ("" if math.isnan(half) else f" ± {form.format(half)}"))
        rows.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def plot_quantisers(lines: Sequence[Line], path: str | Path) -> None:
    """Use of the codebook and PSNR over its size, a curve a variant; by suffix a .png, .svg or .pdf.

    A line has variant, codes (size of the codebook), held_out_codes (how many were counted), and use and psnr with
    their intervals. The dashed curve is the share that as many codes from a uniform source would cover.
    """
    from matplotlib.figure import Figure  # here: importing it takes longer than reading the results
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(9.6, 4.0), layout="constrained")
    panels = figure.subplots(1, 2)
    for variant in dict.fromkeys(line["variant"] for line in lines):
        curve = sorted((line for line in lines if line["variant"] == variant), key=lambda line: int(line["codes"]))
        places = [math.log2(line["codes"]) for line in curve]
        for axes, score in zip(panels, ("use", "psnr"), strict=True):
            means, halves = [line[score] for line in curve], [line[f"{score}_interval"] for line in curve]
            axes.errorbar(places, means, halves, marker="o", markersize=4, capsize=3, linewidth=1.2, label=variant)
    if lines:
        counted = max(line["held_out_codes"] for line in lines)
        sizes = np.geomspace(min(line["codes"] for line in lines), max(line["codes"] for line in lines))
        covered = -np.expm1(counted * np.log1p(-1 / sizes))
        panels[0].plot(np.log2(sizes), covered, "--", color="grey", label=f"{counted:,} codes of a uniform source")
    panels[0].yaxis.set_major_formatter(PercentFormatter(1))
    panels[0].set_ylim(0, 1.05)
    for axes, label in zip(panels, ("codes in use on held-out windows", "held-out PSNR in dB"), strict=True):
        axes.set_xlabel("codebook, log2")
        axes.set_ylabel(label)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
