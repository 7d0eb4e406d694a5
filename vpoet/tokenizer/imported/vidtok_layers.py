"""Layers of VidTok's network (`vpoet.tokenizer.imported.vidtok`), named as the published tensors are.

Every tensor is [B, C, T, H, W]: B clips, C channels, T frames or cells in time, H by W positions. Causal layers take
their own entry of a `Past` and leave the next one, as those of `vpoet.tokenizer.layers`.

What stands for the frames before a clip differs: nothing (zeros) in VidTok 1.0, and in 1.1 (``still``) its first frame.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpoet.tokenizer.layers import KERNEL, Past


def extended(layer: nn.Module, x: Tensor, count: int, past: Past | None, *, still: bool) -> Tensor:
    """``x`` with the ``count`` frames before it; the last ``count`` of it are what ``layer`` remembers."""
    before = None if past is None else past.get(layer)
    if before is None:
        first = x[:, :, :1] if still else torch.zeros_like(x[:, :, :1])
        before = first.expand(-1, -1, count, -1, -1)
    x = torch.cat([before, x], 2)
    if past is not None:
        past[layer] = x[:, :, x.shape[2] - count :].clone()
    return x


class Norm(nn.Module):
    """Layer norm over the channels of each position."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x.movedim(1, -1))
        return out.movedim(-1, 1)


class SpaceConv(nn.Conv2d):
    """3x3 within each frame."""

    def __init__(self, channels: int, out: int, kernel: int = KERNEL) -> None:
        super().__init__(channels, out, kernel, padding=kernel // 2)

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        frames = super().forward(x.transpose(1, 2).flatten(0, 1))
        return frames.view(len(x), -1, *frames.shape[1:]).transpose(1, 2)


class TimeConv(nn.Module):
    """3 over time, causal."""

    def __init__(self, channels: int, out: int, *, still: bool) -> None:
        super().__init__()
        self.still = still
        self.conv = nn.Conv1d(channels, out, KERNEL)

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        x = extended(self, x, KERNEL - 1, past, still=self.still)
        return F.conv3d(x, self.conv.weight[..., None, None], self.conv.bias)


class Conv(nn.Module):
    """3x3x3, causal in time, or 1x1x1. A ``stride`` of 2 in time makes n frames of 2n."""

    def __init__(self, channels: int, out: int, kernel: int = KERNEL, stride: int = 1, *, still: bool) -> None:
        super().__init__()
        self.before, self.still = kernel - stride, still
        self.conv = nn.Conv3d(channels, out, kernel, (stride, 1, 1), (0, kernel // 2, kernel // 2))

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        if self.before:
            x = extended(self, x, self.before, past, still=self.still)
        out: Tensor = self.conv(x)
        return out


class Block(nn.Module):
    """Residual block: twice norm, SiLU and a convolution, one of the above."""

    def __init__(self, channels: int, out: int, conv: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.norm1, self.conv1 = Norm(channels), conv(channels, out)
        self.norm2, self.conv2 = Norm(out), conv(out, out)
        self.nin_shortcut = SpaceConv(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)), past)
        h = self.conv2(F.silu(self.norm2(h)), past)
        out: Tensor = h + self.nin_shortcut(x)
        return out


class Attention(nn.Module):
    """One head over the positions of each frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = Norm(channels)
        self.q, self.k, self.v, self.proj_out = (Conv(channels, channels, 1, still=False) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (layer(h).permute(0, 2, 3, 4, 1).flatten(2, 3) for layer in (self.q, self.k, self.v))
        batch, channels, frames, height, width = x.shape
        h = F.scaled_dot_product_attention(q, k, v).view(batch, frames, height, width, channels)
        out: Tensor = x + self.proj_out(h.movedim(-1, 1))
        return out


class Middle(nn.Module):
    """Two blocks at the coarsest level, and attention between them."""

    def __init__(self, channels: int, *, still: bool) -> None:
        super().__init__()

        def conv(channels: int, out: int) -> Conv:
            return Conv(channels, out, still=still)

        self.block_1, self.attn_1 = Block(channels, channels, conv), Attention(channels)
        self.block_2 = Block(channels, channels, conv)

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        out: Tensor = self.block_2(self.attn_1(self.block_1(x, past)), past)
        return out


class Down(nn.Module):
    """Halves space."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, KERNEL, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        frames: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)).transpose(1, 2).flatten(0, 1))
        return frames.view(len(x), -1, *frames.shape[1:]).transpose(1, 2)


class Up(nn.Module):
    """Doubles space: repeated, and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = SpaceConv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x.repeat_interleave(2, 3).repeat_interleave(2, 4))
        return out


class TimeDown(nn.Module):
    """Halves time, 2n frames to n: an average of three frames and a convolution, mixed in a learned proportion."""

    def __init__(self, channels: int, *, still: bool) -> None:
        super().__init__()
        self.still = still
        self.conv = Conv(channels, channels, stride=2, still=still)
        self.mix_factor = nn.Parameter(torch.tensor([2.0]))

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        threes = extended(self, x, 1, past, still=self.still)
        averaged, share = F.avg_pool3d(threes, (KERNEL, 1, 1), (2, 1, 1)), self.mix_factor.sigmoid()
        out: Tensor = share * averaged + (1 - share) * self.conv(x, past)
        return out


class TimeUp(nn.Module):
    """Doubles time: as it is and convolved, mixed in a learned proportion. VidTok 1.0 repeats each frame.

    VidTok 1.1 (``still``) interpolates, so that a frame's second half needs the frame after it; but the first ``first``
    frames, which come from the clip's first cell, and those after them are two runs that don't know each other.

        in    | a | b c d ...
        out   | a a | b  (3b+c)/4  (b+3c)/4  (3c+d)/4 ...      where b is the run's first frame, and its last ends alike

    In chunks, the second half of a chunk's last frame waits for the next chunk; the ``last`` one holds nothing back.
    """

    def __init__(self, channels: int, first: int, *, still: bool) -> None:
        super().__init__()
        self.first, self.still = first, still
        self.conv = Conv(channels, channels, still=still)
        self.mix_factor = nn.Parameter(torch.tensor([2.0]))

    def forward(self, x: Tensor, past: Past | None = None, *, last: bool = True) -> Tensor:
        x = self._interpolated(x, past, last=last) if self.still else x.repeat_interleave(2, 2)
        share = self.mix_factor.sigmoid()
        out: Tensor = share * x + (1 - share) * self.conv(x, past)
        return out

    def _interpolated(self, x: Tensor, past: Past | None, *, last: bool) -> Tensor:
        begins = past is None or self not in past
        runs = [twice(x[:, :, : self.first])] if begins else []
        run = x[:, :, self.first :] if begins else x
        # of the run so far, the last frame alone: empty before the run's first
        waiting = x[:, :, :0] if past is None or begins else past[self]
        if past is not None:
            past[self] = torch.cat([waiting, run], 2)[:, :, -1:].clone()
        if run.shape[2]:
            known = waiting.shape[2]
            doubled = twice(torch.cat([waiting, run], 2))
            runs.append(doubled[:, :, known : doubled.shape[2] - (not last)])
        return torch.cat(runs, 2)


def twice(x: Tensor) -> Tensor:
    """Frames [B, C, T, H, W] to 2 T of them, each a quarter of a frame from one of those, by linear interpolation."""
    before, after = torch.cat([x[:, :, :1], x[:, :, :-1]], 2), torch.cat([x[:, :, 1:], x[:, :, -1:]], 2)
    return torch.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], 3).flatten(2, 3)
