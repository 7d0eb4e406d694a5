"""A cache for play that goes on for ever: its sink, the last text, and a ring of the frames of a window.

    sink                 text            ring: frame f in row f mod window
    <bos> .. header      the last one    row 0        row 1        row 2
                                         frame 3      frame 4 ..   frame 2          window 3, in frame 4

There is room for a text as soon as one comes (`RingCache.with_text`): most games have none.

A frame is written over the one that left the window with its first token, and a text over the one before it, as
`vpoet.sequence.windows` has it: what a token sees here is what it sees in the full pass. All places are read at each
step and a mask says which are seen, so memory and the shapes of all operations stay the same, frame after frame.

Shapes: N slots, W new tokens a slot, S places of a slot, K key/value heads, H head size.
"""

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vpoet.arrays import Longs
from vpoet.nn.cache import attend_where
from vpoet.nn.transformer import TransformerConfig
from vpoet.nn.visibility import Attend, Visibility


@dataclass(frozen=True, slots=True)
class RingSizes:
    """Places of a slot."""

    sink: int
    text: int
    window: int
    """Frames that are seen, the one that is being made included."""
    frame: int
    """Tokens of a frame."""

    @property
    def places(self) -> int:
        return self.sink + self.text + self.window * self.frame


class RingCache:
    """Keys and values of each layer [N, K, S, H], and how far each slot is filled."""

    def __init__(self, config: TransformerConfig, sizes: RingSizes, *, slots: int, like: Tensor) -> None:
        """``like`` has the device and dtype of keys and values."""
        self.sizes, self._config = sizes, config
        shape = slots, config.kv_heads, sizes.places, config.head
        self.keys = [like.new_zeros(shape) for _ in range(config.depth)]
        self.values = [like.new_zeros(shape) for _ in range(config.depth)]
        self.sink_N = np.zeros(slots, np.int64)
        """Tokens of the sink, and of the last text, by slot."""
        self.text_N = np.zeros(slots, np.int64)
        self.frames = 0
        """Frames that are whole."""
        place_S = torch.arange(sizes.places, device=like.device)
        at_S = place_S - sizes.sink - sizes.text
        self._place_S = place_S
        self._row_S = torch.where(at_S >= 0, at_S // sizes.frame, sizes.window)

    def prefill(self, visibility: Visibility, packed: Attend, sinks: Longs) -> Attend:
        """Attention of a pack of prompts, computed by ``packed``: document n fills slot n, ``sinks[n]`` tokens its sink
        and those behind them the beginning of its first frame."""
        assert self.frames == 0
        assert sinks.max() <= self.sizes.sink, (sinks, self.sizes)
        self.sink_N = sinks
        bounds, ring = visibility.bounds, self.sizes.sink + self.sizes.text

        def attend(layer: int, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor) -> Tensor:
            for held, new_TKH in ((self.keys[layer], k_TKH), (self.values[layer], v_TKH)):
                for slot, (sink, start, stop) in enumerate(zip(sinks.tolist(), bounds[:-1], bounds[1:], strict=True)):
                    new_KTH = new_TKH[start:stop].transpose(0, 1)
                    held[slot, :, :sink] = new_KTH[:, :sink]
                    held[slot, :, ring : ring + stop - start - sink] = new_KTH[:, sink:]
            return packed(layer, q_TNH, k_TKH, v_TKH)

        return attend

    def attend_text(self, offset_NW: Longs) -> Attend:
        """Attention of a text's tokens between two frames, the ``offset_NW``-th of it each; a first one begins it."""
        assert offset_NW.max() < self.sizes.text, (offset_NW.max(), self.sizes)
        seen_S = self._row_S < min(self.frames, self.sizes.window)
        self.text_N = offset_NW.max(1) + 1
        places = self._places(seen_S, self.sizes.sink, np.zeros_like(self.text_N), offset_NW)
        return attend_where(self.keys, self.values, *places)

    def attend_frame(self, offset_NW: Longs) -> Attend:
        """Attention of tokens of the frame behind those that are whole: the ``offset_NW``-th of it, over what is there;
        what lies behind it in the frame is unseen."""
        return attend_where(self.keys, self.values, *self.places(offset_NW))

    def places(self, offset_NW: Longs) -> tuple[Tensor, Tensor]:
        """Where `attend_frame` writes each token, and which places it sees: [N, W], [N, W, S]."""
        assert offset_NW.max() < self.sizes.frame, (offset_NW.max(), self.sizes)
        row = self.frames % self.sizes.window
        seen_S = (self._row_S < min(self.frames, self.sizes.window)) & (self._row_S != row)
        first = self.sizes.sink + self.sizes.text + row * self.sizes.frame
        return self._places(seen_S, first, self.text_N, offset_NW)

    def with_text(self, text: int) -> "RingCache":
        """The same content, with room for so many tokens of a text where there was none."""
        assert self.sizes.text == 0, self.sizes
        like, sink = self.keys[0], self.sizes.sink
        other = RingCache(self._config, replace(self.sizes, text=text), slots=len(like), like=like)
        for mine, theirs in zip((*self.keys, *self.values), (*other.keys, *other.values), strict=True):
            theirs[:, :, :sink], theirs[:, :, sink + text :] = mine[:, :, :sink], mine[:, :, sink:]
        other.sink_N, other.frames = self.sink_N, self.frames
        return other

    def copy(self, slots: Longs | None = None) -> "RingCache":
        """The same content, in memory of its own: of all slots, or of these, each as often as it is named."""
        other = copy.copy(self)
        if slots is None:
            other.keys, other.values = ([x.clone() for x in held] for held in (self.keys, self.values))
            return other
        rows = torch.from_numpy(slots).to(self._place_S.device)
        other.keys, other.values = ([x.index_select(0, rows) for x in held] for held in (self.keys, self.values))
        other.sink_N, other.text_N = self.sink_N[slots], self.text_N[slots]
        return other

    def _places(self, seen_S: Tensor, first: int, text_N: Longs, offset_NW: Longs) -> tuple[Tensor, Tensor]:
        """Tokens go to ``first`` and their offsets, and see what lies between, ``seen_S``, the sink and the text."""
        device = self._place_S.device
        sink_N1, text_N1, offset_NW1 = (
            torch.from_numpy(x[..., None]).to(device) for x in (self.sink_N, text_N, offset_NW)
        )
        text_S = self._place_S - self.sizes.sink
        before_NS = seen_S | (self._place_S < sink_N1) | ((text_S >= 0) & (text_S < text_N1))
        own_NWS = (self._place_S >= first) & (self._place_S <= first + offset_NW1)
        return first + offset_NW1[..., 0], before_NS[:, None] | own_NWS
