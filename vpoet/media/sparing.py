"""Frames of a video that nobody will see: packets that need no decoding where the rate is lowered.

Frames are shown at even times, each the nearest (`vpoet.media.video.nearest_in_time`): at 8 of 30 frames a second,
three in four are never shown. Of those the decoder can leave out the ones that no other frame is predicted from, about
half of a common .mp4. What is shown is the same, frame by frame, but beside damage, which in what is left out is not
noticed.
"""

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

AHEAD = 32
"""Packets that are looked at before and after one: no codec shows a frame further than 16 from where it is coded."""
CLOSE = 1e-4
"""Seconds within which two frames count as equally near, so that rounding decides nothing."""
GAP = 10.0
"""Seconds between two frames after which a clock is not trusted."""


class Sparing:
    """Which packets of one video are needed to show it at ``fps`` from its first frame on.

    All are until `begin` says when that was, and from `stop` or a clock's first fault on: times that are missing, equal
    or far apart.
    """

    def __init__(self, fps: float) -> None:
        self._fps, self._start, self._sound = fps, math.nan, True
        self._times: list[float] = []
        """Of the packets around the one that is decided, ascending."""

    def begin(self, time: float | None) -> None:
        """The time of the first frame that was decoded, in seconds as packets tell it."""
        self._start, self._sound = (math.nan, False) if time is None else (time, self._sound)

    def stop(self) -> None:
        """All packets are needed from now on."""
        self._sound = False

    def decided(self, packets: Iterable[Any]) -> Iterator[tuple[Any, bool]]:
        """Each `av.Packet`, with whether it is needed."""
        waiting: deque[tuple[Any, float | None]] = deque()
        tick = math.nan
        for packet in packets:
            tick = float(packet.time_base) if math.isnan(tick) else tick
            time = None if packet.pts is None else packet.pts * tick
            waiting.append((packet, time))
            if self._sound and time is not None and not packet.is_discard:
                insort(self._times, time)
            elif packet.size:  # one of no bytes ends the stream
                self._sound = self._sound and time is not None
            if len(waiting) > AHEAD:
                yield self._one(*waiting.popleft())
        for pair in waiting:
            yield self._one(*pair)

    def _one(self, packet: Any, time: float | None) -> tuple[Any, bool]:
        if not self._sound or time is None or packet.is_discard or math.isnan(self._start):
            return packet, True
        at = bisect_left(self._times, time)
        if not 0 < at < len(self._times) - 1:
            return packet, True
        before, after = self._times[at - 1], self._times[at + 1]
        del self._times[: max(0, at - AHEAD)]
        if time == after or max(after - time, time - before) > GAP:
            self._sound = False
            return packet, True
        first = ((before + time) / 2 - CLOSE - self._start) * self._fps
        last = ((time + after) / 2 + CLOSE - self._start) * self._fps
        return packet, math.ceil(first) <= math.floor(last)
