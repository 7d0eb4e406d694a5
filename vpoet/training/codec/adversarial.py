"""The adversarial part of the tokenizer's training: a discriminator of patches, its losses, and its own optimizer.

A discriminator learns to tell clips of the data (real) from the autoencoder's reconstructions (fake); the autoencoder
learns to have them taken for real. (Generative Adversarial Nets, Goodfellow et al., arXiv:1406.2661; for tokenizers
VQGAN, Esser et al., arXiv:2012.09841, section 3.1, and over time MAGVIT, Yu et al., arXiv:2212.05199, section 3.1.) It
begins late, once the reconstruction is worth judging. In a step of training from `AdversarialConfig.start` on:

    fake = autoencoder(video)
    loss = reconstruction + adversary.generator_loss(fake, reconstruction, last layer)  ->  step of the autoencoder
    adversary.update(video, fake)                                                       ->  step of the discriminator

Every video here is [B, 3, T, H, W] in [-1, 1], a fake one not clipped: leaving the range is told from real as well.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Parameter

from vpoet.errors import ConfigError, ShapeError, VpoetError

GROUP = 16
"""Channels that group norm takes together (Wu and He, arXiv:1803.08494, who find it close to 32 groups)."""

DELTA = 1e-6
"""Keeps the adaptive weight finite (VQGAN, equation 7)."""

LARGEST_WEIGHT = 1e4
"""Bound of the adaptive weight: while the discriminator is flat there is no use in dividing by its gradient."""


@dataclass(kw_only=True)
class AdversarialConfig:
    """The adversarial term of the loss and the discriminator behind it."""

    weight: float = 0.0
    """The term's gradient at the decoder's last layer, as a fraction of the reconstruction's; 0 turns all of it off."""
    start: int = 1000
    """Optimiser step, counted from 0, at which the term and the discriminator's training begin."""
    width: int = 32
    """Channels of the discriminator's first layer, a multiple of 8; each further one doubles them. Isola et al.: 64."""
    layers: int = 3
    """Layers that halve height and width, 1 to 4. A logit judges 8, 18, 38 or 78 pixels across, after 1 to 4."""
    lr: float = 2e-4
    """The discriminator's learning rate, constant (Isola et al., section 3.3)."""

    def __post_init__(self) -> None:
        for name, good, wanted in (
            ("weight", self.weight >= 0, "at least 0"),
            ("start", self.start >= 0, "at least 0"),
            ("width", self.width > 0 and self.width % 8 == 0, "a multiple of 8, above 0"),
            ("layers", 1 <= self.layers <= 4, "1 to 4"),
            ("lr", self.lr > 0, "above 0"),
        ):
            if not good:
                raise ConfigError(f"adversarial.{name} = {getattr(self, name)}: must be {wanted}")


class PatchLayer(nn.Module):
    """Halve time (all layers but the first), then height and width; then norm (but in the first) and leaky ReLU.

    A convolution over time and one over space instead of one over both, and time first, so that the larger of the two
    works on half the frames: a third of the weights of 3x4x4 convolutions, and less work.
    """

    def __init__(self, channels: int, out: int, *, first: bool) -> None:
        super().__init__()
        self.time = nn.Identity() if first else nn.Conv3d(channels, channels, (3, 1, 1), (2, 1, 1), (1, 0, 0))
        self.space = nn.Conv3d(channels, out, (1, 4, 4), (1, 2, 2), (0, 1, 1))
        # The usual epsilon, 1e-5, is of the order of the variance that weights of 0.02 leave in a narrow network.
        self.norm = nn.Identity() if first else nn.GroupNorm(out // GROUP, out, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.space(self.time(x)))
        return F.leaky_relu(out, 0.2)


class PatchDiscriminator(nn.Module):
    """Judges a clip patch by patch: the PatchGAN of Isola et al. (arXiv:1611.07004, section 3.2.2), extended over time.

    Video [B, 3, T, H, W] to logits [B, 1, t, h, w], above 0 for real, where h = H // 2**layers, w likewise, and t is T
    halved layers - 1 times, rounded up: an image (T = 1) is judged by the same weights. Group norm, because batches are
    small and differ between processes. Weights start as N(0, 0.02), biases at 0 (section 6.2 there).
    """

    def __init__(self, config: AdversarialConfig) -> None:
        super().__init__()
        self.smallest = 2**config.layers
        widths = [3] + [config.width * 2**layer for layer in range(config.layers)]
        self.layers = nn.Sequential(*(PatchLayer(*pair, first=pair[0] == 3) for pair in pairwise(widths)))
        self.out = nn.Conv3d(widths[-1], 1, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.normal_(module.weight, std=0.02)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, video: Tensor) -> Tensor:
        """Logits of a video; ShapeError if it is smaller than one logit."""
        height, width = video.shape[-2:]
        if min(height, width) < self.smallest:
            raise ShapeError(
                f"the discriminator cannot judge {height}x{width} pixels: with its layers it takes {self.smallest} "
                "or more each way; lower adversarial.layers or train on larger clips"
            )
        # With the channels last it is faster on a CPU.
        out: Tensor = self.out(self.layers(video.contiguous(memory_format=torch.channels_last_3d)))
        return out


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of the logits of real and of fake clips, at least 0 and 2 for a discriminator that says 0 to all.

    (Lim and Ye, arXiv:1705.02894.) What is told right by a margin of 1 has no gradient.
    """
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """The other side of the hinge loss: logits of fake clips are to rise, without a bound."""
    return -fake.mean()


def adaptive_weight(reconstruction_loss: Tensor, generator_loss: Tensor, last_layer: Tensor) -> Tensor:
    """Factor that gives both losses gradients of one norm at ``last_layer`` (VQGAN, equation 7); in [0, 1e4], detached.

    Both losses are scalars whose graphs reach ``last_layer``; the graphs are kept for the step's own backward pass.
    """
    wanted, given = (
        torch.autograd.grad(loss, last_layer, retain_graph=True)[0].norm()
        for loss in (reconstruction_loss, generator_loss)
    )
    factor: Tensor = (wanted / (given + DELTA)).clamp(max=LARGEST_WEIGHT)
    return factor


class Adversary:
    """The discriminator, its AdamW, and what the tokenizer's training asks of them.

    ``dtype`` other than fp32 is autocast's for the matrix products. With several processes, all make theirs from one
    random state, and ``reduce`` averages the gradients of the parameters it is given over them, in place.
    """

    def __init__(
        self,
        config: AdversarialConfig,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        reduce: Callable[[Iterable[Parameter]], None] | None = None,
    ) -> None:
        self.config = config
        self.dtype = dtype
        self.reduce = reduce
        self.discriminator = PatchDiscriminator(config).to(device)
        self.optimizer = torch.optim.AdamW(
            self.discriminator.parameters(), lr=config.lr, betas=(0.5, 0.9), weight_decay=0.0, fused=True
        )

    def active(self, step: int) -> bool:
        """Whether optimiser step ``step``, counted from 0, has an adversarial term and an update."""
        return self.config.weight > 0 and step >= self.config.start

    def generator_loss(self, fake: Tensor, reconstruction_loss: Tensor, last_layer: Tensor) -> Tensor:
        """The weighted term to add to ``reconstruction_loss``; ``last_layer`` is the decoder's, which made ``fake``.

        Its gradient goes to ``fake`` alone, never to the discriminator. With several processes each weighs its own.
        """
        seen = fake.detach().float().requires_grad_()
        value = generator_loss(self._logits(seen))
        (slope,) = torch.autograd.grad(value, seen)
        # The adaptive weight and the step's backward pass both need this gradient. A loss that is linear in the clip,
        # with the same value and the same gradient, goes through the discriminator once, and frees its memory here.
        loss = value.detach() + ((fake.float() - seen.detach()) * slope).sum()
        return self.config.weight * adaptive_weight(reconstruction_loss, loss, last_layer) * loss

    def update(self, video: Tensor, fake: Tensor) -> dict[str, float]:
        """One step of the discriminator on as many real clips as fake ones, ``fake`` without its gradient.

        Returns for the log, of this process: its loss, and the shares of logits that judge right, ``d_real`` on real
        clips and ``d_drawn`` on the others. VpoetError, with the weights as they were, if the gradient is not finite.
        """
        real_logits, fake_logits = self._logits(torch.cat([video, fake.detach().float()])).chunk(2)
        loss = discriminator_loss(real_logits, fake_logits)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.reduce is not None:
            self.reduce(self.discriminator.parameters())
        norm = nn.utils.get_total_norm(p.grad for p in self.discriminator.parameters() if p.grad is not None)
        right = [(real_logits > 0).float().mean(), (fake_logits < 0).float().mean()]
        # the only look at the device
        gradient, value, d_real, d_drawn = torch.stack([norm, loss.detach(), *right]).tolist()
        if not math.isfinite(gradient):
            raise VpoetError(
                f"the discriminator's gradient is {gradient}; training has diverged. Start again from the last "
                "checkpoint's weights with a lower adversarial.lr or adversarial.weight, or with dtype=fp32"
            )
        self.optimizer.step()
        return {"d_loss": value, "d_real": d_real, "d_drawn": d_drawn}

    def _logits(self, video: Tensor) -> Tensor:
        with torch.autocast(video.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits: Tensor = self.discriminator(video)
        return logits.float()
