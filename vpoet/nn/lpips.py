"""LPIPS: how far apart two pictures are as a trained network sees them, weighted as people judged (Zhang et al., 2018).

Features of AlexNet or VGG16 are scaled to length 1 over channels in each of five layers; the squared differences are
weighted by channel (the "lin" weights, fitted to people's judgements), averaged over space, and summed over layers.
Version 0.1, whose input is normalised. The names of the weights are torchvision's and those of the package lpips.

Shape letters: N pictures, C channels of a layer, h and w its sides.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-10
"""Added to lengths, as the package does."""
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)

Layer = tuple[int, int, int, int]
ALEX: Sequence[Layer | None] = (
    (0, 64, 11, 4),
    None,
    (3, 192, 5, 1),
    None,
    (6, 384, 3, 1),
    (8, 256, 3, 1),
    (10, 256, 3, 1),
)
VGG: Sequence[Layer | None] = (
    (0, 64, 3, 1), (2, 64, 3, 1), None, (5, 128, 3, 1), (7, 128, 3, 1), None, (10, 256, 3, 1), (12, 256, 3, 1),
    (14, 256, 3, 1), None, (17, 512, 3, 1), (19, 512, 3, 1), (21, 512, 3, 1), None, (24, 512, 3, 1), (26, 512, 3, 1),
    (28, 512, 3, 1),
)  # fmt: skip
"""Convolutions, each with a ReLU: number in torchvision's list, channels, kernel, stride. None: a pooling."""
TAKEN = {"alex": (0, 3, 6, 8, 10), "vgg": (2, 7, 14, 21, 28)}
"""After which convolutions features are taken."""


class LPIPS(nn.Module):
    """The distance of pictures [N, 3, H, W] in [-1, 1], RGB: 0 of equals."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """From weights ``IDX.weight``, ``IDX.bias`` of the convolutions and ``linK`` [C]. KeyError, RuntimeError: one
        is missing, or of another shape."""
        super().__init__()
        self.kind = "vgg" if "28.weight" in weights else "alex"
        self._layers = VGG if self.kind == "vgg" else ALEX
        self.convolutions = nn.ModuleDict()
        inward = 3
        for layer in self._layers:
            if layer is None:
                continue
            number, outward, kernel, stride = layer
            # all keep their size but AlexNet's first, of kernel 11 and stride 4
            convolution = nn.Conv2d(inward, outward, kernel, stride, padding=2 if kernel > 3 else 1)
            convolution.load_state_dict({name: weights[f"{number}.{name}"] for name in ("weight", "bias")})
            self.convolutions[str(number)] = convolution
            inward = outward
        for i, number in enumerate(TAKEN[self.kind]):
            channels = len(weights[f"{number}.bias"])
            self.register_buffer(f"lin{i}", weights[f"lin{i}"].reshape(1, channels, 1, 1).float())
        self.register_buffer("shift", torch.tensor(SHIFT).view(3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(3, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, a_N3HW: Tensor, b_N3HW: Tensor) -> Tensor:
        total = a_N3HW.new_zeros(len(a_N3HW))
        for i, (a_NChw, b_NChw) in enumerate(zip(self._features(a_N3HW), self._features(b_N3HW), strict=True)):
            difference = (_unit(a_NChw) - _unit(b_NChw)).square()
            total = total + (difference * self.get_buffer(f"lin{i}")).sum(1).mean((1, 2))
        return total

    def _features(self, x: Tensor) -> list[Tensor]:
        x = (x - self.get_buffer("shift")) / self.get_buffer("scale")
        found = []
        for layer in self._layers:
            if layer is None:
                x = F.max_pool2d(x, 3, 2) if self.kind == "alex" else F.max_pool2d(x, 2)
                continue
            x = F.relu(self.convolutions[str(layer[0])](x))
            if layer[0] in TAKEN[self.kind]:
                found.append(x)
        return found


def _unit(x_NChw: Tensor) -> Tensor:
    return x_NChw / (x_NChw.square().sum(1, keepdim=True).sqrt() + EPSILON)
