"""Features of clips, kept by content: what was computed once is read, and a kill loses no more than a batch.

    CACHE/HASH.npy    float64 [4 + D]: height and width of the network's input, frames a second, flicker, features

HASH is of the clip's bytes, the frame it begins at, what the protocol does to pixels, and the network's weights.
Processes of a launcher share out the clips that are not there, and meet in the cache.
"""

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vpoet.arrays import Doubles
from vpoet.errors import DataError
from vpoet.evaluate.compare.clips import Clip, prepared
from vpoet.evaluate.compare.networks import ClipNetwork
from vpoet.evaluate.compare.protocol import Protocol
from vpoet.evaluate.pixels import unsteadiness
from vpoet.files import write_atomic
from vpoet.processes import Processes

Watch = Callable[[Sequence[Sequence[Clip]]], Iterable[Sequence[Clip]]]


@dataclass(frozen=True)
class Found:
    """What is kept of a clip."""

    features: Doubles
    size: tuple[int, int]
    """Height and width that the network got."""
    rate: float
    flicker: float
    """`unsteadiness` of what the network got; NaN of fewer than three frames."""


class Features:
    """The features of clips under one protocol. Of all clips that it is asked about, no two may differ in size where
    the protocol does not resize, nor in rate where it does not resample."""

    def __init__(
        self,
        network: ClipNetwork,
        protocol: Protocol,
        cache: Path,
        batch_size: int,
        everyone: Processes = Processes(),
    ) -> None:
        self.computed = 0
        """Clips that the network saw, here; the others were read."""
        self.protocol, self._pixels = protocol, protocol.pixels
        self._network, self._cache, self._batch_size, self._everyone = network, cache, batch_size, everyone
        self._read: dict[Path, Found] = {}
        self._sizes: dict[tuple[int, int], str] = {}
        self._rates: dict[float, str] = {}

    def of(self, clips: Sequence[Clip], real: bool, watched: Watch = lambda groups: groups) -> Doubles:
        """Features [N, D] of clips in order; as `each`."""
        return np.stack([found.features for found in self.each(clips, real, watched)])

    def each(self, clips: Sequence[Clip], real: bool, watched: Watch = lambda groups: groups) -> list[Found]:
        """What is kept of clips in order. DataError: one is too short, or differs from another in what the protocol
        leaves alone. ``watched`` passes on the batches that are not in the cache."""
        files = {clip.name: self._file(clip, real) for clip in clips}
        found = {}
        for name, file in files.items():
            if (kept := self._read.get(file) or _read(file)) is not None:
                found[name] = kept
        for clip in clips:
            if clip.name in found:
                self._check(clip, found[clip.name])
        mine = clips[self._everyone.rank :: self._everyone.world]  # whatever is there: others may be writing already
        todo = [clip for clip in mine if clip.name not in found]
        groups = [todo[at : at + self._batch_size] for at in range(0, len(todo), self._batch_size)]
        for group in watched(groups):
            for clip, kept in zip(group, self._compute(group, real), strict=True):
                found[clip.name] = kept
                write_atomic(files[clip.name], _packed(kept))
                self.computed += 1
        for others in self._everyone.gather({clip.name: found[clip.name] for clip in mine}):
            for clip in clips:
                if clip.name in others and clip.name not in found:
                    self._check(clip, others[clip.name])
            found |= others
        self._read |= {files[name]: kept for name, kept in found.items()}
        return [found[clip.name] for clip in clips]

    def _compute(self, group: Sequence[Clip], real: bool) -> list[Found]:
        import torch  # late: features that are there need none of it

        frames, told = [], []
        for clip in group:
            video = prepared(clip, self.protocol, real)
            told.append(((video.height, video.width), video.fps, unsteadiness(video.frames)))
            self._check(clip, Found(np.empty(0), *told[-1]))
            frames.append(torch.from_numpy(video.frames))
        with torch.inference_mode():
            features = self._network(torch.stack(frames)).double().cpu().numpy()
        if not np.isfinite(features).all():
            raise DataError(f"{group[0].name}: {self._network.name} gives features that are not finite")
        return [Found(row, *about) for row, about in zip(features, told, strict=True)]

    def _check(self, clip: Clip, found: Found) -> None:
        self._sizes.setdefault(found.size, clip.name)
        if len(self._sizes) > 1:
            (a, first), (b, second), *_ = self._sizes.items()
            raise DataError(
                f"clips of mixed sizes: {first} has {a[0]}x{a[1]} pixels and {second} {b[0]}x{b[1]}, and the protocol "
                "does not resize; give --size, or clips of one size"
            )
        if found.rate and not self.protocol.fps:
            self._rates.setdefault(round(found.rate, 2), clip.name)
        if len(self._rates) > 1:
            (slow, first), (fast, second), *_ = self._rates.items()
            raise DataError(
                f"clips of mixed frame rates: {first} has {slow:g} fps and {second} {fast:g}, and the protocol does "
                "not resample; give --fps, or clips of one rate"
            )

    def _file(self, clip: Clip, real: bool) -> Path:
        begins = f"{self.protocol.seed} {clip.name}" if real and self.protocol.real_start == "random" else "first"
        told = f"{clip.content} {begins} {self._pixels}"
        return self._cache / f"{hashlib.sha256(told.encode()).hexdigest()[:40]}.npy"


def _packed(found: Found) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.concatenate([found.size, [found.rate, found.flicker], found.features]))
    return buffer.getvalue()


def _read(file: Path) -> Found | None:
    """What is kept there; None if that is nothing, or damaged: then it is computed again."""
    try:
        height, width, rate, flicker, *_ = kept = np.load(file, allow_pickle=False)
        return Found(np.asarray(kept[4:], np.float64), (int(height), int(width)), float(rate), float(flicker))
    except (OSError, ValueError, TypeError, EOFError):
        return None
