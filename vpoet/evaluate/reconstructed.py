"""Reconstructions of tokenizers beside their originals as sets, under a protocol: what others call rFVD, where the
network's weights are those of FVD.

Original and reconstruction take the same frames of a clip, from its first on. Features alone are kept, so memory does
not grow with pixels.
"""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vpoet.arrays import Doubles, Frames
from vpoet.errors import ConfigError, DataError
from vpoet.evaluate.compare.clips import Clip, frame_by_frame
from vpoet.evaluate.compare.features import Features
from vpoet.evaluate.compare.measures import LEAST
from vpoet.evaluate.compare.networks import ClipNetwork
from vpoet.evaluate.compare.protocol import Protocol
from vpoet.evaluate.compare.report import Row, of_sets
from vpoet.media.video import Video

AT_ONCE = 8
"""Clips that the network sees."""
TIMES = 100
"""Sets drawn anew for each interval."""


class ReconstructionDistances:
    """Distances of each of several tokenizers' reconstructions, gathered clip by clip."""

    def __init__(self, rules: Protocol, judge: ClipNetwork, tokenizers: int) -> None:
        """ConfigError: by the protocol, real clips begin elsewhere than others."""
        if rules.real_start != "first":
            raise ConfigError(
                "an original and its reconstruction begin at one frame; add real_start=first to the --protocol"
            )
        self._rules = replace(rules, network=judge.sha256, network_input=judge.input)
        self._scratch = tempfile.TemporaryDirectory()
        self._features = Features(judge, self._rules, Path(self._scratch.name), AT_ONCE)
        self._waiting: list[list[Clip]] = []
        """Of each clip the original, then what each tokenizer made of it."""
        self._seen: list[list[Doubles]] = [[] for _ in range(1 + tokenizers)]
        self._count = 0

    def expect(self, clips: int) -> None:
        """DataError: so many clips are fewer than the protocol takes, or than a distance needs."""
        least = max(LEAST, self._rules.count)
        if clips < least:
            raise DataError(f"{clips} clips to score, and the --protocol takes {least}; give more, or another count=")

    def check(self, video: Video) -> None:
        """DataError for a clip that has fewer frames than the protocol takes."""
        rate = self._rules.fps
        length = len(video.resample(rate)) if rate and video.fps else len(video)
        if length < self._rules.span:
            raise DataError(f"{length} frames, and the protocol takes {self._rules.span}")

    def add(self, video: Video, drawn: Sequence[Frames]) -> None:
        """A clip, and the reconstruction by each tokenizer. DataError: other clips have another size or rate, and the
        protocol leaves that alone."""
        videos = [video, *(Video(frames, video.fps) for frames in drawn)]
        self._waiting.append([_clip(str(self._count), each) for each in videos])
        self._count += 1
        if len(self._waiting) == AT_ONCE:
            self._flush()

    def results(self) -> list[list[Row]]:
        """Of each tokenizer: distance, floor (originals to other originals) and the rest of `of_sets`. The errors are
        those of `expect`."""
        self._flush()
        self.expect(self._count)
        self._rules = replace(self._rules, count=self._rules.count or self._count)
        order = np.random.default_rng(self._rules.seed).permutation(self._count)
        originals, *others = (np.stack(rows)[order] for rows in self._seen)
        return [of_sets(self._rules, originals, made[: self._rules.count], TIMES)[0] for made in others]

    def told(self) -> dict[str, Any]:
        """The protocol, once `results` is known."""
        return {"id": self._rules.id} | self._rules.told()

    def _flush(self) -> None:
        if self._waiting:
            for rows, clips in zip(self._seen, zip(*self._waiting, strict=True), strict=True):
                rows.extend(self._features.of(clips, False))
        self._waiting = []


def _clip(name: str, video: Video) -> Clip:
    told = f"{video.frames.shape} {video.fps:g}".encode() + video.frames.tobytes()
    return Clip(name, hashlib.sha256(told).hexdigest(), lambda fps: frame_by_frame(video, fps))
