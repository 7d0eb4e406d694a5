"""What `VideoTokenizer` asks of a network: vectors out of video, video out of points, and a quantiser between them."""

import abc
from typing import Any

from torch import Tensor, nn

from vpoet.tokenizer.layers import Past
from vpoet.tokenizer.quantiser import Quantiser


class Network(nn.Module, abc.ABC):
    """Base of the video tokenizers' networks: no cell sees a later one.

    Chunks of a clip share one `Past` a direction: the first chunk has 1 + r*(t-1) frames, every later one r*t. Where
    the network is not `causal`, all have r*t.
    """

    config: Any
    """The dataclass that it is built from (`vpoet.tokenizer.families`)."""
    quantiser: Quantiser
    causal = True
    """Whether a clip's first cell is its first frame alone, so that an image is a clip: 1 + r*(t-1) frames are t cells.
    Else each cell is r frames, and an image has no codes."""
    sees_ahead = False
    """Whether what is drawn of a cell depends on the cell after it too (`draw`)."""

    @property
    @abc.abstractmethod
    def stride(self) -> tuple[int, int, int]:
        """(r, s, s): frames, pixels down and pixels across that one code stands for."""

    @abc.abstractmethod
    def vectors(self, video: Tensor, past: Past | None = None) -> Tensor:
        """Video [B, 3, T, H, W] in [-1, 1] to what is quantised, [B, t, h, w, D]."""

    @abc.abstractmethod
    def draw(self, points: Tensor, past: Past | None = None, *, last: bool = True) -> Tensor:
        """The quantiser's points [B, t, h, w, D] to video [B, 3, T, H, W], not clipped.

        Where the network sees ahead, a chunk that is not the ``last`` of its clip keeps back the frames that wait for
        the cell after it; the next chunk begins with them.
        """

    def encode(self, video: Tensor, past: Past | None = None) -> Tensor:
        """Video [B, 3, T, H, W] in [-1, 1] to int64 codes [B, t, h, w]."""
        codes: Tensor = self.quantiser(self.vectors(video, past)).codes
        return codes

    def decode(self, codes: Tensor, past: Past | None = None, *, last: bool = True) -> Tensor:
        """Codes [B, t, h, w] to video [B, 3, T, H, W], not clipped; ``last`` as in `draw`."""
        return self.draw(self.quantiser.codes_to_points(codes), past, last=last)
