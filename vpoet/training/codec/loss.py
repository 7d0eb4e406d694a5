"""Losses of the video tokenizer: pixels, edges, perceptual features of a frozen network, and codes that hold still."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vpoet.errors import ConfigError
from vpoet.nn.features import FeatureNetwork, perceptual_distance

STILL = 2 * 4 / 255
"""A pixel that changes by no more than this, 4 of 255 levels, holds still: compression leaves so much."""
FREE = 0.25
"""Steps from the middle of a level within which a latent may lie free of charge; the next level begins at 0.5."""
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
    still: float = 0.0
    """FSQ: how far cells whose pixels hold still stray from the levels that they had before (`still_error`)."""
    evenness: float = 0.0
    """How far FSQ's digits are from all levels in equal shares, each independent of the others (`vpoet.tokenizer.fsq`):
    with it more of the codebook is in use. Each process judges its own share of the batch."""
    perceptual: float = 0.0
    """Distance between features of a frozen EfficientNet-Lite0 (`vpoet.nn.features`); needs the extra "perceptual"."""

    def __post_init__(self) -> None:
        for name, weight in vars(self).items():
            if not 0 <= weight < math.inf:
                raise ConfigError(f"loss.{name} = {weight}: must be a number, 0 or more")


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


def still_cells(video: Tensor, cells: tuple[int, int, int]) -> Tensor:
    """Which cells hold still: bool [B, t-1, h, w] for a video [B, 3, T, H, W] of so many cells [t, h, w].

    Those of which no pixel changes from the last frame of the cell before to the cell's own last one by more than
    `STILL`, in any channel.
    """
    t, h, w = cells
    moved = video.diff(dim=2).abs().amax(1)
    batch, steps, height, width = moved.shape
    moved = moved.reshape(batch, t - 1, steps // (t - 1), h, height // h, w, width // w)
    return moved.amax((2, 4, 6)) <= STILL


def still_error(latents: Tensor, video: Tensor) -> Tensor:
    """How far the latents [B, t, h, w, D] of cells that hold still lie from the levels that they had before.

    A code is to change only where its pixels do: an unchanged one costs a model of the codes next to nothing, and it
    does not flicker. The encoder sees beyond a cell, in space and in time, so nothing but this makes it so. Codes
    themselves have no gradient. A penalty on the points (``changes``) has one, but charges what moves as well, and none
    while two frames round alike, however near the border between two levels they lie, where the next frame falls on its
    other side. So the latents are compared before rounding: that of a frame with the middle of the level to which the
    one before it was rounded, as a commitment (van den Oord et al., arXiv:1711.00937, section 3.2) to the code that is
    there already. Within `FREE` of it there is no charge: the latent is free to say what it does, at a distance from
    the border that is its hysteresis. Mean of the squares, in steps between levels, over all latents that hold still.
    """
    still = still_cells(video, (latents.shape[1], latents.shape[2], latents.shape[3]))[..., None].float()
    strayed = (latents[:, 1:] - latents[:, :-1].detach().round()).abs()
    excess = (strayed - FREE).clamp(min=0).square() * still
    return excess.sum() / (still.sum() * latents.shape[-1]).clamp(min=1)
