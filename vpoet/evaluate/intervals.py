"""95% intervals: of a mean, of one over clusters, of a share; and runs that differ by their seed as one line."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

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


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95% interval of a share (Wilson, 1927): good also near 0 and 1, where it matters here."""
    if not count:
        return math.nan, math.nan
    share, z = right / count, NORMAL**2 / count
    middle = (share + z / 2) / (1 + z)
    half = math.sqrt(z * share * (1 - share) + z * z / 4) / (1 + z)
    return max(0.0, middle - half), min(1.0, middle + half)


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
