"""Reconstruction losses of the video tokenizer: pixels, edges, and perceptual features of a frozen network."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vpoet.nn.features import FeatureNetwork, perceptual_distance

PERCEPTUAL_FRAMES = 4
"""Frames of a clip, drawn at random each step, that the perceptual part looks at: it sees frames one by one anyway."""


@dataclass(kw_only=True)
class LossConfig:
    """Weights of the parts of the loss; all compare pixels in [-1, 1]."""

    l1: float = 0.5
    """Mean absolute difference."""
    l2: float = 10.0
    """Mean squared difference: what PSNR measures."""
    edges: float = 0.05
    """Mean absolute difference of the videos' gradients in time and space, over three scales: keeps contours."""
    motion: float = 0.0
    """Extra weight, in l1 and l2, of what moves: a pixel counts 1 + motion * its distance from its mean over time."""
    changes: float = 0.0
    """Mean absolute difference of a cell's point from the one a cell of time before: what holds still keeps its code,
    and a model then codes it in few bits."""
    evenness: float = 0.0
    """How far FSQ's digits are from all levels in equal shares, each independent of the others (`vpoet.tokenizer.fsq`):
    with it more of the codebook is in use. Each process judges its own share of the batch."""
    perceptual: float = 0.0
    """Distance between features of a frozen EfficientNet-Lite0 (`vpoet.nn.features`); needs the extra "perceptual"."""


def reconstruction_loss(
    reconstructed: Tensor, video: Tensor, weights: LossConfig, features: FeatureNetwork | None = None
) -> dict[str, Tensor]:
    """The parts of the loss, unweighted, and their weighted sum under "loss"; both videos [B, 3, T, H, W]."""
    error = reconstructed.float() - video
    moving = 1 + weights.motion * (video - video.mean(2, keepdim=True)).abs().amax(1, keepdim=True)
    parts = {
        "l1": (moving * error.abs()).mean() / moving.mean(),
        "l2": (moving * error.square()).mean() / moving.mean(),
        "edges": edge_error(error),
    }
    if features is not None:
        shown = torch.randperm(video.shape[2])[:PERCEPTUAL_FRAMES].tolist()
        pair = (clip[:, :, shown].transpose(1, 2).flatten(0, 1) for clip in (reconstructed.float(), video))
        parts["perceptual"] = perceptual_distance(features, *pair).mean()
    return {"loss": sum(getattr(weights, name) * part for name, part in parts.items())} | parts


def edge_error(error: Tensor, scales: int = 3) -> Tensor:
    """Mean absolute first differences of ``error`` over time, height and width, summed over scales of half the size.

    As the error is linear in the videos, these are the differences between the videos' own gradients.
    """
    total = error.new_zeros(())
    for scale in range(scales):
        if scale:
            error = F.avg_pool3d(error, (1, 2, 2))
        total = total + sum(error.diff(dim=axis).abs().mean() for axis in (2, 3, 4) if error.shape[axis] > 1)
    return total
