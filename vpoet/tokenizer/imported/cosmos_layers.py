"""Layers of Cosmos's network (`vpoet.tokenizer.imported.cosmos`), named as the published tensors are.

Every tensor is [B, C, T, H, W]: B clips, C channels, T frames or cells in time, H by W positions. Causal layers take
their own entry of a `Past` and leave the next one, as those of `vpoet.tokenizer.layers`.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpoet.tokenizer.layers import KERNEL, Past


class Conv(nn.Module):
    """Over space (1x3x3), over time (3x1x1, causal), or neither (1x1x1)."""

    def __init__(self, channels: int, out: int, time: int = 1, space: int = 1, stride: int = 1) -> None:
        """``stride`` is of the axes that the kernel covers."""
        super().__init__()
        self.over_time, self.stride = time == KERNEL, stride
        strides = (stride, 1, 1) if self.over_time else (1, stride, stride)
        # half as large a grid has its border at the bottom and right alone: `Down` adds it
        padding = (0, space // 2, space // 2) if stride == 1 else 0
        self.conv3d = nn.Conv3d(channels, out, (time, space, space), strides, padding)

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        if self.over_time:
            before = None if past is None else past.get(self)
            if before is None:
                before = x[:, :, :1].expand(-1, -1, KERNEL - 1, -1, -1)
            x = torch.cat([before, x], 2)
            if past is not None:
                past[self] = x[:, :, x.shape[2] - (KERNEL - self.stride) :].clone()
        out: Tensor = self.conv3d(x)
        return out


def pair(channels: int, out: int) -> nn.ModuleList:
    """A 3x3x3 convolution in two: over space, then over time."""
    return nn.ModuleList([Conv(channels, out, space=KERNEL), Conv(out, out, time=KERNEL)])


def through(layers: Iterable[nn.Module], x: Tensor, past: Past | None) -> Tensor:
    for layer in layers:
        x = layer(x, past)
    return x


class Norm(nn.Module):
    """Mean and variance over channels and positions of each frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        frames = x.transpose(1, 2)
        out: Tensor = self.norm(frames.flatten(0, 1)).view(frames.shape)
        return out.transpose(1, 2)


class Block(nn.Module):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = Norm(channels), pair(channels, out)
        self.norm2, self.conv2 = Norm(out), pair(out, out)
        self.nin_shortcut = Conv(channels, out) if channels != out else nn.Identity()

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        h = through(self.conv1, F.silu(self.norm1(x)), past)
        h = through(self.conv2, F.silu(self.norm2(h)), past)
        out: Tensor = h + self.nin_shortcut(x)
        return out


class Attention(nn.Module):
    """One head: over the positions of a frame, or (``time``) over a position's frames up to its own."""

    def __init__(self, channels: int, *, time: bool) -> None:
        super().__init__()
        self.time = time
        self.norm = Norm(channels)
        self.q, self.k, self.v, self.proj_out = (Conv(channels, channels) for _ in range(4))

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        h = self.norm(x)
        q, k, v = self.q(h), self.k(h), self.v(h)
        if self.time and past is not None:
            k, v = (torch.cat([past[key], new], 2) if key in past else new for key, new in ((self.k, k), (self.v, v)))
            past[self.k], past[self.v] = k, v
        q, k, v = (self._rows(part) for part in (q, k, v))
        visible = None
        if self.time:
            count, known = q.shape[-2], k.shape[-2]
            visible = torch.ones(count, known, dtype=torch.bool, device=x.device).tril(known - count)
        h = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
        batch, channels, frames, height, width = x.shape
        if self.time:
            h = h.view(batch, height, width, frames, channels).permute(0, 4, 3, 1, 2)
        else:
            h = h.view(batch, frames, height, width, channels).permute(0, 4, 1, 2, 3)
        out: Tensor = x + self.proj_out(h)
        return out

    def _rows(self, x: Tensor) -> Tensor:
        """Rows that attend to each other: [B*H*W, T, C] over time, else [B*T, H*W, C]."""
        if self.time:
            return x.permute(0, 3, 4, 2, 1).flatten(0, 2)
        return x.permute(0, 2, 3, 4, 1).flatten(0, 1).flatten(1, 2)


class Middle(nn.Module):
    """Two blocks at the coarsest level, and attention between them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = Block(channels, channels)
        self.attn_1 = nn.ModuleList([Attention(channels, time=time) for time in (False, True)])
        self.block_2 = Block(channels, channels)

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        out: Tensor = self.block_2(through(self.attn_1, self.block_1(x, past), past), past)
        return out


class Level(nn.Module):
    """Residual blocks on one grid, and what leads to the next one: ``downsample`` or ``upsample``, if it differs."""

    def __init__(self, channels: int, width: int, blocks: int) -> None:
        super().__init__()
        self.block = nn.ModuleList([Block(channels if n == 0 else width, width) for n in range(blocks)])
        self.downsample: nn.Module | None = None
        self.upsample: nn.Module | None = None

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        x = through(self.block, x, past)
        for resample in (self.downsample, self.upsample):
            if resample is not None:
                x = resample(x, past)
        return x


class Down(nn.Module):
    """Halves space, then time; 1 + 2n frames become 1 + n. Each is a convolution and an average, added up."""

    def __init__(self, channels: int, *, time: bool, space: bool) -> None:
        super().__init__()
        self.time, self.space = time, space
        if space:
            self.conv1 = Conv(channels, channels, space=KERNEL, stride=2)
        if time:
            self.conv2 = Conv(channels, channels, time=KERNEL, stride=2)
        self.conv3 = Conv(channels, channels)

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        if self.space:
            x = self.conv1(F.pad(x, (0, 1, 0, 1))) + F.avg_pool3d(x, (1, 2, 2))
        if self.time:
            begins = past is None or self.conv2 not in past
            pairs = torch.cat([x[:, :, :1], x], 2) if begins else x
            x = self.conv2(x, past) + F.avg_pool3d(pairs, (2, 1, 1))
        out: Tensor = self.conv3(x)
        return out


class Up(nn.Module):
    """Doubles time, then space: repeated, and a convolution added. Of a clip's first cell one frame is left."""

    def __init__(self, channels: int, *, time: bool, space: bool) -> None:
        super().__init__()
        self.time, self.space = time, space
        if time:
            self.conv1 = Conv(channels, channels, time=KERNEL)
        if space:
            self.conv2 = Conv(channels, channels, space=KERNEL)
        self.conv3 = Conv(channels, channels)

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        if self.time:
            begins = past is None or self.conv1 not in past
            x = x.repeat_interleave(2, 2)[:, :, int(begins) :]
            x = self.conv1(x, past) + x
        if self.space:
            x = x.repeat_interleave(2, 3).repeat_interleave(2, 4)
            x = self.conv2(x) + x
        out: Tensor = self.conv3(x)
        return out


def haar(x: Tensor) -> Tensor:
    """Cubes of 2x2x2 to their eight sums and differences over 8: [B, C, T, H, W] to [B, 8*C, T/2, H/2, W/2]. Which
    axes are differences (time, height, width) is the channel's slowest index, read as three bits."""
    batch, channels, frames, height, width = x.shape
    cubes = x.view(batch, channels, frames // 2, 2, height // 2, 2, width // 2, 2)
    for axis in (3, 5, 7):
        first, second = cubes.unbind(axis)
        cubes = torch.stack([first + second, first - second], axis)
    return (cubes / 8).permute(0, 3, 5, 7, 1, 2, 4, 6).flatten(1, 4)


def inverse_haar(x: Tensor) -> Tensor:
    """Inverse of `haar`."""
    batch, channels, frames, height, width = x.shape
    cubes = x.view(batch, 2, 2, 2, channels // 8, frames, height, width)
    for axis in (1, 2, 3):
        first, second = cubes.unbind(axis)
        cubes = torch.stack([first + second, first - second], axis)
    return cubes.permute(0, 4, 5, 1, 6, 2, 7, 3).reshape(batch, -1, 2 * frames, 2 * height, 2 * width)
