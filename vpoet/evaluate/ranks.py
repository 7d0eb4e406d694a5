"""Whether two measures put things in the same order."""

from collections.abc import Sequence

import numpy as np

from vpoet.arrays import Doubles

Values = Sequence[float] | Doubles


def spearman(one: Values, other: Values) -> float:
    """The correlation of ranks (Spearman, 1904), equal values sharing theirs; NaN where all of one are equal."""
    a, b = (_ranks(np.asarray(values, np.float64)) for values in (one, other))
    if not a.std() or not b.std():
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def area(above: Values, below: Values) -> float:
    """The share of pairs in which the first is above, equal ones counting half: the area under the ROC curve (Hanley
    and McNeil, 1982)."""
    differences = np.subtract.outer(np.asarray(above, np.float64), np.asarray(below, np.float64))
    return float(((differences > 0) + 0.5 * (differences == 0)).mean())


def _ranks(values: Doubles) -> Doubles:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    middle: Doubles = (np.cumsum(count) - (count - 1) / 2)[place]
    return middle
