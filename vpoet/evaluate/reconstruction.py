"""What a video tokenizer keeps of clips: scores gathered clip by clip; memory does not grow with their number."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vpoet.arrays import Codes, Frames
from vpoet.errors import DataError, HashMismatch, PromptError, ShapeError
from vpoet.evaluate.codecs import TokenizerPoint
from vpoet.evaluate.codes import CodeStatistics
from vpoet.evaluate.compare.report import PairMeasure
from vpoet.evaluate.figures import CodeChanges, FigureScores, figure_boxes
from vpoet.evaluate.intervals import clustered_interval
from vpoet.evaluate.pixels import WINDOW, flicker, psnr, ssim
from vpoet.generate.model import Model
from vpoet.nn.features import FeatureNetwork, perceptual_distance
from vpoet.tokenizer.contract import Tokenizer
from vpoet.tokenizer.pixels import to_float, whole_cells

NOTHING: Mapping[str, Any] = {}
FRAMES_AT_ONCE = 16
"""Frames that a feature network takes at once: its features are far larger than the frames."""


def pad_to_grid(frames: Frames, coder: Tokenizer) -> Frames:
    """Lengthen a clip uint8 [T, H, W, 3] to the next size that a tokenizer takes.

    As `whole_cells` does: ``padded[:T, :H, :W]`` is the clip again.
    """
    return np.stack(list(whole_cells(frames, coder.stride, pad=True, first=coder.first)))


class ReconstructionScores:
    """The scores of one tokenizer. ``pad`` codes clips off its grid padded, and scores them cropped back.

    ``more``: measures of an original and its reconstruction, as LPIPS, by a name that tells their weights. With
    ``model``, also the bits that the codes take as that model expects them; HashMismatch for one of other codes.
    """

    def __init__(
        self,
        coder: Tokenizer,
        *,
        pad: bool = False,
        features: FeatureNetwork | None = None,
        model: Model | None = None,
        more: Mapping[str, PairMeasure] = NOTHING,
    ) -> None:
        if model is not None and model.bundle.video.codes != coder.codes:
            raise HashMismatch(
                f"tokenizer {coder.hash} makes codes {coder.codes}, and the model knows {model.bundle.video.codes}: "
                "give a bundle that was trained on this tokenizer's codes"
            )
        self.coder = coder
        self.pad = pad
        self.model = model
        self.model_bits = 0.0
        """Of all codes so far, -log2 of the model's probability of each, given those before it in its clip."""
        self.features = features
        """On the tokenizer's device; None leaves the perceptual distance out."""
        self.codes = CodeStatistics(coder.codebook_size)
        self.changes = CodeChanges()
        self.figures = FigureScores()
        self.pixels = 0
        """Of the clips as they came, without padding."""
        self.scores: list[tuple[float, float]] = []
        """PSNR and SSIM of each clip."""
        self.sources: list[str] = []
        """What each clip was cut from."""
        self._more = dict(more)
        self._more_scores: dict[str, list[float]] = {name: [] for name in more}
        self._flicker: list[float] = []
        self._perceptual: list[float] = []

    def check(self, frames: Frames, fps: float) -> None:
        """DataError for a clip uint8 [T, H, W, 3] that the tokenizer cannot take, or the model not expect."""
        grid = self.coder.grid(*self._padded(frames).shape[:3])
        if self.model is not None:
            try:
                self.model.observed(np.zeros(grid, np.int32), fps)
            except (PromptError, ShapeError) as error:
                raise DataError(f"the model takes no such clip: {error}") from None

    def encode(self, frames: Frames) -> Codes:
        """A clip's int32 codes [t, h, w], padded before if need be; nothing is scored."""
        return self.coder.encode(self._padded(frames))

    def _padded(self, frames: Frames) -> Frames:
        return pad_to_grid(frames, self.coder) if self.pad else frames

    def add(self, frames: Frames, fps: float, facts: Mapping[str, Any] = NOTHING) -> Frames:
        """Score a clip uint8 [T, H, W, 3] and return its reconstruction, of the same size.

        ``facts`` is its raw json. Clips of one ``source`` are not independent; one without shares its own with no
        other. What a world says of its figure there is scored, too (`vpoet.evaluate.figures`).
        """
        codes = self.encode(frames)
        length, height, width = frames.shape[:3]
        source = facts.get("source")
        drawn = self.coder.decode(codes)[:length, :height, :width]
        self.sources.append(f"clip {len(self.scores)}" if source is None else source)
        self.scores.append((psnr(frames, drawn), ssim(frames, drawn)))
        self.codes.update(codes)
        padded = self._padded(frames)
        boxes = figure_boxes(facts, len(padded))
        last = self.coder.first - 1  # of the first cell's frames, the one that the next cell follows
        self.changes.update(codes, padded[last:], None if boxes is None else boxes[last:])
        self.figures.add(frames, drawn, facts, fps)
        if self.model is not None:
            self.model_bits += self.model.likelihoods([self.model.observed(codes, fps)])[0].total.bits
        self.pixels += length * height * width
        if length > 1:
            self._flicker.append(flicker(frames, drawn))
        if self.features is not None:
            self._perceptual.append(clip_distance(self.features, drawn, frames, self.coder.device))
        for name, measure in self._more.items():
            self._more_scores[name].append(measure(frames, drawn))
        return drawn

    @property
    def bits_per_pixel(self) -> float:
        """Bits as the codes come, log2(codebook) each."""
        return self.codes.total * math.log2(self.codes.size) / self.pixels

    @property
    def entropy_coded_bits_per_pixel(self) -> float:
        """Bits that an ideal entropy coder would need that knows how frequent each code is in these very clips.

        Too low while codes are few: then their frequencies, which nobody sends along, say much about them.
        """
        return self.codes.total * self.codes.entropy / self.pixels

    @property
    def model_bits_per_pixel(self) -> float:
        """Bits that an ideal entropy coder needs that is told the model's probabilities.

        Unlike the frequencies of these clips, the model was there before them, and a decoder can have it too.
        """
        return self.model_bits / self.pixels

    @property
    def point(self) -> TokenizerPoint:
        """Beside the codecs' curves."""
        by_model = None if self.model is None else self.model_bits_per_pixel
        psnrs = [dB for dB, _ in self.scores]
        return TokenizerPoint(self.bits_per_pixel, self.entropy_coded_bits_per_pixel, by_model, sum(psnrs) / len(psnrs))

    def per_clip(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """The scores of each clip, with its name."""
        return [{"clip": name, "psnr": p, "ssim": s} for name, (p, s) in zip(names, self.scores, strict=True)]

    def result(self) -> dict[str, Any]:
        """Means over clips, by name; DataError before the first clip. Flicker is None where all are single images.

        psnr_interval and ssim_interval are half the widths of 95% intervals over sources: None for one.
        """
        if not self.scores:
            raise DataError(f"tokenizer {self.coder.hash}: no clip was scored")
        dB, similarity = (clustered_interval(values, self.sources) for values in zip(*self.scores, strict=True))
        result: dict[str, Any] = {
            "tokenizer": self.coder.hash,
            "stride": list(self.coder.stride),
            "levels": list(self.coder.levels),
            "sources": len(set(self.sources)),
            "psnr": dB[0],
            "psnr_interval": None if math.isnan(dB[1]) else dB[1],
            "ssim": similarity[0],
            "ssim_interval": None if math.isnan(similarity[1]) else similarity[1],
            "flicker": float(np.mean(self._flicker)) if self._flicker else None,
            "bits_per_pixel": self.bits_per_pixel,
            "bits_per_pixel_entropy_coded": self.entropy_coded_bits_per_pixel,
            "codebook": self.codes.size,
            "codes_used": self.codes.used,
            "codebook_usage": self.codes.usage,
            "codebook_usage_of_uniform_codes": self.codes.uniform_usage,
            "entropy_bits": self.codes.entropy,
            "perplexity": self.codes.perplexity,
            "codes_a_step": self.codes.total / self.codes.cells_of_time,
            **self.changes.result(),
            **self.figures.result(),
        }
        if self.model is not None:
            result["model"] = self.model.bundle.hash
            result["bits_per_pixel_by_model"] = self.model_bits_per_pixel
            result["model_bits"] = self.model_bits / self.codes.total
        if self._more:
            result["more"] = {name: float(np.mean(values)) for name, values in self._more_scores.items()}
        return result | ({"perceptual_distance": float(np.mean(self._perceptual))} if self._perceptual else {})


@dataclass
class StreamScores:
    """Sums over the frames of a video of any length, added piece by piece."""

    frames: int = 0
    psnr_sum: float = 0.0
    ssim_sum: float = 0.0
    codes: int = 0
    used: set[int] = field(default_factory=set)

    def side_by_side(self, pieces: Iterable[tuple[Frames, Frames, Codes]]) -> Iterator[Frames]:
        """Frames uint8 [H, 2 W, 3] of what `reconstruct_stream` gives, the original on the left, as they are added."""
        for original, drawn, codes in pieces:
            self.frames += len(original)
            self.psnr_sum += len(original) * psnr(original, drawn)
            large = min(original.shape[1:3]) >= WINDOW
            self.ssim_sum += len(original) * (ssim(original, drawn) if large else math.nan)
            self.codes += codes.size
            self.used.update(codes.ravel().tolist())
            yield from np.concatenate([original, drawn], axis=2)

    @property
    def psnr(self) -> float:
        """dB, the mean over frames; so is SSIM, NaN for frames that are too small for it."""
        return self.psnr_sum / self.frames

    @property
    def ssim(self) -> float:
        return self.ssim_sum / self.frames


def reconstruct_stream(
    coder: Tokenizer, frames: Iterable[Frames], *, pad: bool = False
) -> Iterator[tuple[Frames, Frames, Codes]]:
    """A video of any length, frame by frame uint8 [H, W, 3], in pieces: original and drawn uint8 [T, H, W, 3], codes.

    Memory does not grow with the length. Frames at the end that fill no cell are left out, or with ``pad`` filled up.
    """
    originals: deque[Frames] = deque()
    pieces: deque[Codes] = deque()

    def taken() -> Iterator[Frames]:
        for frame in frames:
            originals.append(frame)
            yield frame

    def coded() -> Iterator[Codes]:
        for codes in coder.encode_stream(whole_cells(taken(), coder.stride, pad=pad, first=coder.first)):
            pieces.append(codes)
            yield codes

    for drawn in coder.decode_stream(coded()):
        piece = np.stack([originals.popleft() for _ in range(min(len(drawn), len(originals)))])
        yield piece, drawn[: len(piece), : piece.shape[1], : piece.shape[2]], pieces.popleft()


@torch.no_grad()
def clip_distance(features: FeatureNetwork, drawn: Frames, original: Frames, device: str | torch.device) -> float:
    """`perceptual_distance` of clips uint8 [T, H, W, 3], the mean over frames."""
    distances = [
        perceptual_distance(features, images(drawn[start:stop], device), images(original[start:stop], device))
        for start, stop in ((start, start + FRAMES_AT_ONCE) for start in range(0, len(drawn), FRAMES_AT_ONCE))
    ]
    return float(torch.cat(distances).mean())


def images(frames: Frames, device: str | torch.device = "cpu") -> Tensor:
    """Frames uint8 [T, H, W, 3] as images: float32 [T, 3, H, W] in [-1, 1]."""
    return to_float(frames[None], device)[0].transpose(0, 1)
