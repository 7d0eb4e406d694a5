"""A picture of what a model did not expect, over the time of a clip."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vpoet.errors import ShapeError
from vpoet.generate.likelihood import Likelihood

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def surprise_figure(scores: Sequence[tuple[str, Likelihood]]) -> "Figure":
    """Mean bits of the codes of each cell in time, as a step over the frames that it stands for; a line a label.

    What was given leaves a gap. ``savefig`` writes the figure, by suffix a .png, .svg or .pdf.
    """
    if not scores:
        raise ShapeError("no scores to draw")
    from matplotlib.figure import Figure  # here: importing it takes longer than scoring a clip

    figure = Figure(figsize=(8, 3 + 0.2 * len(scores)), layout="constrained")
    axes = figure.add_subplot()
    lines = [axes.stairs(score.surprise, score.edges, baseline=None, linewidth=1.6) for _, score in scores]
    axes.set_xlim(0, max(score.edges[-1] for _, score in scores))
    axes.set_xlabel("frame")
    axes.set_ylabel("bits a token")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    legend = figure.legend(lines, [label for label, _ in scores], loc="outside lower left", fontsize=8, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a prompt is no formula
    return figure
