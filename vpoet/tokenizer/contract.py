"""What everything downstream knows of a video tokenizer: whoever has these methods can be encoded, trained on, sampled
and scored with. `VideoTokenizer` meets it, with a network of ours or an imported one.

Most are causal in time: T = 1 + r*(t-1) frames are t cells, and an image is a clip of one frame. Of one that is not,
T = r*t: it has no codes of images, and so none of the tasks that need some. Those are refused, and say why.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import numpy.typing as npt
import torch

from vpoet.arrays import Codes, Frames
from vpoet.sequence.vocabulary import Vocabulary
from vpoet.tokenizer.layers import Past
from vpoet.tokenizer.text import TextTokenizer

CHUNK = 4
"""Cells of time that are encoded or decoded at once, if nothing else is asked for."""


class Tokenizer(Protocol):
    """Frames uint8 [T, H, W, 3] to codes int32 [t, h, w] and back."""

    hash: str
    """Of all that it is: two tokenizers with one hash give the same codes and frames."""
    codes: str
    """Of what its codes mean: what shards and models must have in common."""
    dtype: str
    """The arithmetic it computes in: fp32 or tf32."""

    @property
    def model(self) -> torch.nn.Module:
        """The network, of whose layers a `Past` tells."""

    @property
    def device(self) -> torch.device: ...

    @property
    def stride(self) -> tuple[int, int, int]:
        """(r, s, s): frames, pixels down and pixels across that one code stands for."""

    @property
    def causal(self) -> bool:
        """Whether a clip's first cell is its first frame alone."""

    @property
    def first(self) -> int:
        """Frames of the first cell: 1, or r where it is not causal."""

    @property
    def levels(self) -> tuple[int, ...]:
        """Radix of each digit of a code, the least significant first."""

    @property
    def codebook_size(self) -> int:
        """Number of codes: the product of the levels."""

    def frames(self, t: int) -> int:
        """Frames that ``t`` cells of time make."""

    def grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Cells (t, h, w) of a video of this size; DataError if it has no grid."""

    def vocabulary(self, text: TextTokenizer, groups: int) -> Vocabulary:
        """Of a model of ``text`` and these codes."""

    def encode(self, video: Any, chunk_cells: int = CHUNK) -> Codes:
        """Frames [T, H, W, 3] to codes [t, h, w]."""

    def encode_stream(self, frames: Iterable[Frames], chunk_cells: int = CHUNK) -> Iterator[Codes]:
        """Frames [H, W, 3] one by one to pieces [chunk_cells, h, w] of what `encode` gives."""

    def encode_clips(self, clips: Sequence[Frames], chunk_cells: int = CHUNK) -> list[Codes]:
        """Clips [T, H, W, 3] of one size to the codes of each."""

    def encode_batch(self, frames: Frames) -> Codes:
        """Clips [B, T, H, W, 3] to codes [B, t, h, w], each in one piece."""

    def decode(self, codes: npt.NDArray[Any], chunk_cells: int = CHUNK) -> Frames:
        """Codes [t, h, w] to frames [T, s*h, s*w, 3]."""

    def decode_stream(self, pieces: Iterable[npt.NDArray[Any]]) -> Iterator[Frames]:
        """Pieces [k, h, w] of a video's codes to as many pieces of its frames."""

    def decode_next(self, codes: npt.NDArray[Any], past: Past, *, last: bool = False) -> Frames:
        """One piece of `decode_stream`; ``past`` is empty before the first, and a copy of it goes on by itself."""

    def decode_batch(self, codes: npt.NDArray[Any]) -> Frames:
        """Codes [B, t, h, w] to clips [B, T, H, W, 3]."""

    def to(self, device: str | torch.device, dtype: str = "fp32") -> Self:
        """Move to a device; returns itself."""

    def save(self, folder: str | Path) -> None:
        """Write what `VideoTokenizer.load` reads."""
