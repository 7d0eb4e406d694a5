"""NVIDIA's discrete video tokenizer, Cosmos-Tokenize1 DV (Agarwal et al., "Cosmos World Foundation Model Platform for
Physical AI", arXiv:2501.03575, section 4), so that its published weights run here.

    video [B, 3, T, H, W]
      two or one Haar wavelet transforms    p x p x p pixels a position; frame 0 counts p times
      residual blocks, halving by level     widths[0] ... widths[-1]
      attention over space, then over time  at the coarsest level alone
      1x1x1 convolution, FSQ                codes [B, t, h, w],  T = 1 + r (t - 1)
    and the same way back.

Everything is causal: a convolution over time sees frames before its own (the first frame stands for those before it),
norms are per frame, and attention over time sees the past. So chunks give what the whole clip gives; but as attention
sees all of the past, what is kept of it (keys and values at the grid of codes) grows with the clip.

Modules are named as the published tensors are.
"""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpoet.errors import ConfigError
from vpoet.tokenizer.fsq import FSQ
from vpoet.tokenizer.imported.cosmos_layers import (
    Conv,
    Down,
    Level,
    Middle,
    Norm,
    Up,
    haar,
    inverse_haar,
    pair,
    through,
)
from vpoet.tokenizer.layers import Past
from vpoet.tokenizer.network import Network

FAMILY = "cosmos"
LICENSE = "NVIDIA Open Model License"
LEVELS = (8, 8, 8, 5, 5, 5)
STRIDES = ("4x8x8", "8x8x8", "8x16x16")


@dataclass(kw_only=True)
class CosmosConfig:
    """Shape of the network; but for the strides it can be read off the published tensors."""

    family: str = FAMILY
    """By which a folder's config is known."""
    time_stride: int
    """Frames a cell stands for: 4 or 8."""
    space_stride: int
    """Pixels a cell stands for, down and across: 8 or 16."""
    patch: int
    """Frames, and pixels down and across, that the wavelets gather in a position: 2 or 4."""
    channels: int = 128
    """Of the first convolution."""
    widths: list[int] = field(default_factory=lambda: [256, 512, 512])
    """Channels of each level, from the full grid of patches on."""
    blocks: int = 2
    """Residual blocks of a level of the encoder; the decoder has one more."""
    latent: int = 256
    """Channels between the networks and the 1x1x1 convolutions around the quantiser."""
    license: str = LICENSE
    """Of the weights: it goes with them wherever they go."""

    def __post_init__(self) -> None:
        if self.family != FAMILY:
            raise ConfigError(f"family is {self.family!r}, and this is the config of {FAMILY!r}")
        if f"{self.time_stride}x{self.space_stride}x{self.space_stride}" not in STRIDES:
            raise ConfigError(
                f"time_stride {self.time_stride} and space_stride {self.space_stride}: Cosmos has {', '.join(STRIDES)}"
            )
        if self.patch not in (2, 4):
            raise ConfigError(f"patch is {self.patch}; Cosmos has 2 or 4")
        if min([self.channels, self.blocks, self.latent, *self.widths]) < 1:
            raise ConfigError("channels, widths, blocks and latent must be 1 or more")
        if len(self.widths) <= max(self.halvings):
            raise ConfigError(f"widths has {len(self.widths)} levels; these strides need {max(self.halvings) + 1}")

    @property
    def halvings(self) -> tuple[int, int]:
        """How often time, and how often space, is halved after the wavelets."""
        return int(math.log2(self.time_stride // self.patch)), int(math.log2(self.space_stride // self.patch))

    def down(self, level: int) -> tuple[bool, bool]:
        """After ``level`` of the encoder: is time halved, is space? The finest come first."""
        time, space = self.halvings
        return level < time, level < space

    def up(self, level: int) -> tuple[bool, bool]:
        """Before the decoder comes to ``level`` - 1: is time doubled, is space? (In the published networks time never
        at the coarsest; space there only if it is halved more often than time.)"""
        time, space = self.halvings
        step = len(self.widths) - 1 - level
        doubled = level > 0 and 0 < step <= time
        return doubled, doubled or (level > 0 and step < space and space > time)


class Encoder(nn.Module):
    """Video [B, 3, T, H, W] in [-1, 1] to [B, latent, t, h, w]."""

    def __init__(self, config: CosmosConfig) -> None:
        super().__init__()
        self.patch = config.patch
        self.conv_in = pair(3 * config.patch**3, config.channels)
        self.down = nn.ModuleList()
        channels = config.channels
        for level, width in enumerate(config.widths):
            step = Level(channels, width, config.blocks)
            time, space = config.down(level)
            if time or space:
                step.downsample = Down(width, time=time, space=space)
            self.down.append(step)
            channels = width
        self.mid = Middle(channels)
        self.norm_out, self.conv_out = Norm(channels), pair(channels, config.latent)

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        if past is None or self not in past:
            x = torch.cat([x[:, :, :1].expand(-1, -1, self.patch - 1, -1, -1), x], 2)
        if past is not None:
            past[self] = x.new_empty(0)  # says only that the clip has begun
        for _ in range(int(math.log2(self.patch))):
            x = haar(x)
        x = through(self.conv_in, x, past)
        x = self.mid(through(self.down, x, past), past)
        return through(self.conv_out, F.silu(self.norm_out(x)), past)


class Decoder(nn.Module):
    """[B, latent, t, h, w] to video [B, 3, T, H, W], not clipped."""

    def __init__(self, config: CosmosConfig) -> None:
        super().__init__()
        self.patch = config.patch
        channels = config.widths[-1]
        self.conv_in, self.mid = pair(config.latent, channels), Middle(channels)
        levels: list[nn.Module] = []
        for level, width in reversed(list(enumerate(config.widths))):
            step = Level(channels, width, config.blocks + 1)
            time, space = config.up(level)
            if time or space:
                step.upsample = Up(width, time=time, space=space)
            levels.insert(0, step)
            channels = width
        self.up = nn.ModuleList(levels)
        self.norm_out, self.conv_out = Norm(channels), pair(channels, 3 * config.patch**3)

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        begins = past is None or self not in past
        if past is not None:
            past[self] = x.new_empty(0)
        x = self.mid(through(self.conv_in, x, past), past)
        x = through(reversed(self.up), x, past)
        x = through(self.conv_out, F.silu(self.norm_out(x)), past)
        for _ in range(int(math.log2(self.patch))):
            x = inverse_haar(x)
        return x[:, :, self.patch - 1 :] if begins else x


class Cosmos(Network):
    """The whole of it. Chunks of a clip share one `Past` a direction, as in `vpoet.tokenizer.layers`."""

    def __init__(self, config: CosmosConfig) -> None:
        super().__init__()
        self.config = config
        self.quantiser = FSQ(LEVELS)
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quant_conv, self.post_quant_conv = Conv(config.latent, len(LEVELS)), Conv(len(LEVELS), config.latent)

    @property
    def stride(self) -> tuple[int, int, int]:
        return self.config.time_stride, self.config.space_stride, self.config.space_stride

    def vectors(self, video: Tensor, past: Past | None = None) -> Tensor:
        out: Tensor = self.quant_conv(self.encoder(video, past))
        return out.permute(0, 2, 3, 4, 1)

    def draw(self, points: Tensor, past: Past | None = None, *, last: bool = True) -> Tensor:
        video: Tensor = self.decoder(self.post_quant_conv(points.permute(0, 4, 1, 2, 3)), past)
        return video
