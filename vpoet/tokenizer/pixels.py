"""Frames as tokenizers take them: whole cells of them, as tensors, and back."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from vpoet.arrays import Frames


def whole_cells(frames: Iterable[Frames], stride: Sequence[int], *, pad: bool, first: int = 1) -> Iterator[Frames]:
    """Frames uint8 [H, W, 3] as a tokenizer of ``stride`` (r, s, s) takes them: ``first`` + a multiple of r, of whole
    cells.

    With ``pad``, the last frame is repeated, and so are the bottom row and the right column: the first T frames, cut to
    [:H, :W], are the video again. Without, frames at the end that fill no cell are left out, and sides are as they are.
    """
    r, s, _ = stride
    held: list[Frames] = []
    for count, frame in enumerate(frames):
        down, across = -frame.shape[0] % s, -frame.shape[1] % s
        held.append(np.pad(frame, ((0, down), (0, across), (0, 0)), mode="edge") if pad and (down or across) else frame)
        if (count + 1 - first) % r == 0:
            yield from held
            held = []
    if pad and held:
        yield from held + held[-1:] * (r - len(held))


def to_float(frames: Frames, device: str | torch.device = "cpu") -> Tensor:
    """Frames uint8 [B, T, H, W, 3] to what networks take: float32 [B, 3, T, H, W] in [-1, 1]."""
    pixels = torch.from_numpy(np.ascontiguousarray(frames))
    if torch.device(device).type == "cuda":
        pixels = pixels.pin_memory().to(device, non_blocking=True)  # the host goes on while they are copied
    return pixels.permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def to_uint8(video: Tensor) -> Frames:
    """Inverse of `to_float`: clipped, and rounded to the nearest."""
    pixels = (video.float().clamp(-1, 1) + 1) * 127.5
    return pixels.round().to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous().cpu().numpy()
