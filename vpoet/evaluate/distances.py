"""Distances of clips: between sets of them (Frechet), and of a clip to the nearest one that was trained on.

Frechet distances are in the features of EfficientNet-Lite0: not FID and not FVD, whose networks are others; comparable
only with figures of the same network, size of picture, and number of clips.

A set of features is taken for a Gaussian; the distance of two is (Dowson and Landau, 1982)

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))

The fewer clips, the larger it is for sets that are alike, so it says something only beside a floor: the distance
between two halves of the real clips, each as large as the sets that are compared.

The distance to the `nearest` training clip is the root of the mean squared difference of two clips, in steps of 0..255,
both shrunk by `SHRINK`; so details count less than who stands where when. A memorised clip lies at distance 0. How
near is too near only clips that were held out can say.

Shapes: N features (of frames or clips), D of their dimensions; T frames of a clip; C channels of a layer.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vpoet.arrays import Doubles, Floats, Frames
from vpoet.data.folder import read_videos
from vpoet.errors import DataError, ShapeError

if TYPE_CHECKING:
    from torch import Tensor

    from vpoet.nn.features import EfficientNetLite0

NAME = "EfficientNet-Lite0 Frechet distance"
ENLARGE = 2
"""Pictures are doubled in size first: the network was trained on larger ones."""
SHRINK = 4
AT_ONCE = 64
"""Training clips in memory."""
NEAR = 5
"""Percentile of held-out clips' distances to training: a sample below it counts as near."""


def clip_features(network: "EfficientNetLite0", clips: Iterable[Frames]) -> dict[str, Doubles]:
    """Features of clips uint8 [T, H, W, 3] of one size: ``frames`` [N T, 112] for how they look, ``motion`` [N, 112].

    The last layer's channels: of a frame their mean over space; of a clip the mean, over space and its T - 1 steps, of
    how much they change (zeros for a single frame).
    """
    import torch  # late: distances of features that are there need none of it

    frames, motion = [], []
    device = next(network.parameters()).device
    for clip in clips:
        with torch.inference_mode():
            pictures = torch.from_numpy(clip).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
            pictures = torch.nn.functional.interpolate(pictures, scale_factor=ENLARGE, mode="bilinear")
            last_TChw: Tensor = network(pictures)[-1].double()
            frames.append(last_TChw.mean((2, 3)).cpu().numpy())
            steps = last_TChw.diff(dim=0).abs().mean((2, 3))
            motion.append((steps.mean(0) if len(steps) else torch.zeros_like(last_TChw[0, :, 0, 0])).cpu().numpy())
    return {"frames": np.concatenate(frames), "motion": np.stack(motion)}


def frechet(a_ND: Doubles, b_ND: Doubles) -> float:
    """The distance of the Gaussians of two sets of features; ShapeError for sets of one or of other dimensions."""
    if a_ND.ndim != 2 or b_ND.ndim != 2 or a_ND.shape[1] != b_ND.shape[1] or min(len(a_ND), len(b_ND)) < 2:
        raise ShapeError(f"two sets of 2 or more features of one length, not {a_ND.shape} and {b_ND.shape}")
    return gaussian_distance(a_ND.mean(0), np.cov(a_ND.T), b_ND.mean(0), np.cov(b_ND.T))


def gaussian_distance(mean_a: Doubles, cov_a: Doubles, mean_b: Doubles, cov_b: Doubles) -> float:
    """Of means [D] and covariances [D, D]. tr (Ca Cb)^(1/2) is that of the symmetric L' Cb L, where L L' is Ca."""
    cov_a, cov_b = np.atleast_2d(cov_a), np.atleast_2d(cov_b)
    try:
        root = np.linalg.cholesky(cov_a)
    except np.linalg.LinAlgError:  # it has no full rank, of few clips: a square root takes five times as long
        values, vectors = np.linalg.eigh(cov_a)
        root = vectors * np.sqrt(values.clip(min=0))
    product = np.linalg.eigvalsh(root.T @ cov_b @ root)
    overlap = np.sqrt(product.clip(min=0)).sum()
    distance = np.square(mean_a - mean_b).sum() + np.trace(cov_a + cov_b) - 2 * overlap
    return max(0.0, float(distance))


def nearest(clips: Sequence[Frames], folder: str | Path) -> tuple[Doubles, list[str]]:
    """For each of the clips, of one shape, its distance to the nearest clip in a folder of raw shards, and that one's
    key. Clips of another shape are passed over; DataError if there is none of this."""
    wanted = np.stack([_small(clip) for clip in clips])
    best, keys = np.full(len(clips), np.inf), [""] * len(clips)
    squares = np.square(wanted).sum(1)
    read = ((sample.key, video.frames) for sample, video in read_videos(folder))
    training = ((key, frames) for key, frames in read if frames.shape == clips[0].shape)
    while group := list(islice(training, AT_ONCE)):
        known = np.stack([_small(frames) for _, frames in group])
        distances = squares[:, None] - 2 * wanted @ known.T + np.square(known).sum(1)
        for i, j in enumerate(distances.argmin(1)):
            if distances[i, j] < best[i]:
                # the difference itself: the sum above has lost its digits where clips are alike
                best[i], keys[i] = np.square(wanted[i] - known[j]).sum(), group[j][0]
    if not np.isfinite(best).all():
        raise DataError(f"{folder}: no clip of {' x '.join(map(str, clips[0].shape[:3]))} to compare with")
    return np.sqrt(best / wanted.shape[1]), keys


def _small(frames: Frames) -> Floats:
    t, height, width, _ = frames.shape
    h, w = height // SHRINK, width // SHRINK
    cells = frames[:, : h * SHRINK, : w * SHRINK].reshape(t, h, SHRINK, w, SHRINK, 3)
    small: Floats = cells.mean((2, 4), dtype=np.float32).ravel()
    return small
