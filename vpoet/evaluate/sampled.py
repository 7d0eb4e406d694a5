"""Samples of a bundle beside the real clips of any shards: what `vpoet compare` finds, by set and setting.

Samples are kept as codes and decoded when a network looks at them, so that memory does not grow with their number. Of
several processes each computes the features of its share, and the first one compares.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vpoet.arrays import Codes, Frames
from vpoet.bundle import Bundle
from vpoet.data.folder import read_samples
from vpoet.errors import ConfigError
from vpoet.evaluate.compare.clips import Clip, drawn, frame_by_frame, gather, prepared
from vpoet.evaluate.compare.compared import Compared, compared
from vpoet.evaluate.compare.features import Features, Watch
from vpoet.evaluate.compare.measures import distances
from vpoet.evaluate.compare.networks import ClipNetwork
from vpoet.evaluate.compare.protocol import Protocol
from vpoet.evaluate.compare.report import Row, of_training, taken
from vpoet.evaluate.conditions import Asked, class_of
from vpoet.evaluate.intervals import mean_interval, wilson
from vpoet.evaluate.page.comparison import publish
from vpoet.evaluate.pixels import psnr, ssim
from vpoet.evaluate.tables import markdown
from vpoet.generate.observe import fit
from vpoet.media.video import Video
from vpoet.processes import Processes

TIMES = 100
"""Sets drawn anew for each interval."""
AT_ONCE = 8
"""Clips that the network sees."""


@dataclass(frozen=True)
class Also:
    """What is told of a set beyond distances."""

    classes: str = ""
    """The field of a clip's json that has its class."""
    given: int = 0
    """Frames that were given; those after them are scored."""
    training: Path | None = None
    """Clips among which copies are looked for."""


class SampledSets:
    """What was found of each set under each setting. ``sets`` are the shards that each set of prompts is of, and where
    its prompts stand among all."""

    def __init__(
        self,
        rules: Protocol,
        judge: ClipNetwork,
        bundle: Bundle,
        sets: Mapping[str, tuple[Path, Sequence[int]]],
        out: Path,
        everyone: Processes,
    ) -> None:
        self.found: dict[str, dict[str, dict[str, Any]]] = {}
        """Setting -> set -> what compare.json says."""
        self._rules = replace(rules, network=judge.sha256, network_input=judge.input)
        self._judge, self._bundle, self._sets = judge, bundle, sets
        self._out, self._everyone = out, everyone

    def add(self, setting: str, clips: Sequence[Clip], watched: Watch, also: Also = Also()) -> None:
        """Clips, one for each prompt, beside all real clips of their set's shards. DataError: too few of either."""
        for label, (folder, places) in self._sets.items():
            fake = [clips[at] for at in places]
            real = drawn(gather(folder), self._rules.seed)
            rules = replace(self._rules, count=taken(real, fake, self._rules))
            features = Features(self._judge, rules, self._out / "features", AT_ONCE)
            fake = drawn(fake, rules.seed)[: rules.count]
            training = [] if also.training is None else gather(also.training)
            if self._everyone.world > 1:
                for some, is_real in ((real[: 2 * rules.count], True), (fake, False), (training, False)):
                    if mine := some[self._everyone.rank :: self._everyone.world]:
                        features.of(mine, is_real, watched)
                    self._everyone.gather(None)
            if self._everyone.rank:
                continue
            found = compared(f"{label}: {setting}", rules, features, real, fake, TIMES, watched)
            if training:
                trained = features.of(training, False, watched)
                found.rows.extend(of_training(rules, found.ours, found.fake_ND, trained)[0])
            if also.classes:
                found.rows.extend(of_classes(found, classes(folder, also.classes)))
            if also.given:
                found.rows.extend(of_predicted(found, real, also.given))
            place = self._out / "compared" / f"{label}, {setting}".replace(" ", "-")
            self.found.setdefault(setting, {})[label] = publish(found, place)

    def clips(self, asked: Sequence[Asked], codes: Sequence[Codes]) -> list[Clip]:
        """Samples, each under the name of the clip that it was asked by."""
        coder, rate = self._bundle.video, float(self._bundle.config.fps)

        def stream(made: Codes, fps: float) -> tuple[float, Iterator[Frames]]:
            return frame_by_frame(Video(coder.decode(made), rate), fps)

        def content(made: Codes) -> str:
            told = f"{coder.hash} {rate:g} {made.shape}".encode() + np.ascontiguousarray(made).tobytes()
            return hashlib.sha256(told).hexdigest()

        return [Clip(one.key, content(made), partial(stream, made)) for one, made in zip(asked, codes, strict=True)]

    def reconstructed(self, asked: Sequence[Asked]) -> list[Clip]:
        """The real clips that samples were asked by, brought to the model's size and through its tokenizer: what no
        sampler of these codes can be nearer than."""
        bundle, config = self._bundle, self._bundle.config

        def stream(one: Asked, fps: float) -> tuple[float, Iterator[Frames]]:
            clip = fit(bundle, Video(one.real, one.fps)).video
            video = Video(bundle.video.decode(bundle.video.encode(clip)), float(config.fps))
            return frame_by_frame(video, fps)

        def content(one: Asked) -> str:
            told = f"{bundle.video.hash} {config.frames} {config.height} {config.width} {config.fps}".encode()
            return hashlib.sha256(told + one.real.tobytes()).hexdigest()

        return [Clip(one.key, content(one), partial(stream, one)) for one in asked]

    def markdown(self) -> str:
        """A table for each set: its measures, under each setting."""
        lines: list[str] = []
        for label in next(iter(self.found.values()), {}):
            columns = {name: sets[label] for name, sets in self.found.items() if label in sets}
            first = next(iter(columns.values()))["protocol"]
            cells = {name: {row["measure"]: _cell(row) for row in one["rows"]} for name, one in columns.items()}
            measures = dict.fromkeys(measure for one in cells.values() for measure in one)
            rows = [[measure, *(one.get(measure, "-") for one in cells.values())] for measure in measures]
            lines += [f"\n{label}, protocol {first['id']}, {first['count']} clips\n", markdown(["", *cells], rows)]
        return "\n".join(lines) + "\n"


def check_given(rules: Protocol, given: int) -> None:
    """ConfigError: frames were given, and the protocol has none after them, or does not begin with a clip's first."""
    if given and (rules.step != 1 or rules.real_start != "first" or rules.frames <= given):
        raise ConfigError(
            f"--given-frames {given}: the protocol has to take more frames than that, each one, and real clips from "
            "their first on; write, for instance, --protocol vpoet-16,step=1,real_start=first"
        )


def classes(folder: Path, field: str) -> dict[str, str]:
    """The class of each clip of raw shards, by its key."""
    return {sample.key: class_of(sample.json, field, f"{folder}: {sample.key}") for sample in read_samples(folder)}


def of_classes(found: Compared, known: Mapping[str, str]) -> list[Row]:
    """How often the real clip that is nearest in features is of a clip's class: of samples, and of real clips, where
    the clip itself does not count. What a classifier would say, without one."""
    names = [known[clip.name] for clip in found.real]
    among = distances(found.ours, found.real_PD)
    np.fill_diagonal(among, np.inf)
    rows = []
    for what, asked, apart in (
        ("samples", [known[clip.name] for clip in found.fake], distances(found.fake_ND, found.real_PD)),
        ("real clips", names[: len(among)], among),
    ):
        right = sum(names[at] == one for at, one in zip(apart.argmin(1), asked, strict=True))
        low, high = wilson(right, len(asked))
        clips = f"{len(asked)} of {len(set(asked))} classes"
        measure = f"nearest real clip is of the same class, {what}"
        rows.append(Row(measure, right / len(asked), (high - low) / 2, clips, found.protocol.id))
    return rows


def of_predicted(found: Compared, everything: Sequence[Clip], given: int) -> list[Row]:
    """PSNR and SSIM of the frames after the given ones, beside what the real clip went on to show."""
    real = {clip.name: clip for clip in everything}
    scores: dict[str, list[float]] = {"PSNR, dB, of predicted frames": [], "SSIM of predicted frames": []}
    for clip in found.fake:
        a, b = (prepared(each, found.protocol, False).frames[given:] for each in (real[clip.name], clip))
        for name, measure in zip(scores, (psnr, ssim), strict=True):
            scores[name].append(measure(a, b))
    return [
        Row(name, *mean_interval(values), f"{len(values)} pairs", found.protocol.id) for name, values in scores.items()
    ]


def _cell(row: Mapping[str, Any]) -> str:
    half = row["half"]
    return f"{row['value']:.4g}" + ("" if half is None else f" ± {half:.2g}")
