"""A causal video autoencoder around a quantiser: one video becomes a small grid of codes, and the codes the video.

Causal in time: 1 + r*(t-1) frames give t cells; cell 0 is made from the first frame alone, cell j from frames 0 to r*j,
and frame i is drawn from cells 0 to ceil(i/r). An image is a video of one frame. (The layout of MAGVIT-v2, Yu et al.,
arXiv:2310.05737, section 3.2; the stem of patches and the factorised convolutions are for speed.)

    video [B, 3, T, H, W] in [-1, 1]
      patches of p x p pixels, linear      level 0   T      x H/p x W/p     widths[0]
      halve time and space, what is left   level 1   ...                    widths[1]
      ...                                  level n   t      x H/s x W/s     widths[n]
      linear, quantiser                    codes     [B, t, h, w]
    and the same way back, with blocks of its own at each level.

With ``upscale`` the patches of the way back are larger: the decoder draws more pixels than the encoder is shown, and
the codes are those of the smaller picture, whatever decoder draws them.
"""

import math
from dataclasses import dataclass, field, replace

import torch.nn.functional as F
from torch import Tensor, nn

from vpoet.errors import ConfigError
from vpoet.tokenizer.fsq import FSQ, LEVELS
from vpoet.tokenizer.layers import Block, Down, Past, RMSNorm, SpaceConv, Up, fold, unfold
from vpoet.tokenizer.lfq import LFQ
from vpoet.tokenizer.network import Network
from vpoet.tokenizer.quantiser import Quantised, Quantiser, QuantiserConfig
from vpoet.tokenizer.vq import VQ

TIME_STRIDES = (1, 2, 4, 8)
TIME_KERNELS = (1, 3)
SPACE_STRIDES = (4, 8, 16)
PATCHES = (2, 4, 8)
UPSCALES = (1, 2, 4)


SIZES: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    "tiny": ((32, 64, 96, 96), (0, 1, 1, 1), (1, 1, 2, 1)),
    "small": ((64, 160, 224, 256), (0, 1, 2, 2), (2, 2, 3, 2)),
    "base": ((192, 512, 896, 1024), (1, 2, 3, 2), (2, 3, 4, 2)),
}
"""Channels, encoder blocks and decoder blocks of each level, from patches on; a network takes as many as it has levels.

With 4x8x8 the parameters are: tiny 0.5M, small 4.5M, base 89M.
"""


@dataclass(kw_only=True)
class AutoencoderConfig:
    """Shape of the network. The lists run from level 0 (patches, full frame rate) to the grid of codes."""

    size: str = "small"
    """tiny, small or base (`SIZES`): what the lists below are where they are not given."""
    time_stride: int = 4
    """Frames a cell stands for: 1, 2, 4 or 8."""
    time_kernel: int = 3
    """Frames that a convolution over time sees: 3, or 1 with a time_stride of 1: every frame is coded on its own, and
    equal frames have equal codes whatever came before."""
    space_stride: int = 8
    """Pixels a cell stands for, down and across: 4, 8 or 16."""
    patch: int = 4
    """Pixels of a patch at level 0, down and across: 2, 4 or 8, at most ``space_stride``."""
    upscale: int = 1
    """1, 2 or 4: the decoder draws so many times the pixels down and across that the encoder sees, which sees means of
    them. A cell stands for ``upscale * space_stride`` pixels a side then; all sizes above are the encoder's."""
    quantiser: QuantiserConfig = field(default_factory=QuantiserConfig)
    widths: list[int] = field(default_factory=list)
    """Channels of each level; one more than the halvings, max(log2 time_stride, log2 space_stride/patch)."""
    encoder_blocks: list[int] = field(default_factory=list)
    """Residual blocks of the encoder at each level."""
    decoder_blocks: list[int] = field(default_factory=list)
    """Residual blocks of the decoder at each level; it has more to do than the encoder."""
    code_vectors: bool = False
    """With FSQ: the decoder adds a learned vector of each code to what it makes of the code's point, so that a code can
    stand for a picture that no neighbour on the grid resembles. widths[-1] numbers a code, and a look-up."""

    def __post_init__(self) -> None:
        # The lists are filled in here, so that a saved config means the same when a size is tuned again.
        if self.size not in SIZES:
            raise ConfigError(f"size is {self.size!r}; choose one of {', '.join(SIZES)}")
        if self.time_kernel not in TIME_KERNELS or (self.time_kernel == 1 and self.time_stride > 1):
            raise ConfigError(f"time_kernel is {self.time_kernel}; it is 3, or 1 where time_stride is 1")
        levels = len(halvings(self)) + 1
        for name, values in zip(("widths", "encoder_blocks", "decoder_blocks"), SIZES[self.size], strict=True):
            if not getattr(self, name):
                setattr(self, name, list(values[:levels]))
            if len(getattr(self, name)) != levels:
                raise ConfigError(
                    f"{name} has {len(getattr(self, name))} entries; strides {self.time_stride}x{self.space_stride}"
                    f"x{self.space_stride} with patches of {self.patch} need {levels}, one a level"
                )
        if self.code_vectors and self.quantiser.kind != "fsq":
            raise ConfigError(f"code_vectors is FSQ's; a code of {self.quantiser.kind} is a vector already")
        if min(self.widths) < 1 or min(self.encoder_blocks + self.decoder_blocks) < 0:
            raise ConfigError("widths must be 1 or more, encoder_blocks and decoder_blocks 0 or more")


def halvings(config: AutoencoderConfig) -> list[tuple[bool, bool]]:
    """For each step from one level to the next: does it halve time, does it halve space? ConfigError if impossible."""
    for name, allowed in (("time_stride", TIME_STRIDES), ("space_stride", SPACE_STRIDES), ("patch", PATCHES)):
        if getattr(config, name) not in allowed:
            raise ConfigError(f"{name} is {getattr(config, name)}; choose one of {', '.join(map(str, allowed))}")
    if config.upscale not in UPSCALES:
        raise ConfigError(f"upscale is {config.upscale}; choose one of {', '.join(map(str, UPSCALES))}")
    if config.patch > config.space_stride:
        raise ConfigError(f"patch {config.patch} is larger than space_stride {config.space_stride}; make it smaller")
    time = int(math.log2(config.time_stride))
    space = int(math.log2(config.space_stride // config.patch))
    return [(step < time, step < space) for step in range(max(time, space))]


def make_quantiser(config: QuantiserConfig, *, evenness: float = 0.0) -> Quantiser:
    """The quantiser that ``config`` describes; ``evenness`` weighs FSQ's loss, which no tokenizer's config keeps."""
    if config.kind == "lfq":
        return LFQ(config.codebook, entropy=config.entropy, commitment=config.commitment)
    if config.kind == "vq":
        return VQ(config.codebook, commitment=config.commitment)
    return FSQ(config.levels or LEVELS[config.codebook], evenness=evenness)


class Encoder(nn.Module):
    """Video [B, T, H, W, 3] to unquantised vectors [B, t, h, w, D]."""

    def __init__(self, config: AutoencoderConfig, vector: int) -> None:
        super().__init__()
        self.patch = config.patch
        widths, kernel = config.widths, config.time_kernel
        self.stem = nn.Linear(3 * config.patch**2, widths[0])
        layers: list[nn.Module] = [Block(widths[0], kernel) for _ in range(config.encoder_blocks[0])]
        for level, (time, space) in enumerate(halvings(config), start=1):
            layers.append(Down(widths[level - 1], widths[level], time=time, space=space, kernel=kernel))
            layers += [Block(widths[level], kernel) for _ in range(config.encoder_blocks[level])]
        self.layers = nn.ModuleList(layers)
        self.norm = RMSNorm(widths[-1])
        self.out = nn.Linear(widths[-1], vector)

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        x = self.stem(fold(x, self.patch))
        for layer in self.layers:
            x = layer(x, past)
        out: Tensor = self.out(self.norm(x))
        return out


class Decoder(nn.Module):
    """Quantised points [B, t, h, w, D], and their codes [B, t, h, w], to video [B, T, H, W, 3], not clipped."""

    def __init__(self, config: AutoencoderConfig, quantiser: Quantiser) -> None:
        super().__init__()
        self.patch = config.patch * config.upscale
        widths, kernel = config.widths, config.time_kernel
        self.stem = nn.Linear(quantiser.width, widths[-1])
        self.code_vectors = nn.Embedding(quantiser.size, widths[-1]) if config.code_vectors else None
        if self.code_vectors is not None:
            nn.init.zeros_(self.code_vectors.weight)
        layers: list[nn.Module] = [Block(widths[-1], kernel) for _ in range(config.decoder_blocks[-1])]
        for level, (time, space) in reversed(list(enumerate(halvings(config)))):
            layers.append(Up(widths[level + 1], widths[level], time=time, space=space))
            layers += [Block(widths[level], kernel) for _ in range(config.decoder_blocks[level])]
        self.layers = nn.ModuleList(layers)
        self.norm = RMSNorm(widths[0])
        self.out = SpaceConv(widths[0], 3 * self.patch**2)

    def forward(self, points: Tensor, codes: Tensor | None, past: Past | None = None) -> Tensor:
        x = self.stem(points)
        if self.code_vectors is not None:
            x = x + self.code_vectors(codes)
        for layer in self.layers:
            x = layer(x, past)
        return unfold(self.out(self.norm(x)), self.patch)


class Autoencoder(Network):
    """Encoder, quantiser and decoder. Chunks of a clip share one `Past` a direction; see `vpoet.tokenizer.layers`."""

    def __init__(self, config: AutoencoderConfig, *, evenness: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.quantiser = make_quantiser(config.quantiser, evenness=evenness)
        self.encoder = Encoder(config, self.quantiser.width)
        self.decoder = Decoder(config, self.quantiser)

    def forward(self, video: Tensor) -> tuple[Tensor, Quantised]:
        """Video [B, 3, T, H, W] in [-1, 1] to its reconstruction (same shape, not clipped) and what was quantised."""
        quantised = self.quantise(video)
        return self.draw(quantised.points), quantised

    @property
    def stride(self) -> tuple[int, int, int]:
        side = self.config.space_stride * self.config.upscale
        return self.config.time_stride, side, side

    def quantise(self, video: Tensor) -> Quantised:
        """Codes and the points [B, t, h, w, D] that carry the gradient."""
        quantised: Quantised = self.quantiser(self.vectors(video))
        return quantised

    def vectors(self, video: Tensor, past: Past | None = None) -> Tensor:
        if self.config.upscale > 1:
            video = F.avg_pool3d(video, (1, self.config.upscale, self.config.upscale))
        vectors: Tensor = self.encoder(video.permute(0, 2, 3, 4, 1), past)
        return vectors

    def begin_with(self, other: "Autoencoder") -> None:
        """Take the weights of a network of the same config, or of one that draws fewer pixels (``upscale``) or has no
        ``code_vectors``: the first pictures are its own, each pixel become a square of them, and vectors begin at zero.
        ConfigError for any other."""
        ours, theirs = self.config, other.config
        times, rest = divmod(ours.upscale, theirs.upscale)
        alike = replace(theirs, upscale=ours.upscale, code_vectors=theirs.code_vectors or ours.code_vectors)
        if rest or alike != ours:
            raise ConfigError("a network of another config")
        weights = other.state_dict()
        if times > 1:
            for name in ("decoder.out.linear.weight", "decoder.out.linear.bias"):
                rows = weights[name].unflatten(0, (other.decoder.patch, other.decoder.patch, 3))
                weights[name] = rows.repeat_interleave(times, 0).repeat_interleave(times, 1).flatten(0, 2)
        self.load_state_dict(self.state_dict() | weights)

    def draw(self, points: Tensor, past: Past | None = None, *, last: bool = True) -> Tensor:
        codes = None
        if self.config.code_vectors:
            assert isinstance(self.quantiser, FSQ)
            codes = self.quantiser.points_to_codes(points)
        video: Tensor = self.decoder(points, codes, past)
        return video.permute(0, 4, 1, 2, 3)


def count_parameters(module: nn.Module) -> int:
    """Numbers that training changes."""
    return sum(parameter.numel() for parameter in module.parameters())
