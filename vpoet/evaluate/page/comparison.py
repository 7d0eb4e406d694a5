"""A comparison of two sets of clips as one HTML page, to be looked at: numbers, curves, clips, and what moved it."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vpoet.evaluate.compare.clips import Clip, prepared
from vpoet.evaluate.compare.compared import LOOKED, Compared, along, moved, pairs, terms
from vpoet.evaluate.compare.report import as_json, figure, page
from vpoet.evaluate.page.html import Listing, Picture, Section, Table, write_report
from vpoet.evaluate.plots import Panel, panels_figure, save
from vpoet.files import write_atomic
from vpoet.media.video import Video

SHOWN = 3
"""Clips or pairs at each end."""
RATE = 8.0
"""Frames per second at which clips are shown whose rate nobody knows."""


def publish(found: Compared, out: Path) -> dict[str, Any]:
    """Write compare.md, compare.json, compare.png and compare.html into a folder; what is in the second of them."""
    result = as_json(found.protocol, found.rows, found.points)
    write_atomic(out / "compare.md", page(found.protocol, found.about, found.rows, found.notes))
    write_atomic(out / "compare.json", json.dumps(result, indent=1) + "\n")
    save(figure(found.protocol, found.points), out / "compare.png")
    with tempfile.TemporaryDirectory() as scratch:
        sections = comparison_sections(found, out / "compare.png", Path(scratch))
        write_report(out / "compare.html", found.about, sections)
    return result


def comparison_sections(found: Compared, over_clips: Path, scratch: Path) -> list[Section]:
    """The page, with the picture of the distance ``over_clips``; what else is drawn for it goes to ``scratch``. Clips
    that are shown are read once more."""
    heads = ["measure", "value", "95%", "clips", "protocol"]
    rows = [
        [row.measure, f"{row.value:.4g}", "" if row.half is None else f"± {row.half:.3g}", row.clips, row.protocol]
        for row in found.rows
    ]
    told = "\n".join(f"{name}: {value}" for name, value in found.protocol.told().items())
    curve = Picture(over_clips, "the distance over the number of clips, beside its floor")
    notes = [line.strip() for line in found.notes]
    return [
        Section("Numbers", [Table(heads, rows), *notes, Listing(f"Protocol {found.protocol.id}", told)]),
        Section("Over the number of clips", [[curve]]),
        _movers(found, scratch),
        _beside(found, scratch),
    ]


def _movers(found: Compared, scratch: Path) -> Section:
    means, spreads = terms(found)
    whole = max(means + spreads, float(np.finfo(np.float64).tiny))
    real, fake = along(found)
    percents = [float(at) for at in np.linspace(0, 100, len(real))]
    curves = {
        "samples": (percents, [float(value) for value in np.sort(fake)]),
        "real clips": (percents, [float(value) for value in np.sort(real)]),
    }
    save(panels_figure([Panel("from the real mean (0) to the samples' (1), by percentile", curves)]), scratch / "l.svg")
    far, back = ([int(at) for at in np.argsort(values)[:SHOWN]] for values in (-fake, real))
    sizes = [[name, f"{a:.2f}", f"{b:.2f}", f"{d:+.2f}"] for name, a, b, d in moved(found)]
    return Section(
        "What moved the distance",
        [
            f"Of the Frechet distance {means / whole:.0%} is that of the means ({means:.4g}): samples differ from real "
            f"clips on the whole. {spreads / whole:.0%} is that of the covariances ({spreads:.4g}): they vary in other "
            "ways, or less, or there are too few clips to tell.",
            f"What their pixels are like, of {LOOKED} clips of each set at most; the difference is in deviations of a "
            "real clip.",
            Table(["", "real clips", "samples", "difference"], sizes),
            "Along the line that joins the means, the samples that are farthest on and the real clips that are "
            "farthest back: what the network sees in the first and misses, or the reverse.",
            _clips(found, far, False, "sample", scratch / "far"),
            _clips(found, back, True, "real", scratch / "back"),
            [Picture(scratch / "l.svg", "where all clips lie on that line")],
        ],
    )


def _beside(found: Compared, scratch: Path) -> Section:
    ranked = pairs(found)
    parts: list[Any] = []
    for words, some in (("Nearest", ranked[:SHOWN]), ("Farthest", ranked[-SHOWN:][::-1])):
        shown: list[Picture] = []
        for sample, real, distance in some:
            folder = scratch / f"{words}-{sample}"
            shown += _clips(found, [sample], False, f"sample, {distance:.3g} from", folder / "sample")
            shown += _clips(found, [real], True, "real", folder / "real")
        parts += [f"{words}:", shown]
    told = "Samples beside the real clip of their own name, or if there is none the nearest; by distance in features."
    return Section("Best and worst pairs", [told, *parts])


def _clips(found: Compared, which: Sequence[int], real: bool, words: str, folder: Path) -> list[Picture]:
    """Clips as the protocol has them, in a form that browsers play."""
    folder.mkdir(parents=True)
    clips: Sequence[Clip] = found.real if real else found.fake
    pictures = []
    for at in which:
        video = prepared(clips[at], found.protocol, real)
        path = folder / f"{at}{'.mp4' if len(video) > 1 else '.png'}"
        Video(video.frames, video.fps or RATE).write(path)
        pictures.append(Picture(path, f"{words}: {clips[at].name}"))
    return pictures
