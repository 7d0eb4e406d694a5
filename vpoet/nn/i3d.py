"""I3D, the network of FVD: Inception-v1 with filters inflated over time (Carreira and Zisserman, 2017, section 2).

With the names that pytorch-i3d gave its weights, so that the state dicts which FVD's programs share fit as they are.
Padding is TensorFlow's "same": the filters meet the borders as they did in training, zeros around pooling too.

Shape letters: N clips, C channels, T frames, H and W their sides.
"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 400
"""Of Kinetics-400."""
SIDE = 224
LEAST_FRAMES = 9
"""Fewer leave one step in time after three halvings, and the last pooling takes two."""
EPSILON = 1e-5
"""Of batch normalisation, as VideoGPT's state dict was made for."""

Triple = tuple[int, int, int]


class Unit(nn.Module):
    """A convolution with "same" padding; batch normalisation and ReLU unless it is the last one, which has a bias."""

    def __init__(self, inward: int, outward: int, kernel: int, stride: int = 1, last: bool = False) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(inward, outward, kernel, stride, bias=last)
        self.bn = None if last else nn.BatchNorm3d(outward, eps=EPSILON)

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        kernel, stride = self.conv3d.kernel_size, self.conv3d.stride
        found: Tensor = self.conv3d(_padded(x_NCTHW, kernel, stride))
        return found if self.bn is None else F.relu(self.bn(found))


class Pool(nn.Module):
    """Maxima with "same" padding, by zeros: what is pooled is never negative."""

    def __init__(self, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        return F.max_pool3d(_padded(x_NCTHW, self.kernel, self.stride), self.kernel, self.stride)


class Mixed(nn.Module):
    """Four branches side by side (Szegedy et al., 2015, figure 2b): 1x1 | 1x1, 3x3 | 1x1, 3x3 | pooling, 1x1."""

    def __init__(self, inward: int, *widths: int) -> None:
        super().__init__()
        alone, before_a, a, before_b, b, pooled = widths
        self.b0 = Unit(inward, alone, 1)
        self.b1a, self.b1b = Unit(inward, before_a, 1), Unit(before_a, a, 3)
        self.b2a, self.b2b = Unit(inward, before_b, 1), Unit(before_b, b, 3)
        self.b3a, self.b3b = Pool((3, 3, 3), (1, 1, 1)), Unit(inward, pooled, 1)

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        branches = (self.b0,), (self.b1a, self.b1b), (self.b2a, self.b2b), (self.b3a, self.b3b)
        return torch.cat([functools.reduce(lambda x, layer: layer(x), each, x_NCTHW) for each in branches], 1)


class I3D(nn.Module):
    """Clips [N, 3, T, 224, 224] in [-1, 1], of `LEAST_FRAMES` frames or more, to the 400 logits of Kinetics, averaged
    over time: the features of FVD (Unterthiner et al., 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, 2)
        self.MaxPool3d_2a_3x3 = Pool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = Unit(64, 64, 1)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3)
        self.MaxPool3d_3a_3x3 = Pool((1, 3, 3), (1, 2, 2))
        self.Mixed_3b = Mixed(192, 64, 96, 128, 16, 32, 32)
        self.Mixed_3c = Mixed(256, 128, 128, 192, 32, 96, 64)
        self.MaxPool3d_4a_3x3 = Pool((3, 3, 3), (2, 2, 2))
        self.Mixed_4b = Mixed(480, 192, 96, 208, 16, 48, 64)
        self.Mixed_4c = Mixed(512, 160, 112, 224, 24, 64, 64)
        self.Mixed_4d = Mixed(512, 128, 128, 256, 24, 64, 64)
        self.Mixed_4e = Mixed(512, 112, 144, 288, 32, 64, 64)
        self.Mixed_4f = Mixed(528, 256, 160, 320, 32, 128, 128)
        self.MaxPool3d_5a_2x2 = Pool((2, 2, 2), (2, 2, 2))
        self.Mixed_5b = Mixed(832, 256, 160, 320, 32, 128, 128)
        self.Mixed_5c = Mixed(832, 384, 192, 384, 48, 128, 128)
        self.logits = Unit(1024, CLASSES, 1, last=True)

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        *body, logits = self.children()
        for layer in body:
            x_NCTHW = layer(x_NCTHW)
        found: Tensor = logits(F.avg_pool3d(x_NCTHW, (2, SIDE // 32, SIDE // 32), stride=1))
        return found.mean((2, 3, 4))


def _padded(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Zeros around time, height and width, one more behind than before where they are odd."""
    around: list[int] = []
    for size, reach, step in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        lacking = max(reach - (size % step or step), 0)
        around += [lacking // 2, lacking - lacking // 2]
    return F.pad(x, around)
