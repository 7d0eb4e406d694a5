"""What a tokenizer keeps of somebody's own clips, one by one, in a table: the first look at one that was imported."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from vpoet.data.folder import read_videos
from vpoet.data.shards import MANIFEST, Manifest, Problems
from vpoet.data.sources import gather
from vpoet.errors import DataError
from vpoet.evaluate.pixels import WINDOW
from vpoet.evaluate.reconstruction import ReconstructionScores
from vpoet.evaluate.tables import markdown
from vpoet.media.video import Video
from vpoet.tokenizer.contract import Tokenizer
from vpoet.tokenizer.pixels import whole_cells

FRAMES = 17
"""Of each clip, from its first on: what tokenizers are trained on, more or less."""
SIDE = 256
"""Pixels: a clip whose shorter side is longer is scaled down to it."""
CLIPS = 32
"""At most, the first by name."""
PROTOCOL = f"first {FRAMES} frames, shorter side at most {SIDE} pixels, whole cells around the centre"


def count(folder: Path) -> int:
    """Clips that `clips` gives at most. DataError: it is no folder of videos, images or raw shards."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give one of videos and images, or of raw shards")
    if (folder / MANIFEST).is_file():
        return min(CLIPS, Manifest.load(folder).samples)
    return min(CLIPS, len(gather([f"{folder}/"])))


def clips(folder: Path, coder: Tokenizer, problems: Problems) -> Iterator[tuple[str, Video]]:
    """Names and clips of a folder of videos and images, or of raw shards, as `PROTOCOL` says; what cannot be read, or
    fills no cell, is noted."""
    for name, video in islice(_read(folder, problems), CLIPS):
        try:
            yield name, fitted(video, coder)
        except DataError as error:
            problems.add(str(error), name)


def _read(folder: Path, problems: Problems) -> Iterator[tuple[str, Video]]:
    if (folder / MANIFEST).is_file():
        yield from ((sample.key, video) for sample, video in read_videos(folder, problems=problems))
        return
    for item in gather([f"{folder}/"]):
        try:
            yield item.name, Video.read(item.path, max_frames=FRAMES)
        except DataError as error:
            problems.add("cannot be decoded", f"{item.name}: {error}")


def fitted(video: Video, coder: Tokenizer) -> Video:
    """Of a clip, what `PROTOCOL` says. DataError: it is smaller than a cell."""
    s = coder.stride[1]
    scale = min(1.0, SIDE / min(video.height, video.width))
    height, width = (int(side * scale) // s * s for side in (video.height, video.width))
    frames = list(whole_cells(video.frames[:FRAMES], coder.stride, pad=False, first=coder.first))
    if min(height, width) < WINDOW or not frames:
        raise DataError(f"smaller than a cell, or than {WINDOW}x{WINDOW} pixels")
    return Video(np.stack(frames), video.fps).resize(height, width)


def table(scores: ReconstructionScores, names: list[str]) -> str:
    """PSNR and SSIM of each clip and of all, as Markdown; DataError before the first clip."""
    values: dict[str, Any] = scores.result()
    rows = [[each["clip"], f"{each['psnr']:.2f}", f"{each['ssim']:.4f}"] for each in scores.per_clip(names)]
    mean = [f"mean of {len(names)}", f"{values['psnr']:.2f}", f"{values['ssim']:.4f}"]
    return markdown(("clip", "PSNR (dB)", "SSIM"), [*rows, mean])
