"""Layers of the video autoencoder: convolutions over space and causal ones over time, all on channels-last grids.

Every tensor is [B, T, H, W, C]: B clips, T frames or cells in time, H by W positions, C channels. With the channels
last a convolution over time is a matrix product over neighbouring frames, and one over space reads memory in place.

A causal layer needs frames from before its input. In a whole clip there are none, and the first frame is repeated. In a
clip that arrives in chunks they come from `Past`, which the caller keeps: a layer takes its own entry and leaves the
next one. Memory is thus constant in the length of the clip, and no module has a hidden state. Norms are per position,
never across time, so that chunks and single images give what the whole clip gives.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KERNEL = 3
"""Frames that a convolution over time sees: its own and two before."""

Past = dict[nn.Module, Tensor]
"""What each causal layer remembers of the chunks before; empty at the start of a clip."""


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm over the channels of each position (Zhang and Sennrich, arXiv:1910.07467)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """As the base, with the gain in the input's type: under autocast the fused kernel needs them equal."""
        assert self.weight is not None
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class CausalConv(nn.Module):
    """Convolution over time with a kernel of 3, stride 1 or 2; output j sees inputs up to ``stride * j``, no later.

    With stride 2 a clip of 1 + 2n frames gives 1 + n, the first from the first frame alone. A kernel of 1, at stride 1,
    is a linear layer: frames are taken one by one.
    """

    def __init__(self, channels: int, out: int, stride: int = 1, kernel: int = KERNEL) -> None:
        super().__init__()
        assert kernel == KERNEL or stride == 1
        self.stride, self.kernel = stride, kernel
        self.linear = nn.Linear(kernel * channels, out)

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        if self.kernel == 1:
            alone: Tensor = self.linear(x)
            return alone
        before = None if past is None else past.get(self)
        if before is None:
            before = x[:, :1].expand(-1, KERNEL - 1, -1, -1, -1)
        x = torch.cat([before, x], 1)
        if past is not None:
            kept = KERNEL - self.stride
            past[self] = x[:, x.shape[1] - kept :].clone()
        count = (x.shape[1] - KERNEL) // self.stride + 1
        ends = [first + self.stride * (count - 1) + 1 for first in range(KERNEL)]
        windows = torch.cat([x[:, first : ends[first] : self.stride] for first in range(KERNEL)], -1)
        out: Tensor = self.linear(windows)
        return out


class SpaceConv(nn.Module):
    """A 3x3 convolution within each frame.

    The weight is kept as a matrix [out, 3*3*channels], the convolution's own channels-last layout: it is viewed, not
    copied, and an optimiser for matrices (Muon) takes it as it is.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(9 * channels, out)

    def forward(self, x: Tensor) -> Tensor:
        frames = x.flatten(0, 1).permute(0, 3, 1, 2)
        kernel = self.linear.weight.view(-1, 3, 3, x.shape[-1]).permute(0, 3, 1, 2)
        out = _convolve(frames, kernel, self.linear.bias).permute(0, 2, 3, 1)
        return out.reshape(*x.shape[:4], -1)


def _convolve(frames: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """A 3x3 convolution, of which each frame has the same bits alone and beside others: a small frame that is alone
    would be handed to another kernel on a CPU, which adds in another order."""
    lone = not torch.compiler.is_compiling() and not torch.is_grad_enabled() and len(frames) == 1
    by_cpu = lone and frames.device.type == "cpu" and frames.dtype == torch.float32
    if by_cpu and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        alone: Tensor = torch.ops.aten.mkldnn_convolution(frames, kernel, bias, [1, 1], [1, 1], [1, 1], 1)
        return alone
    return F.conv2d(frames, kernel, bias, padding=1)


class Block(nn.Module):
    """Residual block: norm, 3x3 over space, SiLU, causal ``kernel`` over time. The last layer starts at zero: an
    identity."""

    def __init__(self, channels: int, kernel: int = KERNEL) -> None:
        super().__init__()
        self.norm = RMSNorm(channels)
        self.space = SpaceConv(channels, channels)
        self.time = CausalConv(channels, channels, kernel=kernel)
        nn.init.zeros_(self.time.linear.weight)
        nn.init.zeros_(self.time.linear.bias)

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        out: Tensor = x + self.time(F.silu(self.space(self.norm(x))), past)
        return out


class Down(nn.Module):
    """Halve space (2x2 positions become channels) and, where asked, time; then to ``out`` channels."""

    def __init__(self, channels: int, out: int, *, time: bool, space: bool, kernel: int = KERNEL) -> None:
        super().__init__()
        self.factor = 2 if space else 1
        self.mix = CausalConv(channels * self.factor**2, out, stride=2 if time else 1, kernel=kernel)

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        out: Tensor = self.mix(fold(x, self.factor), past)
        return out


class Up(nn.Module):
    """Inverse sizes of `Down`. In time every cell becomes two, and the clip's very first frame is dropped again."""

    def __init__(self, channels: int, out: int, *, time: bool, space: bool) -> None:
        super().__init__()
        self.time = time
        self.factor = 2 if space else 1
        self.linear = nn.Linear(channels, out * self.factor**2 * (2 if time else 1))

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        x = self.linear(x)
        if self.time:
            batch, cells, height, width, _ = x.shape
            x = x.view(batch, cells, height, width, 2, -1).permute(0, 1, 4, 2, 3, 5)
            x = x.reshape(batch, 2 * cells, height, width, -1)
            if past is None or self not in past:
                x = x[:, 1:]
            if past is not None:
                past[self] = x.new_empty(0)  # says only that the clip has begun
        return unfold(x, self.factor)


def fold(x: Tensor, factor: int) -> Tensor:
    """Squares of ``factor`` x ``factor`` positions become channels: [B, T, H, W, C] to [B, T, H/f, W/f, f*f*C]."""
    batch, time, height, width, channels = x.shape
    x = x.reshape(batch, time, height // factor, factor, width // factor, factor, channels)
    return x.permute(0, 1, 2, 4, 3, 5, 6).flatten(4)


def unfold(x: Tensor, factor: int) -> Tensor:
    """Inverse of `fold`."""
    batch, time, height, width, _ = x.shape
    x = x.reshape(batch, time, height, width, factor, factor, -1).permute(0, 1, 2, 4, 3, 5, 6)
    return x.reshape(batch, time, height * factor, width * factor, -1)
