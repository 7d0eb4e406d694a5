"""A video tokenizer as two programs that PyTorch runs without vpoet (torch.export): frames to codes, codes to frames.

Of any length and any size that the tokenizer has a grid for; a clip in one piece, as `VideoTokenizer.encode_batch` and
`VideoTokenizer.decode_batch` take it, of more than one cell on each axis.
"""

import copy

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from vpoet.errors import BackendError
from vpoet.tokenizer.network import Network
from vpoet.tokenizer.video import VideoTokenizer


class _Encoder(nn.Module):
    """uint8 [1, T, H, W, 3] to int32 [1, t, h, w]."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        network.decoder = nn.Identity()  # whose weights would only lie in the file

    def forward(self, frames: Tensor) -> Tensor:
        return self.network.encode(frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1).int()


class _Decoder(nn.Module):
    """int32 [1, t, h, w] to uint8 [1, T, H, W, 3]."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        network.encoder = nn.Identity()

    def forward(self, codes: Tensor) -> Tensor:
        pixels = (self.network.decode(codes.long()).clamp(-1, 1) + 1) * 127.5
        return pixels.round().to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous()


def programs(tokenizer: VideoTokenizer) -> dict[str, ExportedProgram]:
    """``encoder`` and ``decoder``. BackendError: PyTorch cannot trace the network for all sizes at once."""
    model = copy.deepcopy(tokenizer.model).cpu()
    # how many codes a clip uses is training's to know, and asks for the clip's size as a number
    model.quantiser.use = lambda codes: codes.new_zeros((), dtype=torch.float32)  # type: ignore[method-assign]
    encoder, decoder = _Encoder(copy.deepcopy(model)), _Decoder(model)
    (r, s, _), first = tokenizer.stride, tokenizer.frames(1)
    t, h, w = (Dim(name, min=2, max=1 << 12) for name in ("cells", "rows", "columns"))
    further = Dim("further_cells", min=1, max=1 << 12)
    frames = torch.zeros(1, 2 * r + first, 3 * s, 4 * s, 3, dtype=torch.uint8)
    codes = torch.zeros(1, 3, 3, 4, dtype=torch.int32)
    sizes = {1: r * further + first, 2: s * h, 3: s * w}
    try:
        return {
            "encoder": torch.export.export(encoder, (frames,), dynamic_shapes=(sizes,)),
            "decoder": torch.export.export(decoder, (codes,), dynamic_shapes=({1: t, 2: h, 3: w},)),
        }
    except (RuntimeError, ValueError, AssertionError) as error:  # torch's errors of tracing have no common class
        told = " ".join(str(error).split())[:300]
        raise BackendError(f"torch.export cannot trace this tokenizer ({tokenizer.hash}): {told}") from None
