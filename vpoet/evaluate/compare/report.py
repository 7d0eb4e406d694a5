"""What a comparison found, as rows that each name their protocol, as a page of Markdown, and as a figure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from vpoet.arrays import Doubles, Frames
from vpoet.errors import DataError
from vpoet.evaluate.compare.clips import Clip, prepared
from vpoet.evaluate.compare.kept import Kept, Watched
from vpoet.evaluate.compare.measures import (
    LEAST,
    Point,
    bootstrap,
    curve,
    distances,
    diversity,
    mmd,
    mmd_bootstrap,
    spread,
)
from vpoet.evaluate.compare.protocol import Protocol
from vpoet.evaluate.distances import NEAR, frechet
from vpoet.evaluate.intervals import NORMAL, mean_interval
from vpoet.evaluate.pixels import flicker, psnr, ssim
from vpoet.evaluate.plots import Panel, panels_figure
from vpoet.evaluate.tables import markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PairMeasure = Callable[[Frames, Frames], float]
"""Of two clips uint8 [T, H, W, 3], the original first."""


@dataclass(frozen=True)
class Row:
    """One figure. ``half`` is half the width of its 95% interval, None where there is none."""

    measure: str
    value: float
    half: float | None
    clips: str
    protocol: str
    """The protocol's id."""


def taken(real: Sequence[object], fake: Sequence[object], protocol: Protocol) -> int:
    """How many clips of each set are compared. DataError: a set has too few; none is ever taken twice."""
    least = max(LEAST, protocol.count)
    for name, clips in (("REAL", real), ("FAKE", fake)):
        if len(clips) < least:
            asked = "the protocol takes" if protocol.count else "a distance says nothing for fewer than"
            raise DataError(f"{name}: {len(clips)} clips, and {asked} {least}; give more clips, or another --count")
    return protocol.count or min(len(real), len(fake))


def of_sets(protocol: Protocol, real_PD: Doubles, fake_ND: Doubles, times: int) -> tuple[list[Row], list[Point]]:
    """Distances and diversity of N samples and the first N of the P real clips; floor and curve of all P."""
    seed, count = protocol.seed, len(fake_ND)
    ours = real_PD[:count]
    points = curve(real_PD, fake_ND, seed)
    most = points[-1]
    sets, halves = f"{count} + {count}", f"{most.clips} + {most.clips}"
    figures: list[tuple[str, float, float | None, str]] = [
        (protocol.title, frechet(ours, fake_ND), bootstrap(frechet, ours, fake_ND, seed, times), sets),
        (f"the same, mean over draws of {most.clips} clips", most.distance, NORMAL * most.deviation, halves),
        ("its floor, real clips to other real clips", most.floor, NORMAL * most.floor_deviation, halves),
        ("MMD x 100, (x . y / D)^2", mmd(ours, fake_ND), mmd_bootstrap(ours, fake_ND, seed, times), sets),
        *((name, value, None, sets) for name, value in diversity(ours, fake_ND).items()),
        ("mean distance between two samples", spread(fake_ND), None, f"{count} clips"),
        ("mean distance between two real clips", spread(ours), None, f"{count} clips"),
    ]
    return [Row(*figure, protocol.id) for figure in figures], points


def of_pairs(
    protocol: Protocol,
    real: Sequence[Clip],
    fake: Sequence[Clip],
    watched: Watched = iter,
    more: Mapping[str, PairMeasure] = MappingProxyType({}),
    kept: Kept | None = None,
) -> list[Row]:
    """PSNR, SSIM and flicker of clips of one name, and what ``more`` measures of two clips, by a name that tells its
    weights. DataError: a sample has no real clip of its name, or of its size."""
    if protocol.real_start != "first":
        raise DataError("--paired: both clips of a pair begin at their first frame; give --real-start first")
    originals = {clip.name: clip for clip in real}
    if alone := [clip.name for clip in fake if clip.name not in originals]:
        raise DataError(f"--paired: no real clip is called {alone[0]!r}; pairs have one name (suffixes left out)")
    moving: Mapping[str, PairMeasure] = {"flicker": flicker} if protocol.frames > 1 else {}
    measures = {"PSNR, dB": psnr, "SSIM": ssim, **moving, **more}

    def scores(i: int) -> list[float]:
        a, b = (prepared(each, protocol, real=False).frames for each in (originals[fake[i].name], fake[i]))
        if a.shape != b.shape:
            raise DataError(f"--paired: {fake[i].name}: {a.shape} and {b.shape} (T, H, W, 3); give --size")
        return [measure(a, b) for measure in measures.values()]

    if kept is None:
        values = [scores(i) for i in watched(range(len(fake)))]
    else:
        contents = [f"{originals[clip.name].content} {clip.content}" for clip in fake]
        values = kept.of(f"pairs {'; '.join(measures)} {protocol.pixels}", contents, scores, watched)
    columns = zip(measures, zip(*values, strict=True), strict=True)
    return [Row(name, *mean_interval(column), f"{len(column)} pairs", protocol.id) for name, column in columns]


def of_training(
    protocol: Protocol, real_ND: Doubles, fake_ND: Doubles, training_PD: Doubles
) -> tuple[list[Row], list[tuple[int, int]]]:
    """Whether samples are copies: how near in features the nearest training clip is, beside real clips that were not
    trained on; and the three nearest pairs of a sample and a training clip, by their numbers."""
    across = distances(fake_ND, training_PD)
    ours, others = across.min(1), distances(real_ND, training_PD).min(1)
    clips = f"{len(ours)} to {len(training_PD)}"
    near = float((ours < np.percentile(others, NEAR)).mean())
    rows = [
        Row("nearest training clip, median of samples", float(np.median(ours)), None, clips, protocol.id),
        Row("nearest training clip, median of real clips", float(np.median(others)), None, clips, protocol.id),
        Row(f"samples nearer than {NEAR}% of real clips", near, None, clips, protocol.id),
    ]
    return rows, [(int(at), int(across[at].argmin())) for at in ours.argsort()[:3]]


def page(protocol: Protocol, about: str, rows: Sequence[Row], notes: Sequence[str]) -> str:
    """The comparison in Markdown."""
    cells = [
        [row.measure, f"{row.value:.4g}", "" if row.half is None else f"± {row.half:.3g}", row.clips, row.protocol]
        for row in rows
    ]
    heads = ["measure", "value", "95%", "clips", "protocol"]
    told = [f"- {name}: {value}" for name, value in protocol.told().items()]
    return "\n".join(
        [f"# {about}\n", markdown(heads, cells, (0, 3, 4)), "", *notes, f"\n## Protocol {protocol.id}\n", *told, ""]
    )


def notes(protocol: Protocol, dimensions: int) -> list[str]:
    """What a reader has to know beside the table."""
    found = [
        "Intervals are 1.96 standard deviations over clips drawn anew (of the rows with a floor: over draws of clips; "
        "of pairs: Student's t). Figures of other protocols are not comparable with these."
    ]
    if protocol.count <= dimensions:
        found.append(
            f"\n{protocol.count} clips do not fix a covariance of {dimensions} features: the Frechet distance is "
            "larger than that of many clips, and says something only beside its floor."
        )
    return found


def figure(protocol: Protocol, points: Sequence[Point]) -> "Figure":
    """The curve over the number of clips, with its floor."""
    counts = [float(point.clips) for point in points]
    curves = {
        "real to samples": (counts, [point.distance for point in points]),
        "real to real (floor)": (counts, [point.floor for point in points]),
    }
    return panels_figure([Panel(f"{protocol.title}\nover clips of each set, {protocol.id}", curves)])


def as_json(protocol: Protocol, rows: Sequence[Row], points: Sequence[Point]) -> dict[str, Any]:
    """All of it, for machines."""
    return {
        "protocol": {"id": protocol.id} | protocol.told(),
        "rows": [asdict(row) for row in rows],
        "curve": [asdict(point) for point in points],
    }
