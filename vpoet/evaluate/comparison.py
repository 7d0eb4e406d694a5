"""Video tokenizers scored on the same clips, beside codecs, with the protocol under which the scores are comparable."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vpoet.arrays import Frames
from vpoet.data.shards import Problems, Sample
from vpoet.errors import DataError
from vpoet.evaluate.codecs import CRFS, RateDistortion, at_rate
from vpoet.evaluate.codes import CodeStatistics
from vpoet.evaluate.reconstructed import ReconstructionDistances
from vpoet.evaluate.reconstruction import ReconstructionScores
from vpoet.media.video import Video
from vpoet.nn.features import EfficientNetLite0

RATES = ("bits_per_pixel", "bits_per_pixel_by_model")
"""At which codecs are scored."""
SHEET_CLIPS = 6
ERROR_GAIN = 4


class Comparison:
    """Scores of each tokenizer; a clip that one of them cannot take is left out for all."""

    def __init__(
        self,
        scored: Sequence[ReconstructionScores],
        curves: Sequence[RateDistortion],
        problems: Problems,
        distances: ReconstructionDistances | None = None,
    ) -> None:
        self.scored, self.curves, self.problems, self.distances = scored, curves, problems, distances
        self.names: list[str] = []
        """Of the clips that were scored."""
        self.rows: list[tuple[str, Frames]] = []
        """Of a contact sheet: the first clips, what the first tokenizer makes of them, and the errors."""
        self._sizes: set[tuple[int, int, int, float]] = set()

    def add(self, sample: Sample, video: Video) -> None:
        """Score a clip by all; one that does not fit is noted among the problems."""
        try:
            for scores in self.scored:
                scores.check(video.frames, video.fps)
            if self.distances:
                self.distances.check(video)
        except DataError as error:
            self.problems.add(str(error), sample.key)
            return
        drawn, *others = [scores.add(video.frames, video.fps, sample.json) for scores in self.scored]
        if self.distances:
            self.distances.add(video, [drawn, *others])
        for curve in self.curves:
            curve.add(video.frames, video.fps)
        self.names.append(sample.key)
        self._sizes.add((len(video), video.height, video.width, video.fps))
        if len(self.rows) < 3 * SHEET_CLIPS:
            dB, similarity = self.scored[0].scores[-1]
            self.rows += [(sample.key, video.frames), (f"{dB:.1f} dB, SSIM {similarity:.3f}", drawn)]
            self.rows += [(f"absolute error x{ERROR_GAIN}", absolute_error(video.frames, drawn))]

    @property
    def title(self) -> str:
        """What was scored on, in a line."""
        sizes = "; ".join("{}x{}x{}, {:g} fps".format(*size) for size in sorted(self._sizes))
        return f"{len(self.names)} clips of {sizes}"

    def results(self) -> list[dict[str, Any]]:
        """Each tokenizer's scores, those of each clip, and the codecs' at the same bits per pixel."""
        found = []
        for scores in self.scored:
            values = scores.result() | {"per_clip": scores.per_clip(self.names)}
            if self.curves:
                values |= {f"codecs_at_{rate}": peers(self.curves, values[rate]) for rate in RATES if rate in values}
            found.append(values)
        if self.distances:
            for values, rows in zip(found, self.distances.results(), strict=True):
                values["compared"] = [asdict(row) for row in rows]
        return found

    def protocol(self, data: Sequence[Path]) -> dict[str, Any]:
        """What has to be equal for scores to be comparable."""
        sizes = [sorted(set(values)) for values in zip(*self._sizes, strict=True)]
        found: dict[str, Any] = {"data": [str(folder) for folder in data], "clips": len(self.names)}
        found |= dict(zip(("frames", "height", "width", "fps"), sizes, strict=True))
        found |= {"colour": "RGB, uint8, full range 0 to 255", "averaging": "frames, then clips"}
        found["off_the_grid"] = "padded by edges and last frames, scored cropped" if self.scored[0].pad else "left out"
        if self.scored[0].features is not None:
            found["perceptual_distance"] = f"{EfficientNetLite0.NAME}, not LPIPS"
        if self.distances:
            found["compared"] = self.distances.told()
        if self.curves:
            found["codecs"] = "4:2:0 BT.709, one group of pictures a clip, one thread; slices alone are counted"
        return found


def bigram_bits(scores: ReconstructionScores, clips: Iterable[tuple[Sample, Video]], problems: Problems) -> float:
    """Bits per code of the clips that were scored, under a bigram model of other clips; what does not fit is noted."""
    model = CodeStatistics(scores.coder.codebook_size)
    for sample, video in clips:
        try:
            model.update(scores.encode(video.frames))
        except DataError as error:
            problems.add(str(error), sample.key)
    return model.bigram_bits(scores.codes)


def in_words(folder: Path, values: dict[str, Any], clips: int) -> list[str]:
    """A tokenizer's scores, and the codecs', for people; a line each."""
    halves = {name: f" ± {half:.2g}" if (half := values[f"{name}_interval"]) else "" for name in ("psnr", "ssim")}
    parts = [
        f"{folder}: {clips} clips of {values['sources']} sources: PSNR {values['psnr']:.2f}{halves['psnr']} dB",
        f"SSIM {values['ssim']:.4f}{halves['ssim']}",
    ]
    if values["flicker"] is not None:
        parts.append(f"flicker {values['flicker']:.2f}")
    if "perceptual_distance" in values:
        parts.append(f"{EfficientNetLite0.NAME} {values['perceptual_distance']:.4f}")
    parts += [
        f"{values['bits_per_pixel']:.4f} bits per pixel ({values['bits_per_pixel_entropy_coded']:.4f} entropy-coded); "
        f"{values['codes_used']} of {values['codebook']} codes used (uniform ones would use "
        f"{values['codebook_usage_of_uniform_codes']:.1%})",
        f"{values['entropy_bits']:.2f} bits per code",
    ]
    if "bigram_bits" in values:
        parts.append(f"{values['bigram_bits']:.2f} by bigrams")
    if "model_bits" in values:
        parts.append(f"{values['model_bits']:.2f} by the model")
    lines = [", ".join(parts), *_of_figures(values)]
    for row in values.get("compared", []):
        half = "" if row["half"] is None else f" ± {row['half']:.2g}"
        told = f"{row['clips']} clips, protocol {row['protocol']}"
        lines.append(f"  {row['measure']}: {row['value']:.4g}{half} ({told})")
    for rate in RATES:
        for label, peer in values.get(f"codecs_at_{rate}", {}).items():
            scores = f"PSNR {peer['psnr']:.2f} dB, SSIM {peer['ssim']:.4f}" if peer else f"no such rate at crf {CRFS}"
            lines.append(f"  {label} at {values[rate]:.4f} bits per pixel: {scores}")
    return lines


def _of_figures(values: dict[str, Any]) -> list[str]:
    """When codes change, and what is kept of figures; no line where there are but images."""
    parts = []
    if values["codes_changed_a_step"] is not None:
        parts.append(f"{values['codes_changed_a_step']:.2f} of {values['codes_a_step']:.4g} codes change a step")
    if values["codes_changed_where_still"] is not None:
        parts.append(f"{values['codes_changed_where_still']:.2%} of those whose pixels hold still")
    if values["codes_changed_by_the_figure"] is not None:
        parts.append(
            f"{values['codes_changed_by_the_figure']:.2f} where the figure alone moves, in "
            f"{values['cells_moved_by_the_figure']:.2f} cells"
        )
    if "psnr_in_boxes" in values:
        parts.append(f"PSNR {values['psnr_in_boxes']:.2f} dB in its boxes")
    if "figures_read" in values:
        parts.append(
            f"the judge reads {values['figures_read']:.2%} of {values['figures']} figures within half a pixel "
            f"({values['figures_read_in_originals']:.2%} in the originals)"
        )
    return ["  " + ", ".join(parts)] if parts else []


def absolute_error(a: Frames, b: Frames) -> Frames:
    """The absolute difference of two clips uint8 [T, H, W, 3], `ERROR_GAIN` times as bright, white at most."""
    error: npt.NDArray[np.int16] = np.abs(a.astype(np.int16) - b) * ERROR_GAIN
    return error.clip(0, 255).astype(np.uint8)


def peers(curves: Sequence[RateDistortion], bits_per_pixel: float) -> dict[str, dict[str, float] | None]:
    """Codec -> PSNR and SSIM at a tokenizer's rate; None where the codec was measured above or below it only."""
    found = {curve.codec.label: at_rate(curve.points, bits_per_pixel) for curve in curves}
    return {label: None if pair is None else {"psnr": pair[0], "ssim": pair[1]} for label, pair in found.items()}
