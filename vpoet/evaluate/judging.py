"""Sets of clips made for the same prompts, judged side by side: prompts followed, distances to real clips, copies.

Everything is counted for *parts* of the prompts, each under a label: each folder that they came from, and those that
state something together.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from PIL import Image

from vpoet.arrays import Doubles, Frames
from vpoet.errors import DataError
from vpoet.evaluate.adherence import Prompt, shares, stating, table, wrong
from vpoet.evaluate.conditions import Asked
from vpoet.evaluate.distances import NAME, NEAR, clip_features, frechet
from vpoet.evaluate.intervals import mean_interval
from vpoet.generate.likelihood import Likelihood
from vpoet.generate.model import Model
from vpoet.media.sheet import contact_sheet
from vpoet.media.video import Video
from vpoet.nn.features import EfficientNetLite0
from vpoet.processes import Processes

SHEET_ROWS = 16
REAL = "real clips"
CEILING = f"{REAL}, through the tokenizer"

Parts = Mapping[str, Sequence[int]]
"""Of each label, the positions of its prompts."""


def parts(sets: Mapping[str, Sequence[Asked]], apart: Sequence[str] = ()) -> dict[str, Sequence[int]]:
    """The parts of all prompts in order, by set and by what those of each ``apart`` state (`adherence.stating`).

    DataError: ``apart`` is asked for, and no world drew some of the clips."""
    every = [one for group in sets.values() for one in group]
    asked = [one for one in every if isinstance(one, Prompt)]
    if apart and len(asked) < len(every):
        raise DataError(f"--apart {apart[0]}: only the clips of a world say what their prompts state")
    ends = accumulate(len(prompts) for prompts in sets.values())
    found: dict[str, Sequence[int]] = {
        label: range(end - len(sets[label]), end) for label, end in zip(sets, ends, strict=True)
    }
    return found | {given: stating(asked, given) for given in apart}


class Judging:
    """Each set of clips has one clip for each prompt; ``rows`` are what was found, by the sets' names."""

    def __init__(self, asked: Sequence[Prompt], parts: Parts, network: EfficientNetLite0 | None = None) -> None:
        """With a ``network``, its distances to the real clips are counted too."""
        self.rows: dict[str, dict[str, Any]] = {}
        self._asked, self._parts, self._network = asked, parts, network
        # halves of the prompts: no clip is compared with its own original
        self._first = clip_features(network, [prompt.real for prompt in asked[0::2]]) if network else {}

    def add(self, name: str, clips: Sequence[Frames], seen: Sequence[Mapping[str, str]]) -> None:
        """A set of clips, and what each shows."""
        stated = [prompt.stated for prompt in self._asked]
        parts = self._parts.items()
        following = {label: shares([stated[i] for i in part], [seen[i] for i in part]) for label, part in parts}
        self.rows[name] = {"following": following}
        if self._network:
            second = clip_features(self._network, clips[1::2])
            self.rows[name]["distance"] = {what: frechet(self._first[what], second[what]) for what in second}

    def add_nearest(self, name: str, found: tuple[Doubles, list[str]], held_out: Doubles) -> None:
        """What `nearest` found of a set's clips, beside the distances of clips that were held out."""
        distances, keys = found
        closest = int(distances.argmin())
        self.rows[name]["nearest"] = {
            "median": float(np.median(distances)),
            "least": float(distances[closest]),
            "least_pair": [self._asked[closest].key, keys[closest]],
            "nearer_than_5_percent_of_held_out": float((distances < np.percentile(held_out, NEAR)).mean()),
            "median_of_held_out": float(np.median(held_out)),
            "least_of_held_out": float(held_out.min()),
        }

    def sheet(self, label: str, clips: Sequence[Frames], seen: Sequence[Mapping[str, str]]) -> Image.Image:
        """The first clips of a part, each with its prompt and what is wrong about it."""
        shown = self._parts[label][:SHEET_ROWS]
        return contact_sheet([(_mark(self._asked[i], seen[i]), clips[i]) for i in shown], max_frames=9, scale=2)

    def markdown(self, bits: Mapping[str, float], other: Mapping[str, tuple[float, float]]) -> str:
        """All rows; ``bits`` and ``other`` are what `prompt_bits` gave."""
        lines = []
        for label, part in self._parts.items():
            lines += [f"\n{bits_in_words({label: part}, bits, other)}"]
            lines += [table({name: row["following"][label] for name, row in self.rows.items()})]
        for name, row in self.rows.items():
            if "distance" in row:
                values = ", ".join(f"{what} {value:.4g}" for what, value in row["distance"].items())
                floor = " (the floor)" if name == REAL else ""
                lines += [f"\n{NAME}, {len(self._asked) // 2} clips, {name}{floor}: {values}"]
            if "nearest" in row:
                figures = ", ".join(f"{what.replace('_', ' ')} {value}" for what, value in row["nearest"].items())
                lines += [f"\nnearest training clips, {name}: {figures}"]
        return "\n".join(lines).strip() + "\n"


def bits_in_words(parts: Parts, bits: Mapping[str, float], other: Mapping[str, tuple[float, float]]) -> str:
    """What `prompt_bits` gave of each part."""
    return (
        "".join(
            f"\n{label}: {len(part)} prompts, {bits[label]:.3f} bits per token on real clips;\n"
            f"another clip's prompt costs {other[label][0]:.1f} (± {other[label][1]:.1f}) more bits per clip\n"
            for label, part in parts.items()
        ).strip("\n")
        + "\n"
    )


def prompt_bits(
    model: Model, asked: Sequence[Asked], parts: Parts, everyone: Processes = Processes()
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Of each part: bits per token of the real clips under their own prompts; and what a clip costs more under the
    prompt before it, in bits: (mean, half of its 95% interval). Several processes share the clips."""
    numbers = range(len(asked))

    def cost(i: int, j: int) -> Likelihood:
        return model.score(Video(asked[i].real, asked[i].fps), asked[j].text)

    own = everyone.each(lambda i: cost(i, i), numbers)
    other = everyone.each(lambda i: cost(i, i - 1), numbers)
    costs = [foreign.total.bits - mine.total.bits for foreign, mine in zip(other, own, strict=True)]
    per_token = {
        label: float(sum(own[i].total.bits for i in part) / sum(own[i].tokens for i in part))
        for label, part in parts.items()
    }
    return per_token, {label: mean_interval([costs[i] for i in part]) for label, part in parts.items()}


def _mark(prompt: Prompt, seen: Mapping[str, str]) -> str:
    """The prompt, and what is wrong about its clip."""
    found = [f"{name}: {value or 'none'}" for name, value in wrong(prompt.stated, seen).items()]
    return f"[{'WRONG' if found else 'right'}] {prompt.text}{' -> ' if found else ''}{', '.join(found)}"
