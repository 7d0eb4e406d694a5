"""Emu3's video tokenizer (Wang et al., "Emu3: Next-Token Prediction is All You Need", arXiv:2409.18869, section 2.2),
in the network of the transformers library, so that its published weights run here.

    video [B, 3, T, H, W]
      residual blocks over each frame       a frame knows no other
      convolutions over time, causal        T to T / r
      nearest of a learned codebook         codes [B, t, h, w],  T = r t
    and the same way back.

A cell is r frames, the first one too: no image is a clip, and what needs one cannot be had (`Network.causal`). Cells
see none after their own all the same, and a few before it: those are coded again with every chunk, so that chunks give
what the whole clip gives in constant memory.

Modules are named as those of transformers are.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vpoet.errors import BackendError, ConfigError
from vpoet.tokenizer.layers import Past
from vpoet.tokenizer.network import Network
from vpoet.tokenizer.quantiser import Quantised, Quantiser
from vpoet.tokenizer.vq import nearest

FAMILY = "emu3"
LICENSE = "Apache-2.0"
GROUPS = 32
"""Of channels that are normed together: every width is a multiple."""


@dataclass(kw_only=True)
class Emu3Config:
    """Shape of the network, which can be read off the published tensors, and the norm of its pixels."""

    family: str = FAMILY
    """By which a folder's config is known."""
    time_stride: int = 4
    """Frames a cell stands for: a power of two."""
    codebook: int = 32768
    """Codes."""
    latent: int = 4
    """Numbers of a code's point."""
    channels: int = 256
    """Of the first convolution."""
    multipliers: list[int] = field(default_factory=lambda: [1, 2, 2, 4])
    """Channels of each level over ``channels``, from the full grid of pixels on; space halves between two."""
    blocks: int = 2
    """Residual blocks of a level of the encoder, and over time; a level of the decoder has one more."""
    attention: list[int] = field(default_factory=lambda: [3])
    """Levels with attention over the positions of a frame; they are as wide as the last."""
    mean: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])
    """Of R, G and B in [0, 1], which the network takes off."""
    deviation: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])
    """What it divides them by."""
    license: str = LICENSE
    """Of the weights: it goes with them wherever they go."""

    def __post_init__(self) -> None:
        if self.family != FAMILY:
            raise ConfigError(f"family is {self.family!r}, and this is the config of {FAMILY!r}")
        if self.time_stride not in (2, 4, 8):
            raise ConfigError(f"time_stride is {self.time_stride}; it is 2, 4 or 8")
        if min([self.latent, self.blocks, *self.multipliers]) < 1 or self.channels < 1 or self.channels % GROUPS:
            raise ConfigError(
                f"channels is a multiple of {GROUPS}, and multipliers, blocks and latent are 1 or more, not "
                f"{self.channels}, {self.multipliers}, {self.blocks} and {self.latent}"
            )
        if not 2 <= len(self.multipliers) <= 6:
            raise ConfigError(f"multipliers has {len(self.multipliers)} levels; it has 2 to 6")
        levels = range(len(self.multipliers))
        if any(level not in levels or self.multipliers[level] != self.multipliers[-1] for level in self.attention):
            raise ConfigError(f"attention is {self.attention}: give levels that are as wide as the last")
        if len(self.mean) != 3 or len(self.deviation) != 3 or not min(self.deviation) > 0:
            raise ConfigError("mean and deviation are three numbers each, and deviation is above 0")


class Codebook(Quantiser):
    """The nearest of learned points, which nothing here trains."""

    def __init__(self, points: nn.Embedding) -> None:
        super().__init__((points.num_embeddings,), points.embedding_dim)
        self.embedding = points

    def forward(self, z: Tensor) -> Quantised:
        codes = nearest(z.reshape(-1, self.width).float(), self.embedding.weight).view(z.shape[:-1])
        points = self.codes_to_points(codes)
        return Quantised(codes, points, points, z.new_zeros(()), self.use(codes))

    def codes_to_points(self, codes: Tensor) -> Tensor:
        return self.embedding.weight[codes.long()]


class Emu3(Network):
    """The whole of it. Chunks of a clip share one `Past` a direction: points and features of the cells before."""

    causal = False

    def __init__(self, config: Emu3Config) -> None:
        super().__init__()
        self.config = config
        theirs = _theirs(config)
        self.encoder, self.decoder = theirs.encoder, theirs.decoder
        self.quant_conv, self.post_quant_conv = theirs.quant_conv, theirs.post_quant_conv
        self.quantiser = Codebook(theirs.quantize.embedding)
        self.sees = 4 * config.blocks + 4
        """Cells before its own that a cell depends on, or more: two for each convolution over time at the rate of the
        cells, and two for those at the rates of the frames together."""

    @property
    def stride(self) -> tuple[int, int, int]:
        space = 2 ** (len(self.config.multipliers) - 1)
        return self.config.time_stride, space, space

    def vectors(self, video: Tensor, past: Past | None = None) -> Tensor:
        mean, deviation = self._norm(video)
        frames = ((video + 1) / 2 - mean) / deviation
        net: Any = self.encoder
        features = net.conv_in(frames.transpose(1, 2).flatten(0, 1))
        features = net.middle_block(net.down_block(features))
        features = net.conv_out(swish(net.norm_out(features)))
        features = features.view(len(video), -1, *features.shape[1:]).transpose(1, 2)
        features, before = _after(self.encoder, features, self.sees * self.config.time_stride, past)
        for layer in net.time_conv:
            features = swish(layer(features))
        for layer in net.time_res_stack:
            features = layer(features)
        out: Tensor = self.quant_conv(features)
        return out[:, :, before // self.config.time_stride :].permute(0, 2, 3, 4, 1)

    def draw(self, points: Tensor, past: Past | None = None, *, last: bool = True) -> Tensor:
        cells, before = _after(self.decoder, points.permute(0, 4, 1, 2, 3), self.sees, past)
        net: Any = self.decoder
        # what is drawn, and the points that guide every norm on the way: side by side as two clips
        both = torch.cat([self.post_quant_conv(cells), cells])
        for layer in net.time_res_stack:
            both = layer(both)
        for layer in net.time_conv:
            both = swish(layer(both))
        both = both[:, :, before * self.config.time_stride :]
        x, guide = (half.transpose(1, 2).flatten(0, 1) for half in both.chunk(2))
        x = net.up_block(net.middle_block(net.conv_in(x), guide), guide)
        frames = net.conv_out(swish(net.norm_out(x, guide)))
        frames = frames.view(len(points), -1, *frames.shape[1:]).transpose(1, 2)
        mean, deviation = self._norm(frames)
        out: Tensor = (frames * deviation + mean) * 2 - 1
        return out

    def _norm(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, deviation = (
            like.new_tensor(values).view(3, 1, 1, 1) for values in (self.config.mean, self.config.deviation)
        )
        return mean, deviation


def swish(x: Tensor) -> Tensor:
    """As they compute it, so that no code falls to the other side of a border."""
    return x * x.sigmoid()


def _after(layer: nn.Module, x: Tensor, count: int, past: Past | None) -> tuple[Tensor, int]:
    """[B, C, T, H, W] after the last ``count`` of the chunks before, and how many of those there are."""
    if past is None:
        return x, 0
    before = past.get(layer, x[:, :, :0])
    joined = torch.cat([before, x], 2)
    past[layer] = joined[:, :, -count:].clone()
    return joined, before.shape[2]


def _theirs(config: Emu3Config) -> Any:
    """The network of transformers; BackendError where it is not installed."""
    try:
        from transformers import Emu3VQVAE, Emu3VQVAEConfig  # seconds, and nobody else needs it
    except ImportError:
        raise BackendError(
            "Emu3's tokenizer runs in the network of transformers, which is not installed: pip install 'vpoet[emu3]'"
        ) from None
    settings = Emu3VQVAEConfig(
        codebook_size=config.codebook,
        embed_dim=config.latent,
        latent_channels=config.latent,
        temporal_downsample_factor=config.time_stride,
        base_channels=config.channels,
        channel_multiplier=list(config.multipliers),
        num_res_blocks=config.blocks,
        attn_resolutions=list(config.attention),
        hidden_size=config.channels * config.multipliers[-1],
    )
    return Emu3VQVAE(settings)
