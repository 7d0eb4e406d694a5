"""How well sprites explain a clip over a background, at every place: matched filters.

A sprite with colours s (times alpha) and alpha a, drawn over a background b, gives b + (s - a b). If the frame is f,
having the sprite there explains

    explained = |f - b|^2 - |f - b - (s - a b)|^2        summed over the pixels in view
    gain      = 2 explained - a |f - b|^2                less what stays unexplained within its outline

Where the sprite stands exactly there, both are about its energy |s - a b|^2. Without the second term a bright bee
would pass for a dark character that covers it. Clips and sprites are blurred a little alike: what
tokenizers lose first is not to decide.

Shapes: T frames; N sprites; H, W sides of a frame; Y, X row and column of the feet; h, w sides of a canvas.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from vpoet.worlds.platformer.sprites import Sprite, draw

BLUR = 0.5
"""Standard deviation in pixels."""
MARGIN = 4
"""Pixels that a sprite is given on each side for its blur."""
AROUND = 2
"""Pixels each way in which a place found at half size is sought at full size."""

Stage = npt.NDArray[np.float32]
"""A still picture [H, W, 3] in 0..255."""


@dataclass(frozen=True, eq=False)
class View:
    """What sprites are matched with: a clip over a background."""

    changing_T5HW: Tensor
    """f - b, its product with b, and its square."""
    still_T5HW: Tensor
    """b, |b|^2 and 1; one frame for all where nothing is hidden and the background is still."""
    whole_T5HW: Tensor
    """The latter with nothing hidden."""

    @classmethod
    def of(cls, frames_T3HW: Tensor, background: Stage | Tensor, hidden_T1HW: Tensor | None = None) -> "View":
        """A clip in 0..1 over a stage, or over a clip of its own. Pixels where ``hidden`` is 1 say nothing."""
        b = background if isinstance(background, Tensor) else picture(background)[None]
        rest_T3HW = blur(frames_T3HW - b)
        seen_T1HW = torch.ones(1, 1, 1, 1) if hidden_T1HW is None else 1 - hidden_T1HW
        changing = [rest_T3HW, (rest_T3HW * b).sum(1, keepdim=True), rest_T3HW.square().sum(1, keepdim=True)]
        still = [b, b.square().sum(1, keepdim=True), torch.ones_like(b[:, :1])]
        whole_T5HW = torch.cat(still, 1)
        return cls(torch.cat(changing, 1) * seen_T1HW, whole_T5HW * seen_T1HW, whole_T5HW)

    def halved(self) -> "View":
        return View(*(F.avg_pool2d(fields, 2) for fields in (self.changing_T5HW, self.still_T5HW, self.whole_T5HW)))


@dataclass(frozen=True, eq=False)
class Canvases:
    """Sprites on canvases of one size, as kernels of the gain."""

    changing_N5hw: Tensor
    still_N5hw: Tensor
    """Minus the energy."""
    left: int
    above: int
    """Column and row of the feet."""

    @classmethod
    def of(cls, sprites: Sequence[Sprite], halve: bool = False) -> "Canvases":
        starts = [int(np.floor(sprite.left)) for sprite in sprites]
        left = -min(starts) + MARGIN
        left += left % 2
        above = MARGIN - min(sprite.top for sprite in sprites)
        above += above % 2
        wide = (
            left + MARGIN + max(start + sprite.pixels.shape[1] for start, sprite in zip(starts, sprites, strict=True))
        )
        pixels_N4hw = torch.zeros(len(sprites), 4, above + MARGIN, wide + wide % 2)
        for canvas, start, sprite in zip(pixels_N4hw, starts, sprites, strict=True):
            h, w = sprite.pixels.shape[:2]
            picture = torch.from_numpy(sprite.pixels.transpose(2, 0, 1).copy())
            canvas[:, above + sprite.top : above + sprite.top + h, left + start : left + start + w] = picture
        pixels_N4hw[:, :3] /= 255
        pixels_N4hw = blur(pixels_N4hw)
        if halve:
            pixels_N4hw, left, above = F.avg_pool2d(pixels_N4hw, 2), left // 2, above // 2
        s, a = pixels_N4hw[:, :3], pixels_N4hw[:, 3:]
        still = torch.cat([2 * a * s, -a.square(), -s.square().sum(1, keepdim=True)], 1)
        return cls(torch.cat([4 * s, -4 * a, -a], 1), still, left, above)

    def match(self, view: View, rows: range) -> tuple[Tensor, Tensor]:
        """Gain and energy [T, N, Y, X] of every sprite with its feet at every column of the given rows."""
        h, w = self.still_N5hw.shape[2:]
        border = (self.left, w - self.left, self.above, h)
        lines = slice(rows.start, rows.stop - 1 + h)
        return self._gain(*(F.pad(fields, border)[:, :, lines] for fields in (view.changing_T5HW, view.still_T5HW)))

    def whole(self, view: View, rows: range) -> Tensor:
        """The energy [1, N, Y, X] with nothing hidden."""
        return self.match(View(view.changing_T5HW[:1], view.whole_T5HW, view.whole_T5HW), rows)[1]

    def match_around(self, view: View, rows_T: Tensor, columns_T: Tensor) -> tuple[Tensor, Tensor]:
        """The same with the feet within `AROUND` of one place per frame: Y and X are both 2 AROUND + 1."""
        h, w = self.still_N5hw.shape[2:]
        border = (self.left + AROUND, w - self.left + AROUND, self.above + AROUND, h - self.above + AROUND)
        parts = []
        for fields in (view.changing_T5HW, view.still_T5HW.expand(len(rows_T), -1, -1, -1)):
            places = zip(F.pad(fields, border), rows_T.tolist(), columns_T.tolist(), strict=True)
            parts.append(torch.stack([f[:, y : y + h + 2 * AROUND, x : x + w + 2 * AROUND] for f, y, x in places]))
        return self._gain(*parts)

    def _gain(self, changing: Tensor, still: Tensor) -> tuple[Tensor, Tensor]:
        energy = -F.conv2d(still, self.still_N5hw)
        return F.conv2d(changing, self.changing_N5hw) - 2 * energy, energy


def picture(stage: Stage) -> Tensor:
    return torch.from_numpy(stage).permute(2, 0, 1) / 255


def blur(x_NCHW: Tensor, deviation: float = BLUR) -> Tensor:
    reach = max(MARGIN, round(3 * deviation))
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / deviation).square())
    weights /= weights.sum()
    planes = x_NCHW.flatten(0, 1)[:, None]
    planes = F.conv2d(planes, weights[None, None, None], padding=(0, reach))
    return F.conv2d(planes, weights[None, None, :, None], padding=(reach, 0)).reshape(x_NCHW.shape)


def put(stage: Stage, sprite: Sprite, x: int, y: int) -> None:
    """Draw into the stage with the feet at column ``x`` and row ``y`` as `Canvases.match` counts them."""
    draw(stage, sprite._replace(left=float(np.floor(sprite.left))), x, y)
