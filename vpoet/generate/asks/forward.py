"""From nothing, an image, or the end of a video on."""

from collections import deque

import numpy as np

from vpoet.arrays import Frames
from vpoet.generate.asks.base import ROLLING, Ask, sources
from vpoet.generate.request import Request
from vpoet.media.video import first_frame, resize_frame
from vpoet.sequence.arrangements import Given, Sample


class Forward(Ask):
    """t2v, which an image (t2i) and a clip of no prompt (unconditional) become when they are arranged; i2v and
    continuation."""

    takes = frozenset({"image", "video", "task", "given_frames", *ROLLING})
    video_task = "continuation"

    @staticmethod
    def claims(request: Request) -> str | None:
        return {(): "t2v", ("image",): "i2v", ("video",): "continuation"}.get(tuple(sources(request)))

    def arrange(self, task: str) -> tuple[Sample, str, Given]:
        if task != "t2v":
            codes = self.blank_clip()
            image = self.request.image
            opening = self.end_of_video(len(codes)) if image is None else self.sized([first_frame(image)])
            before = self.tokenizer.encode(opening)
            codes[: len(before)] = before
            return Sample(self.text, codes, self.fps), task, Given(len(before))
        codes = self.blank(self.frames())
        return Sample(self.text, codes, 0 if len(codes) == 1 else self.fps), *self.whole(len(codes))

    def end_of_video(self, cells: int) -> Frames:
        """The last frames of the request's video, as many as a clip of so many cells is given."""
        count, last = 0, deque[Frames](maxlen=self.tokenizer.frames(cells - 1))
        for frame in self.video():
            last.append(resize_frame(frame, self.height, self.width))
            count += 1
        given = self.given_frames(count, cells)
        return np.stack(last)[-given:]
