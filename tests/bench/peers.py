"""Networks that vpoet's video autoencoder is measured against, with the part of its interface that training needs.

All have strides 4x8x8, take 1 + 4n frames and have 64,000 codes by FSQ; magvit2-pytorch brings its own FSQ. Their
widths are such that they have as many parameters as vpoet's small network, 4.5 million: the dense ones within 2 %, the
others within 4 %.

    dense         causal 3x3x3 convolutions, and in all else vpoet's layout: its patches, its blocks of each level
    dense_cosmos  the same in Cosmos-Tokenizer's layout: patches of 4x4, channels 1:2:2, 2 and 3 blocks a level
    dense_vidtok  the same in VidTok's layout: no patches, channels 1:2:4:4, 2 and 3 blocks a level
    emu3          Emu3VQVAE, of transformers
    magvit2       VideoTokenizer, of magvit2-pytorch

The two layouts are dense here, as in MAGVIT-v2. As published, Cosmos-Tokenizer has 1x3x3 convolutions before 3x1x1
ones; VidTok has 3x3 ones before causal ones over time, and 3x3x3 ones in the middle, at both ends and where time is
halved. Both have attention in the middle, which is left out: it costs time.
"""

import abc
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpoet.tokenizer.autoencoder import Autoencoder, AutoencoderConfig
from vpoet.tokenizer.fsq import FSQ, LEVELS
from vpoet.tokenizer.layers import RMSNorm, fold, unfold
from vpoet.tokenizer.quantiser import Quantised

CODEBOOK = LEVELS[2**16]
SPACE_HALVINGS = {4: 1, 1: 3}
"""Of patches of so many pixels, to cells of 8x8."""


class Shape(NamedTuple):
    """Of a dense network; the lists run from patches to cells."""

    patch: int
    widths: tuple[int, ...]
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]


SHAPES = {
    "dense": Shape(4, (32, 72, 104), (0, 1, 2), (2, 2, 3)),
    "dense_cosmos": Shape(4, (32, 68, 72), (2, 2, 4), (3, 3, 5)),
    "dense_vidtok": Shape(1, (16, 32, 68, 72), (2, 2, 2, 4), (3, 3, 3, 5)),
}
"""Cosmos-Tokenizer and VidTok have two more blocks at the coarsest level, around the attention."""

PACKAGES = {"emu3": "transformers", "magvit2": "magvit2_pytorch"}
"""What the networks of others are imported from; a benchmark leaves out what is not installed."""


def make(name: str) -> nn.Module:
    """The network of that name, with random weights, the same ones each time."""
    torch.manual_seed(0)
    if name == "vpoet":
        return Autoencoder(AutoencoderConfig(size="small"))
    if name == "emu3":
        return Emu3()
    if name == "magvit2":
        return Magvit2()
    return Dense(SHAPES[name])


class Peer(nn.Module, abc.ABC):
    """What the peers share: `quantise` and `draw` make `forward`."""

    @abc.abstractmethod
    def quantise(self, video: Tensor) -> Quantised:
        """Video [B, 3, T, H, W] in [-1, 1] to codes [B, t, h, w] and the points that carry the gradient."""

    @abc.abstractmethod
    def draw(self, points: Tensor) -> Tensor:
        """Those points to video [B, 3, T, H, W]."""

    def forward(self, video: Tensor) -> tuple[Tensor, Quantised]:
        quantised = self.quantise(video)
        return self.draw(quantised.points), quantised


class Norm(RMSNorm):
    """Over the channels of each position: causal, and cheaper than the group norms of the originals."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)


class Conv(nn.Module):
    """Causal convolution, kernel 3x3x3 or 1x1x1; the first frame is repeated in front.

    The weight is kept as a matrix [out, 3*3*3*channels] in the convolution's channels-last layout, as `SpaceConv` keeps
    its own, so that the peer, too, can be trained with Muon.
    """

    def __init__(self, channels: int, out: int, kernel: int = 3, *, time: bool = False, space: bool = False) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = (2 if time else 1, 2 if space else 1, 2 if space else 1)
        self.linear = nn.Linear(kernel**3 * channels, out)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.linear.weight.view(-1, self.kernel, self.kernel, self.kernel, x.shape[1]).permute(0, 4, 1, 2, 3)
        x = torch.cat([x[:, :, :1].expand(-1, -1, self.kernel - 1, -1, -1), x], 2)
        margin = self.kernel // 2
        return F.conv3d(x, kernel, self.linear.bias, self.stride, (0, margin, margin))


class Block(nn.Module):
    """Residual block: twice norm, SiLU, convolution; the last layer starts at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        last = Conv(channels, channels)
        nn.init.zeros_(last.linear.weight)
        nn.init.zeros_(last.linear.bias)
        self.layers = nn.Sequential(
            Norm(channels), nn.SiLU(), Conv(channels, channels), Norm(channels), nn.SiLU(), last
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Up(nn.Module):
    """Nearest neighbours, then a convolution; the clip's first frame stays one."""

    def __init__(self, channels: int, out: int, *, time: bool, space: bool) -> None:
        super().__init__()
        self.scale = (2 if time else 1, 2 if space else 1, 2 if space else 1)
        self.conv = Conv(channels, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=self.scale)[:, :, self.scale[0] - 1 :])


class Coder(nn.Module):
    """One direction: stem, layers, out."""

    def __init__(self, stem: nn.Module, layers: list[nn.Module], width: int, out: nn.Module) -> None:
        super().__init__()
        self.stem = stem
        self.layers = nn.Sequential(*layers, Norm(width), nn.SiLU())
        self.out = out

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layers(self.stem(x)))


class Dense(Peer):
    """Causal 3x3x3 convolutions throughout, in channels-last memory, which is the faster one here."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.quantiser = FSQ(CODEBOOK)
        patch, widths, encoder_blocks, decoder_blocks = shape
        steps = [
            {"time": step >= len(widths) - 3, "space": step < SPACE_HALVINGS[patch]} for step in range(len(widths) - 1)
        ]
        down: list[nn.Module] = [Block(widths[0]) for _ in range(encoder_blocks[0])]
        up: list[nn.Module] = [Block(widths[-1]) for _ in range(decoder_blocks[-1])]
        for level, step in enumerate(steps):
            down.append(Conv(widths[level], widths[level + 1], **step))
            down += [Block(widths[level + 1]) for _ in range(encoder_blocks[level + 1])]
        for level, step in reversed(list(enumerate(steps))):
            up.append(Up(widths[level + 1], widths[level], **step))
            up += [Block(widths[level]) for _ in range(decoder_blocks[level])]
        pixels, cell, vector = 3 * patch**2, widths[-1], self.quantiser.width
        self.encoder = Coder(Conv(pixels, widths[0]), down, cell, Conv(cell, vector, kernel=1))
        self.decoder = Coder(Conv(vector, cell, kernel=1), up, widths[0], Conv(widths[0], pixels))

    def quantise(self, video: Tensor) -> Quantised:
        x = fold(video.permute(0, 2, 3, 4, 1), self.shape.patch).permute(0, 4, 1, 2, 3)
        return self.quantiser(self.encoder(x).permute(0, 2, 3, 4, 1))

    def draw(self, points: Tensor) -> Tensor:
        x = self.decoder(points.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)
        return unfold(x, self.shape.patch).permute(0, 4, 1, 2, 3)


class Emu3(Peer):
    """Emu3VQVAE, an eighth as wide as published. It takes groups of 4 frames: the first frame comes 4 times."""

    def __init__(self) -> None:
        from transformers.models.emu3.configuration_emu3 import Emu3VQVAEConfig
        from transformers.models.emu3.modeling_emu3 import Emu3VQVAE

        super().__init__()
        self.quantiser = FSQ(CODEBOOK)
        vector = self.quantiser.width
        self.network = Emu3VQVAE(
            Emu3VQVAEConfig(
                codebook_size=1,
                embed_dim=vector,
                latent_channels=vector,
                temporal_downsample_factor=4,
                base_channels=32,
                channel_multiplier=(1, 2, 2, 4),
                num_res_blocks=2,
                hidden_size=32 * 4,
            )
        )
        del self.network.quantize  # its lookup passes no gradient

    def quantise(self, video: Tensor) -> Quantised:
        frames = torch.cat([video[:, :, :1].expand(-1, -1, 3, -1, -1), video], 2)
        x = self.network.encoder(frames.transpose(1, 2))
        return self.quantiser(self.network.quant_conv(x.transpose(1, 2)).permute(0, 2, 3, 4, 1))

    def draw(self, points: Tensor) -> Tensor:
        x = points.permute(0, 4, 1, 2, 3)
        frames = self.network.decoder(self.network.post_quant_conv(x).transpose(1, 2), x.transpose(1, 2))
        return frames.unflatten(0, (len(points), -1)).transpose(1, 2)[:, :, 3:]


class Magvit2(Peer):
    """VideoTokenizer of magvit2-pytorch, in the layout that its own documentation shows, a fifth as wide."""

    def __init__(self) -> None:
        from magvit2_pytorch import VideoTokenizer

        super().__init__()
        self.network = VideoTokenizer(
            image_size=64,
            init_dim=12,
            max_dim=96,
            layers=(
                "residual",
                "compress_space",
                ("consecutive_residual", 2),
                "compress_space",
                ("consecutive_residual", 2),
                "linear_attend_space",
                "compress_space",
                ("consecutive_residual", 2),
                "attend_space",
                "compress_time",
                ("consecutive_residual", 2),
                "compress_time",
                ("consecutive_residual", 2),
                "attend_time",
            ),
            use_fsq=True,
            fsq_levels=list(CODEBOOK),
            perceptual_loss_weight=0.0,
            use_gan=False,
        )
        del self.network.discr

    def quantise(self, video: Tensor) -> Quantised:
        points, codes = self.network.quantizers(self.network.encode(video))
        return Quantised(codes, points, points, points.new_zeros(()), points.new_zeros(()))

    def draw(self, points: Tensor) -> Tensor:
        return self.network.decode(points)
