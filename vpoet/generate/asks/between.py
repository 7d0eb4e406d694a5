"""From one image to another, and a video in slow motion."""

import math
from itertools import islice

import numpy as np

from vpoet.arrays import Frames, Ints
from vpoet.errors import PromptError
from vpoet.generate.asks.base import Ask, sources
from vpoet.generate.request import Request
from vpoet.media.video import first_frame, frame_rate
from vpoet.sequence.arrangements import Given, Sample


class Between(Ask):
    takes = frozenset({"image", "last", "video", "task"})
    video_task = "interpolation"

    @staticmethod
    def claims(request: Request) -> str | None:
        return "interpolation" if sources(request) in (["image", "last"], ["video"]) else None

    def arrange(self, task: str) -> tuple[Sample, str, Given]:
        codes, shown, gap = self.of_images() if self.request.video is None else self.of_video()
        times = tuple(range(0, len(codes), gap))
        keyframes = np.zeros_like(codes)
        keyframes[list(times)] = self.pictures(shown)
        codes[0] = keyframes[0]
        return Sample(self.text, codes, self.fps, keyframes), task, Given(times=times)

    def of_images(self) -> tuple[Ints, Frames, int]:
        """Blank cells, what is shown of them, and how many cells are from one picture to the next."""
        assert self.request.image is not None
        assert self.request.last is not None
        codes = self.blank_clip()
        ends = self.sized([first_frame(clip) for clip in (self.request.image, self.request.last)])
        return codes, ends, len(codes) - 1

    def of_video(self) -> tuple[Ints, Frames, int]:
        """As `of_images`: the fewest cells from one frame to the next with which none is shown twice."""
        assert self.request.video is not None
        own, r = frame_rate(self.request.video), self.tokenizer.stride[0]
        gap = math.ceil(self.fps / (r * own) - 1e-6) if own else 1
        frames, step = self.request.frames, r * gap
        pairs = max(1, (self.config.frames - 1) // step) if frames is None else -(-(frames - 1) // step)
        shown = self.sized(islice(self.video(self.fps / step), 1 + max(1, pairs)))
        if len(shown) < 2:
            raise PromptError(f"the video has one frame in {step} at {self.fps} fps: there is nothing between")
        most = 1 + step * (len(shown) - 1)
        frames = most if frames is None else frames
        if not 1 < frames <= most or (frames - 1) % step:
            there = f", and at most {most}" if frames > most else ""
            raise PromptError(
                f"frames = {frames}: the video gives one frame in {step} at {self.fps} fps, so it is 1 + a multiple of "
                f"{step}{there}"
            )
        codes = self.blank(frames)
        return codes, shown[: 1 + (len(codes) - 1) // gap], gap
