"""A film's frames with the shots that they belong to, in one pass, and no more than a few of them in memory."""

from collections import deque
from collections.abc import Callable, Iterator

from vpoet.arrays import Frames
from vpoet.media.cuts import Detector, Shots
from vpoet.media.fitted import Size
from vpoet.media.video import Source, stream_numbered


def stream_shots(
    source: Source,
    detector: Detector,
    finish: Callable[[Frames], Frames],
    *,
    fps: float | None = None,
    size: Size | None = None,
) -> tuple[float, Iterator[tuple[int | None, Frames]]]:
    """The frame rate, and each frame of `stream_frames` as ``finish`` makes it, with the number of its shot, from 0 on;
    None for one between shots.

    The detector (a new one) sees all frames as they are decoded, and a frame belongs to the shot that it was decoded
    in, whatever the rate: none of another shot is ever rounded into one. The errors are those of `stream_frames`.
    """
    shots = Shots(detector)
    rate, numbered = stream_numbered(source, fps=fps, watch=shots.add, size=size)
    return rate, _with_shots(((number, finish(frame)) for number, frame in numbered), shots)


def _with_shots(numbered: Iterator[tuple[int, Frames]], shots: Shots) -> Iterator[tuple[int | None, Frames]]:
    held: deque[tuple[int, Frames]] = deque()
    for pair in numbered:
        held.append(pair)
        while held and held[0][0] < shots.decided:
            number, frame = held.popleft()
            yield shots.of(number), frame
    shots.end()
    for number, frame in held:
        yield shots.of(number), frame
