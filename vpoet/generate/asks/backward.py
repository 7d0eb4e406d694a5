"""Up to an image, or to the first frames of a video."""

from collections.abc import Iterator
from itertools import islice

import numpy as np

from vpoet.arrays import Frames
from vpoet.generate.asks.base import Ask, sources
from vpoet.generate.request import Request
from vpoet.media.video import first_frame
from vpoet.sequence.arrangements import Given, Sample


class Backward(Ask):
    takes = frozenset({"last", "video", "task", "given_frames"})
    video_task = "backward"

    @staticmethod
    def claims(request: Request) -> str | None:
        return "backward" if sources(request) in (["last"], ["video"]) else None

    def arrange(self, task: str) -> tuple[Sample, str, Given]:
        codes = self.blank_clip()
        if self.request.last is not None:
            shown = self.sized([first_frame(self.request.last)])
        else:
            start = self.sized(islice(self.video(), self.tokenizer.frames(len(codes) - 1)))
            shown = start[: self.given_frames(len(start), len(codes)) : self.tokenizer.stride[0]]
        keyframes = np.zeros_like(codes)
        keyframes[-len(shown) :] = self.pictures(shown)
        return Sample(self.text, codes, self.fps, keyframes), task, Given(len(shown))

    def joined(self, made: Frames) -> Iterator[Frames]:
        """With the video to which the clip leads behind it: they share a frame. The video's frames are its own, not the
        tokenizer's."""
        if self.request.video is None:
            yield made
            return
        yield made[:-1]
        for frame in self.video():
            yield self.sized([frame])
