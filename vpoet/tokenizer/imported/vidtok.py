"""VidTok's causal tokenizers with FSQ codes (Tang et al., "VidTok: A Versatile and Open-Source Video Tokenizer",
arXiv:2412.13061, section 3), so that their published weights run here.

    video [B, 3, T, H, W]
      3x3x3 convolution                       the clip's first frame r times
      residual blocks over space, over time   widths[0] ... widths[-1]; space halves at every level, time at some
      attention over space                    at the coarsest level alone
      3x3x3 convolution, FSQ                  codes [B, t, h, w],  T = 1 + r (t - 1)
    and the same way back.

Encoders are causal: a cell sees its own frames and those before. So is the decoder of VidTok 1.0; that of 1.1
interpolates over time, and all but the first of the frames of a clip see up to one cell ahead. Chunks give what the
whole clip gives in both, and what is kept does not grow with the clip.

Modules are named as the published tensors are.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpoet.errors import ConfigError
from vpoet.tokenizer.fsq import FSQ
from vpoet.tokenizer.imported.vidtok_layers import (
    Block,
    Conv,
    Down,
    Middle,
    Norm,
    SpaceConv,
    TimeConv,
    TimeDown,
    TimeUp,
    Up,
)
from vpoet.tokenizer.layers import Past
from vpoet.tokenizer.network import Network

FAMILY = "vidtok"
LICENSE = "MIT"
LEVEL = 8
"""FSQ levels of every digit, in all that is published."""
VERSIONS = ("1.0", "1.1")


@dataclass(kw_only=True)
class VidTokConfig:
    """Shape of the network; but for the version it can be read off the published tensors."""

    family: str = FAMILY
    """By which a folder's config is known."""
    version: str = "1.0"
    """1.0, or 1.1: trained on for long videos, with other borders in time and a decoder that interpolates over time."""
    digits: int = 5
    """Of a code: 4 to 6, of 8 FSQ levels each."""
    channels: int = 128
    """Of the first convolution."""
    widths: list[int] = field(default_factory=lambda: [128, 256, 512, 512])
    """Channels of each level, from the full grid of pixels on; space halves between two."""
    halved: list[int] = field(default_factory=lambda: [1, 2])
    """Levels of the encoder after which time halves."""
    doubled: list[int] = field(default_factory=lambda: [1, 2])
    """Levels of the decoder after which time doubles; it begins at the last."""
    blocks: int = 2
    """Residual blocks over space, and over time, of a level of the encoder; the decoder has one more of each."""
    license: str = LICENSE
    """Of the weights: it goes with them wherever they go."""

    def __post_init__(self) -> None:
        if self.family != FAMILY:
            raise ConfigError(f"family is {self.family!r}, and this is the config of {FAMILY!r}")
        if self.version not in VERSIONS:
            raise ConfigError(f"version is {self.version!r}; VidTok has {' and '.join(VERSIONS)}")
        if self.digits not in (4, 5, 6):
            raise ConfigError(f"digits is {self.digits}; VidTok's codes have 4, 5 or 6")
        if not 2 <= len(self.widths) <= 6 or min([self.channels, self.blocks, *self.widths]) < 1:
            raise ConfigError("channels, blocks and the 2 to 6 widths must be 1 or more")
        resampled = range(len(self.widths) - 1), range(1, len(self.widths))
        for name, levels, there in zip(("halved", "doubled"), (self.halved, self.doubled), resampled, strict=True):
            if len(set(levels)) != len(levels) or not set(levels) <= set(there):
                raise ConfigError(f"{name} is {levels}: give different levels from {there[0]} to {there[-1]}")
        if len(self.halved) != len(self.doubled):
            raise ConfigError(f"time halves {len(self.halved)} times and doubles {len(self.doubled)} times")

    @property
    def strides(self) -> tuple[int, int, int]:
        """(r, s, s): frames, pixels down and pixels across of a cell."""
        space = 2 ** (len(self.widths) - 1)
        return 2 ** len(self.halved), space, space


class Level(nn.Module):
    """Of one grid: residual blocks over space or over time, and what leads to the next one."""

    def __init__(self, blocks: list[Block], downsample: nn.Module | None = None, upsample: nn.Module | None = None):
        super().__init__()
        self.block = nn.ModuleList(blocks)
        self.downsample, self.upsample = downsample, upsample


class Encoder(nn.Module):
    """Video [B, 3, T, H, W] in [-1, 1] to [B, digits, t, h, w]."""

    def __init__(self, config: VidTokConfig) -> None:
        super().__init__()
        self.missing, still = config.strides[0] - 1, config.version == "1.1"
        self.conv_in = Conv(3, config.channels, still=still)
        self.down, self.down_temporal = nn.ModuleList(), nn.ModuleList()
        channels, over_time = config.channels, partial(TimeConv, still=still)
        for level, width in enumerate(config.widths):
            space = [Block(channels if n == 0 else width, width, SpaceConv) for n in range(config.blocks)]
            time = [Block(width, width, over_time) for _ in range(config.blocks)]
            self.down.append(Level(space, downsample=Down(width) if level < len(config.widths) - 1 else None))
            halving = TimeDown(width, still=still) if level in config.halved else None
            self.down_temporal.append(Level(time, downsample=halving))
            channels = width
        self.mid = Middle(channels, still=still)
        self.norm_out, self.conv_out = Norm(channels), Conv(channels, config.digits, still=still)

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        if past is None or self not in past:
            x = torch.cat([x[:, :, :1].expand(-1, -1, self.missing, -1, -1), x], 2)
        if past is not None:
            past[self] = x.new_empty(0)  # says only that the clip has begun
        x = self.conv_in(x, past)
        for space, time in _pairs(self.down, self.down_temporal):
            x = _blocks(space, time, x, past)
            if space.downsample is not None:
                x = space.downsample(x)
            if time.downsample is not None:
                x = time.downsample(x, past)
        out: Tensor = self.conv_out(F.silu(self.norm_out(self.mid(x, past))), past)
        return out


class Decoder(nn.Module):
    """[B, digits, t, h, w] to video [B, 3, T, H, W], not clipped."""

    def __init__(self, config: VidTokConfig) -> None:
        super().__init__()
        self.missing, still = config.strides[0] - 1, config.version == "1.1"
        channels = config.widths[-1]
        self.conv_in, self.mid = Conv(config.digits, channels, still=still), Middle(channels, still=still)
        self.up, self.up_temporal = nn.ModuleList(), nn.ModuleList()
        first, over_time = 1, partial(TimeConv, still=still)
        for level, width in reversed(list(enumerate(config.widths))):
            space = [Block(channels if n == 0 else width, width, SpaceConv) for n in range(config.blocks + 1)]
            time = [Block(width, width, over_time) for _ in range(config.blocks + 1)]
            self.up.insert(0, Level(space, upsample=Up(width) if level > 0 else None))
            doubling = TimeUp(width, first, still=still) if level in config.doubled else None
            self.up_temporal.insert(0, Level(time, upsample=doubling))
            first, channels = first * (2 if doubling else 1), width
        self.norm_out, self.conv_out = Norm(channels), Conv(channels, 3, still=still)

    def forward(self, x: Tensor, past: Past | None = None, *, last: bool = True) -> Tensor:
        begins = past is None or self not in past
        if past is not None:
            past[self] = x.new_empty(0)
        x = self.mid(self.conv_in(x, past), past)
        for space, time in reversed(_pairs(self.up, self.up_temporal)):
            x = _blocks(space, time, x, past)
            if space.upsample is not None:
                x = space.upsample(x)
            if time.upsample is not None:
                x = time.upsample(x, past, last=last)
        x = self.conv_out(F.silu(self.norm_out(x)), past)
        return x[:, :, self.missing :] if begins else x


def _pairs(space: nn.ModuleList, time: nn.ModuleList) -> list[tuple[Level, Level]]:
    return list(zip(cast(Iterable[Level], space), cast(Iterable[Level], time), strict=True))


def _blocks(space: Level, time: Level, x: Tensor, past: Past | None) -> Tensor:
    """Through the blocks of a level: one over space, one over time, and so on."""
    for one, other in zip(space.block, time.block, strict=True):
        x = other(one(x), past)
    return x


class VidTok(Network):
    """The whole of it. Chunks of a clip share one `Past` a direction, as in `vpoet.tokenizer.layers`."""

    def __init__(self, config: VidTokConfig) -> None:
        super().__init__()
        self.config = config
        self.quantiser = FSQ([LEVEL] * config.digits)
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.sees_ahead = config.version == "1.1"

    @property
    def stride(self) -> tuple[int, int, int]:
        strides: tuple[int, int, int] = self.config.strides
        return strides

    def vectors(self, video: Tensor, past: Past | None = None) -> Tensor:
        out: Tensor = self.encoder(video, past)
        return out.permute(0, 2, 3, 4, 1)

    def draw(self, points: Tensor, past: Past | None = None, *, last: bool = True) -> Tensor:
        video: Tensor = self.decoder(points.permute(0, 4, 1, 2, 3), past, last=last)
        return video
