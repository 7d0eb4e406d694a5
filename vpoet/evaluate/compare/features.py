"""Features of clips, kept by content: what was computed once is read, and a kill loses no more than a batch.

    CACHE/HASH.npz    features, float64 [D]; size: height and width of the network's input; rate, frames a second

HASH is of the clip's bytes, the frame it begins at, what the protocol does to pixels, and the network's weights.
"""

import hashlib
import io
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vpoet.arrays import Doubles
from vpoet.errors import DataError
from vpoet.evaluate.compare.clips import Clip, prepared
from vpoet.evaluate.compare.networks import ClipNetwork
from vpoet.evaluate.compare.protocol import Protocol
from vpoet.files import write_atomic

Watch = Callable[[Sequence[Sequence[Clip]]], Iterable[Sequence[Clip]]]


@dataclass(frozen=True)
class Found:
    """What is kept of a clip."""

    features: Doubles
    size: tuple[int, int]
    """Height and width that the network got."""
    rate: float


class Features:
    """The features of clips under one protocol. Of all clips that it is asked about, no two may differ in size where
    the protocol does not resize, nor in rate where it does not resample."""

    def __init__(self, network: ClipNetwork, protocol: Protocol, cache: Path, batch_size: int) -> None:
        self.computed = 0
        """Clips that the network saw; the others were read."""
        self._network, self._protocol, self._cache, self._batch_size = network, protocol, cache, batch_size
        self._sizes: dict[tuple[int, int], str] = {}
        self._rates: dict[float, str] = {}

    def of(self, clips: Sequence[Clip], real: bool, watched: Watch = lambda groups: groups) -> Doubles:
        """Features [N, D] of clips in order. DataError: one is too short, or differs from another in what the protocol
        leaves alone. ``watched`` passes on the batches that are not in the cache."""
        files = {clip.name: self._file(clip, real) for clip in clips}
        found = {name: kept for name, file in files.items() if (kept := _read(file)) is not None}
        for clip in clips:
            if clip.name in found:
                self._check(clip, found[clip.name])
        todo = [clip for clip in clips if clip.name not in found]
        groups = [todo[at : at + self._batch_size] for at in range(0, len(todo), self._batch_size)]
        for group in watched(groups):
            for clip, kept in zip(group, self._compute(group, real), strict=True):
                found[clip.name] = kept
                write_atomic(files[clip.name], _packed(kept))
                self.computed += 1
        return np.stack([found[clip.name].features for clip in clips])

    @torch.inference_mode()
    def _compute(self, group: Sequence[Clip], real: bool) -> list[Found]:
        frames, sizes, rates = [], [], []
        for clip in group:
            video = prepared(clip, self._protocol, real)
            size = (video.height, video.width)
            self._check(clip, Found(np.empty(0), size, video.fps))
            frames.append(torch.from_numpy(video.frames))
            sizes.append(size)
            rates.append(video.fps)
        features = self._network(torch.stack(frames)).double().cpu().numpy()
        if not np.isfinite(features).all():
            raise DataError(f"{group[0].name}: {self._network.name} gives features that are not finite")
        return [Found(*row) for row in zip(features, sizes, rates, strict=True)]

    def _check(self, clip: Clip, found: Found) -> None:
        self._sizes.setdefault(found.size, clip.name)
        if len(self._sizes) > 1:
            (a, first), (b, second), *_ = self._sizes.items()
            raise DataError(
                f"clips of mixed sizes: {first} has {a[0]}x{a[1]} pixels and {second} {b[0]}x{b[1]}, and the protocol "
                "does not resize; give --size, or clips of one size"
            )
        if found.rate and not self._protocol.fps:
            self._rates.setdefault(round(found.rate, 2), clip.name)
        if len(self._rates) > 1:
            (slow, first), (fast, second), *_ = self._rates.items()
            raise DataError(
                f"clips of mixed frame rates: {first} has {slow:g} fps and {second} {fast:g}, and the protocol does "
                "not resample; give --fps, or clips of one rate"
            )

    def _file(self, clip: Clip, real: bool) -> Path:
        begins = f"{self._protocol.seed} {clip.name}" if real and self._protocol.real_start == "random" else "first"
        told = f"{clip.content} {begins} {self._protocol.pixels}"
        return self._cache / f"{hashlib.sha256(told.encode()).hexdigest()[:40]}.npz"


def _packed(found: Found) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, features=found.features, size=np.array(found.size), rate=np.array(found.rate))
    return buffer.getvalue()


def _read(file: Path) -> Found | None:
    """What is kept there; None if that is nothing, or damaged: then it is computed again."""
    try:
        with np.load(file, allow_pickle=False) as kept:
            height, width = (int(side) for side in kept["size"])
            features = np.asarray(kept["features"], np.float64)
            return Found(features, (height, width), float(kept["rate"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
