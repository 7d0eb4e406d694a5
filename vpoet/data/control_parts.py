"""Control signals in shards: as pictures in raw ones, without loss, and as codes in token shards.

KEY.control.KIND.mp4    of a video, lossless; of an image KEY.control.KIND.png
KEY.control.KIND.npy    codes [t, h, w], of the clip's own tokenizer, for each cell of the clip
"""

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from vpoet.arrays import Frames
from vpoet.errors import DataError
from vpoet.media.control import MAKERS
from vpoet.media.video import Video
from vpoet.sequence.controls import KINDS

Exact = Callable[[str], Frames]
"""From a kind to the signal of a clip, where somebody knows it. DataError: nobody does."""
_PREFIX, _PICTURES = "control.", (".mp4", ".png")


def read_kinds(given: str) -> tuple[str, ...]:
    """From "edges,depth", in the order of `KINDS`. DataError: there is no such kind."""
    named = [name.strip() for name in given.split(",") if name.strip()]
    if unknown := [name for name in named if name not in KINDS]:
        raise DataError(f"controls: no kind {unknown[0]!r}; there are {', '.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in named)


def nobody(kind: str) -> Frames:
    """`Exact` of a clip that is filmed."""
    raise DataError(
        f"controls: {kind} is not made of pixels ({', '.join(MAKERS)} are); a world may know it (world:platformer)"
    )


def signal(kind: str, frames: Frames, exact: Exact = nobody) -> Frames:
    """The control signal of a clip, uint8 [T, H, W, 3] both; DataError as `Exact`."""
    return MAKERS[kind](frames) if kind in MAKERS else exact(kind)


def pictured(kinds: Iterable[str], frames: Frames, fps: float, exact: Exact = nobody) -> dict[str, bytes]:
    """What a raw shard holds of a clip's controls, by extension; an image has no ``fps``."""
    ending = ".mp4" if fps else ".png"
    made = {kind: Video(signal(kind, frames, exact), fps) for kind in kinds}
    return {f"{_PREFIX}{kind}{ending}": each.encode(ending, lossless=bool(fps)) for kind, each in made.items()}


def read_pictures(parts: Mapping[str, bytes], size: tuple[int, ...]) -> dict[str, Frames]:
    """The controls of a raw sample whose frames are of this size [T, H, W, 3]. DataError: one cannot be read, or is of
    another."""
    found = {}
    for name in sorted(parts):
        kind, ending = name.removeprefix(_PREFIX)[:-4], name[-4:]
        if not name.startswith(_PREFIX) or ending not in _PICTURES or kind not in KINDS:
            continue
        frames = np.asarray(Video.read(parts[name]))
        if frames.shape != size:
            told = ("{}x{}x{}".format(*shape[:3]) for shape in (frames.shape, size))
            raise DataError("control {}: {} frames and pixels, and the clip has {}".format(kind, *told))
        found[kind] = frames
    return found


def named(kind: str) -> str:
    """The extension of a control's codes."""
    return f"{_PREFIX}{kind}.npy"
