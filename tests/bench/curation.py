"""How true the measures of curation are: motion against what a world knows of it, copies against those that were made.

``motion_truth``: Spearman's correlation of `vpoet.media.signals.motion` with the truth, on clips of the platformer: as
drawn (the camera stands still), and with a textured stage in place of their plain sky, through a window that pans and
zooms. The truth of a pixel is how its window moves, and, in the silhouette of a figure, how that moves; of a clip, the
mean length over its pixels. ``codec`` and ``difference``: what motion vectors and plain differences of frames give on
the same clips.

``duplicates``: clips of the world, and of the folder of videos that VPOET_VIDEOS names, are each copied in four ways:
crf 30, a crop of 0.8 (anywhere), two frames later, and mirrored. All are measured and compared as `vpoet select
--dedupe 0.92` does. A copy is right if it is taken for a clip of the same recording.
"""

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vpoet.arrays import Doubles, Frames, Mask
from vpoet.data.curate import clip_measures
from vpoet.data.curate.duplicates import originals
from vpoet.evaluate.ranks import spearman
from vpoet.media import signals
from vpoet.media.codec_vectors import codec_motion
from vpoet.media.video import Video, stream_frames
from vpoet.nn.judges import judges
from vpoet.worlds.platformer.world import Platformer

CLIPS, SEED = 60, 5_000_000
"""What is measured was chosen on clips of other seeds (4,000,000 on)."""
LEAST = 0.92
VIDEOS = "VPOET_VIDEOS"
FRAMES, RATE, SIDE = 17, 8, 64
_COPIES = 24
"""World clips that are copied."""


class _Silhouettes(Platformer):
    """The world, and what of each frame its figures cover."""

    def clip(self, seed: int) -> tuple[Frames, dict[str, Any]]:
        self.drawn: list[tuple[Mask, Doubles]] = []
        frames, fields = super().clip(seed)
        # what was put on the stage before stands still
        self.drawn = self.drawn[-len(frames) * (1 + len(fields["truth"]["creatures"])) :]
        return frames, fields

    def put(self, frame: Any, picture: Any, x: float, y: float) -> tuple[int, int, int, int]:
        box = super().put(frame, picture, x, y)
        left, top, right, bottom = box
        whole = np.zeros(frame.shape[:2], np.bool_)
        across, down = round(x * self.unit + picture.left), round(y * self.unit) + picture.top
        inside = picture.pixels[top - down : bottom - down, left - across : right - across, 3]
        whole[top:bottom, left:right] = inside > 0.5
        self.drawn.append((whole, np.array([x, y]) * self.unit))
        return box

    def figures(self, count: int) -> list[list[tuple[Mask, Doubles]]]:
        """Of the last clip of so many frames, at each step: of each figure what is seen of it, and its way."""
        many = len(self.drawn) // count
        rows = [self.drawn[many * t :][:many] for t in range(count)]
        return [
            [
                (mine & ~np.any([other for other, _ in now[i + 1 :]], axis=0), later[i][1] - at)
                for i, (mine, at) in enumerate(now)
            ]
            for now, later in pairwise(rows)
        ]


def motion_truth(_seconds: float) -> dict[str, Any]:
    """Spearman's correlation of measured and true motion, by kind of motion and of camera."""
    world, random = _Silhouettes(2 * SIDE, 2 * SIDE), np.random.default_rng(0)
    still, moving = [], []
    for seed in range(SEED, SEED + CLIPS):
        frames, _ = world.clip(seed)
        truth = world.figures(len(frames))
        still.append(_row(frames, np.tile([0.0, 0.0, 2.0 * SIDE], (len(frames), 1)), truth))
        windows = _way(random, len(frames))
        moving.append(_row(_through(_staged(frames, random), windows), windows, truth))
    line: dict[str, Any] = {"clips": CLIPS}
    for name, rows in (("still", still), ("moving", moving)):
        found, known = (np.array([row[at] for row in rows]) for at in (0, 1))
        for k, kind in enumerate(("whole", "camera", "object")):
            if np.ptp(known[:, k]):
                line[f"{name}_{kind}"] = round(spearman(found[:, k], known[:, k]), 3)
        for k, kind in ((3, "codec"), (4, "difference")):
            line[f"{name}_{kind}"] = round(spearman(found[:, k], known[:, 0]), 3)
    return line


def _way(random: np.random.Generator, count: int) -> Doubles:
    """(left, top, side) of a window in each frame, in the world's pixels."""
    side = 2 * SIDE
    first, last = (np.array([*random.uniform(0, 0.25 * side, 2), random.uniform(0.6, 0.75) * side]) for _ in range(2))
    return first + np.linspace(0, random.uniform(0, 1), count)[:, None] * (last - first)


def _staged(frames: Frames, random: np.random.Generator) -> Frames:
    """What moves in a clip, on a stage that has something to see everywhere."""
    h = frames.shape[1]
    stage = np.zeros((h, h, 3), np.float32)
    for cells in (4, 8, 16, 32):
        some = random.normal(0, 1, (cells, cells, 3)).astype(np.float32)
        stage += signals.opencv().resize(some, (h, h), interpolation=signals.opencv().INTER_CUBIC) * 60 / cells**0.3
    still = np.median(frames, 0)
    moves = np.abs(frames - still).max(-1, keepdims=True) > 12
    return np.where(moves, frames, (stage + 128).clip(0, 255).astype(np.uint8))


def _turn(window: Doubles) -> Doubles:
    left, top, side = window
    return np.array([[side / (2 * SIDE), 0, left], [0, side / (2 * SIDE), top]])


def _through(frames: Frames, windows: Doubles) -> Frames:
    cv2 = signals.opencv()
    way = {"dsize": (2 * SIDE, 2 * SIDE), "flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP}
    return np.stack(
        [cv2.warpAffine(frame, _turn(window), **way) for frame, window in zip(frames, windows, strict=True)]
    )


def _row(
    frames: Frames, windows_T3: Doubles, truth: list[list[tuple[Mask, Doubles]]]
) -> tuple[list[float], list[float]]:
    """(whole, camera, object, codec, difference) measured, and the first three as they are."""
    cv2 = signals.opencv()
    shown = Video(frames, RATE).resize(SIDE, SIDE).frames
    greys = signals.greys(shown)
    vectors = codec_motion(Video(shown, RATE).encode(".mp4")) or 0.0
    difference = float(np.abs(np.diff(greys.astype(float), axis=0)).mean())
    h = 2 * SIDE
    y, x = np.mgrid[:h, :h] + 0.5
    sums = np.zeros(3)
    for t, (left, top, wider) in enumerate(np.diff(windows_T3, axis=0)):
        larger = h / windows_T3[t, 2]
        camera = np.stack([-left - wider * x / h, -top - wider * y / h], -1) * larger
        own = np.zeros((h, h, 2))
        for figure, step in truth[t]:
            nearest = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
            own[cv2.warpAffine(figure.astype(np.uint8), _turn(windows_T3[t]), (h, h), flags=nearest) > 0] = (
                step * larger
            )
        sums += [float(np.linalg.norm(part, axis=-1).mean()) for part in (camera + own, camera, own)]
    known = sums / (len(windows_T3) - 1) / h * 100 * RATE
    return [*signals.motion(greys, RATE), vectors, difference], known.tolist()


def duplicates(_: float) -> dict[str, Any]:
    """Precision and recall of pairs of copies, over all, and what share of each kind of copy was found."""
    random = np.random.default_rng(0)
    clips = list(_clips())
    # some seeds draw the very same frames: that is one recording
    same = [next(i for i, other in enumerate(clips) if np.array_equal(clip, other)) for clip in clips]
    rows = [(same[at], kind, frames) for at, clip in enumerate(clips) for kind, frames in _copies(clip, random)]
    judge = judges(True, False, None, None)["embedding"]
    vectors, small, hashes = [], [], []
    for _, _, frames in rows:
        some = clip_measures.spread(frames, clip_measures.HASHED)
        vectors.append(np.asarray(judge(some, [])["embedding"], np.float32))
        small.append(clip_measures.thumbnails(frames))
        hashes.append(clip_measures.hashes(frames))
    found = originals(np.stack(small), np.stack(vectors), hashes, LEAST)
    copies = [at for at, (_, kind, _) in enumerate(rows) if kind != "original"]
    right = sum(rows[found[at]][0] == rows[at][0] and found[at] != at for at in range(len(rows)))
    told = sum(found[at] != at for at in range(len(rows)))
    line = {
        "clips": len(clips),
        "alike": len(clips) - len(set(same)),
        "copies": len(copies),
        "precision": right / max(told, 1),
        "recall": float(np.mean([found[at] != at and rows[found[at]][0] == rows[at][0] for at in copies])),
    }
    for kind in dict.fromkeys(kind for _, kind, _ in rows if kind != "original"):
        mine = [at for at in copies if rows[at][1] == kind]
        line[kind] = float(np.mean([rows[found[at]][0] == rows[at][0] and found[at] != at for at in mine]))
    wrong = [at for at in range(len(rows)) if found[at] != at and rows[found[at]][0] != rows[at][0]]
    line["wrong"] = [f"{rows[at][0]} {rows[at][1]} for {rows[found[at]][0]}" for at in wrong[:8]]
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in line.items()}


def _clips() -> Iterator[Frames]:
    """Of each at least two frames more than a clip has."""
    world = Platformer(frames=FRAMES + 2)
    yield from (world.clip(seed)[0] for seed in range(SEED, SEED + _COPIES))
    if folder := os.environ.get(VIDEOS):
        for path in sorted(Path(folder).iterdir()):
            if path.suffix not in (".mp4", ".mkv"):
                continue
            taken = [frame for _, frame in zip(range(FRAMES + 2), stream_frames(path, fps=RATE)[1], strict=False)]
            if len(taken) == FRAMES + 2:
                yield Video(np.stack(taken), RATE).resize(2 * SIDE, 2 * SIDE).frames


def _copies(clip: Frames, random: np.random.Generator) -> Iterator[tuple[str, Frames]]:
    start = clip[:FRAMES]
    side = clip.shape[1]
    yield "original", _stored(start)
    yield "crf 30", _stored(start, crf=30)
    top, left = random.integers(0, side - round(0.8 * side) + 1, 2)
    part = start[:, top : top + round(0.8 * side), left : left + round(0.8 * side)]
    yield "0.8 crop", _stored(Video(part, RATE).resize(side, side).frames)
    yield "2 frames later", _stored(clip[2 : FRAMES + 2])
    yield "mirrored", _stored(np.ascontiguousarray(start[:, :, ::-1]))


def _stored(frames: Frames, crf: int = 18) -> Frames:
    """As a raw shard gives it back."""
    shown = Video(frames, RATE).resize(SIDE, SIDE)
    return Video.read(shown.encode(".mp4", crf=crf)).frames
