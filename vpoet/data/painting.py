"""What is shown of a clip in which a part is painted anew (in- and outpainting), in training and in sampling alike.

An encoder sees beyond a cell. So the codes of what is kept must be those of a clip whose hidden pixels nobody saw: they
are filled from what lies around them, and the clip is encoded so. `scaled` does this for `shown_codes`, by which one
samples, and for `draw`, by which `vpoet encode` puts paintings into the token shards:

    KEY.json              "paintings": ["inpainting", "outpainting", ...], the tasks of KEY.painting-0.npz and on
    KEY.painting-N.npz    hidden   uint8 [ceil(t*h*w / 8)]: one bit per cell in raster order, the highest bit of
                                   a byte first, 1 where the cell is hidden; the bits that fill up the last are 0
                          shown    uint16 or uint32 [n]: the codes of the n other cells, in raster order
"""

import io
import zipfile
import zlib
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from vpoet.arrays import Frames, Ints, Mask
from vpoet.errors import DataError, PromptError
from vpoet.media.video import Video
from vpoet.sequence.arrangements import Painting
from vpoet.sequence.tasks import PAINTED

Floats = npt.NDArray[np.float32]
Size = tuple[int, int, int]

GREY = 128
"""Of a frame of which nothing is kept."""
_AT_ONCE = 16
"""Frames that are filled together: floats take a dozen times the bytes of the frames."""
_HEADER = 1024
"""Bytes that the header of an array in a .npz may have; numpy writes 128."""


class Encoder(Protocol):
    """What a video tokenizer is here."""

    @property
    def stride(self) -> Size:
        """(r, s, s): frames, pixels down and pixels across that one code stands for."""

    def encode(self, video: Any, /) -> Ints:
        """Frames uint8 [T, H, W, 3] to codes [t, h, w]."""


def shown_codes(frames: Frames, mask: Mask, encoder: Encoder) -> tuple[Ints, Mask]:
    """The codes [t, h, w] of frames, 0 in the cells that the mask touches, and which cells these are.

    ``frames`` [T, H, W, 3] and ``mask`` [T, H, W] are as `scaled` gives them: of the pixels that were hidden nothing is
    left in them, and so nothing in any code. PromptError: no cell is left to show.
    """
    hidden = touched(mask, encoder.stride)
    return np.where(hidden, np.int32(0), encoder.encode(frames)), hidden


class Hidden(NamedTuple):
    """A clip with a part hidden, ready to be encoded."""

    task: str
    frames: Frames
    """[T, H, W, 3]; of the pixels that were hidden nothing is left in them."""
    cells: Mask
    """[t, h, w], those that the hidden part touches."""

    def painting(self, codes: Ints) -> Painting:
        """With the codes [t, h, w] of its frames."""
        return Painting(self.task, self.cells, np.where(self.cells, np.int32(0), codes))


def draw(frames: Frames, stride: Size, key: str, *, seed: int, count: int) -> list[Hidden]:
    """``count`` times frames [T, H, W, 3] with a part hidden, for each task that they have cells enough for.

    What is hidden is a function of the seed, the sample's key, its task and its number alone.
    """
    (length, height, width), (r, s, _) = frames.shape[:3], stride
    t, h, w = grid = 1 + (length - 1) // r, height // s, width // s
    enough = {"inpainting": t * h * w > 1, "outpainting": h * w > 1}
    drawn = []
    for number in range(count):
        for task in PAINTED:
            if enough[task]:
                counter = (seed, zlib.crc32(key.encode()), PAINTED.index(task), number)
                mask = draw_mask(task, grid, stride, np.random.default_rng(counter))
                seen, hole = scaled(frames, mask, height, width)
                drawn.append(Hidden(task, seen, touched(hole, stride)))
    return drawn


def draw_mask(task: str, grid: Size, stride: Size, random: np.random.Generator) -> Mask:
    """A mask [T, H, W] that hides some of the cells [t, h, w], and not all.

    inpainting: one to three boxes, half of them through the whole clip, the others through a stretch of it.
    outpainting: all but one rectangle through the whole clip.

    Lengths are drawn in cells, and each edge is then anywhere within the outermost of its hidden cells: people's masks
    know no cells.
    """
    r, s, _ = stride
    t, h, w = grid
    mask = np.zeros((1 + r * (t - 1), s * h, s * w), np.bool_)
    while not 0 < cells_of(mask, stride).mean() < 1:
        if task == "outpainting":
            kept = (_widened(_stretch(cells, random), s, random) for cells in (h, w))
            mask[:] = True
            mask[:, *kept] = False
        else:
            mask[:] = False
            for _ in range(random.integers(1, 4)):
                time, down, across = (_stretch(cells, random) for cells in grid)
                through = slice(None) if random.random() < 0.5 else _frames(_narrowed(time, r, random), r)
                mask[through, _narrowed(down, s, random), _narrowed(across, s, random)] = True
    return mask


def to_npz(painting: Painting) -> bytes:
    """A painting as the bytes of ``KEY.painting-N.npz``: the same for the same painting."""
    codes = painting.shown[~painting.hidden]
    parts = {
        "hidden": np.packbits(painting.hidden),
        "shown": codes.astype(np.uint16 if codes.max(initial=0) < 2**16 else np.uint32),
    }
    buffer = io.BytesIO()
    np.savez(buffer, **parts)  # type: ignore[arg-type]
    return buffer.getvalue()


def from_npz(data: bytes, task: str, grid: Size) -> Painting:
    """The inverse of `to_npz`, for a clip of ``grid`` cells; DataError for anything else."""
    cells = int(np.prod(grid))
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:  # a few bytes can unpack to any number
            if sum(entry.file_size for entry in archive.infolist()) > 2 * _HEADER + 5 * cells:
                raise DataError("larger than its clip")
        with np.load(io.BytesIO(data), allow_pickle=False) as parts:
            bits, codes = parts["hidden"], parts["shown"]
    except DataError:
        raise
    except Exception as error:  # numpy and zipfile raise nearly anything at bytes that are not theirs
        raise DataError(f"not a .npz of a painting: {error!r}") from None
    if bits.dtype != np.uint8 or bits.shape != (-(-cells // 8),):
        raise DataError(f"hidden cells are {-(-cells // 8)} bytes, not {bits.dtype} {bits.shape}")
    unpacked = np.unpackbits(bits)
    hidden = unpacked[:cells].astype(np.bool_).reshape(grid)
    if unpacked[cells:].any() or not 0 < hidden.sum() < cells:
        raise DataError("no cell is hidden, or none is shown, or bits beyond the last cell are set")
    if codes.dtype not in (np.uint16, np.uint32) or codes.shape != (cells - hidden.sum(),) or codes.max() >= 2**31:
        raise DataError(f"shown codes are {cells - hidden.sum()} of uint16 or uint32, not {codes.dtype} {codes.shape}")
    whole = np.zeros(grid, np.int32)
    whole[~hidden] = codes
    return Painting(task, hidden, whole)


def scaled(frames: Frames, mask: Mask, height: int, width: int) -> tuple[Frames, Mask]:
    """Frames and mask scaled alike, as `Video.resize` does; the mask grows over each pixel that it touches.

    The frames are `filled` before: scaling would mix pixels under the mask into those beside it.
    """
    return Video(filled(frames, mask), 0).resize(height, width).frames, grown(mask, height, width)


def grown(mask: Mask, height: int, width: int) -> Mask:
    """A mask [T, H, W] at another size: it grows over each pixel that it touches."""
    shades = mask.astype(np.uint8)[..., None].repeat(3, axis=-1) * np.uint8(255)
    return Video(shades, 0).resize(height, width).frames[..., 0] > 0


def filled(frames: Frames, mask: Mask) -> Frames:
    """Each pixel under the mask [T, H, W] becomes a mean of those around it, the nearest that there are.

    What the pixels under the mask were has no influence. Smooth, because the encoder sees beyond a cell: the codes of
    kept cells beside the mask shall be near those that they have in the whole picture.
    """
    made = frames.copy()
    for start in range(0, len(frames), _AT_ONCE):
        here = slice(start, start + _AT_ONCE)
        if mask[here].any():
            kept = ~mask[here, ..., None]
            means = _means(np.where(kept, frames[here], 0).astype(np.float32), kept.astype(np.float32))
            made[here] = np.where(kept, frames[here], means.round().astype(np.uint8))
    return made


def touched(mask: Mask, stride: Size) -> Mask:
    """The cells [t, h, w] of which a mask [T, H, W] touches a pixel. PromptError: it touches all of them."""
    cells = cells_of(mask, stride)
    if cells.all():
        r, s, _ = stride
        raise PromptError(f"the mask touches every cell of {s}x{s} pixels and {r} frames: nothing is left to keep")
    return cells


def cells_of(mask: Mask, stride: Size) -> Mask:
    """The cells [t, h, w] of which a mask [T, H, W] touches a pixel."""
    r, s, _ = stride
    frames, height, width = mask.shape
    blocks: Mask = np.any(mask.reshape(frames, height // s, s, width // s, s), axis=(2, 4))
    later: Mask = np.any(blocks[1:].reshape((frames - 1) // r, r, *blocks.shape[1:]), axis=1)
    return np.concatenate([blocks[:1], later])


def _means(sums_THW3: Floats, weights_THW1: Floats) -> Floats:
    """Means where there is weight, and elsewhere those of the next coarser level (push-pull, Gortler et al. 1996)."""
    t, h, w = weights_THW1.shape[:3]
    means: Floats = (sums_THW3 / np.maximum(weights_THW1, 1)).astype(np.float32)
    if weights_THW1.all():
        return means
    if h == w == 1:
        return np.where(weights_THW1 > 0, means, np.float32(GREY))
    coarser = [
        np.pad(values, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))
        .reshape(t, -(-h // 2), 2, -(-w // 2), 2, values.shape[-1])
        .sum(axis=(2, 4))
        for values in (sums_THW3, weights_THW1)
    ]
    spread = _means(coarser[0], coarser[1]).repeat(2, axis=1).repeat(2, axis=2)[:, :h, :w]
    return np.where(weights_THW1 > 0, means, spread)


def _stretch(size: int, random: np.random.Generator) -> slice:
    """Of any length, anywhere."""
    length = int(random.integers(1, size + 1))
    start = int(random.integers(0, size - length + 1))
    return slice(start, start + length)


def _narrowed(cells: slice, s: int, random: np.random.Generator) -> slice:
    """A stretch of pixels that touches just these cells of ``s`` pixels."""
    first, last = random.integers(0, s, 2).tolist()
    if cells.stop - cells.start == 1:
        first, last = sorted((first, last))
    return slice(s * cells.start + first, s * (cells.stop - 1) + last + 1)


def _widened(cells: slice, s: int, random: np.random.Generator) -> slice:
    """A stretch of pixels in which just these cells of ``s`` pixels lie whole; it may go beyond the picture's end."""
    before, after = random.integers(0, s, 2).tolist()
    return slice(max(0, s * cells.start - before), s * cells.stop + after)


def _frames(steps: slice, r: int) -> slice:
    """The frames of a stretch of a time axis on which the first cell, too, has ``r`` steps: its frame is the last."""
    return slice(max(0, steps.start - (r - 1)), max(1, steps.stop - (r - 1)))
