"""A tile of a video or image, twice as fine as it is given. `vpoet.generate.tiling` makes whole pictures of tiles."""

import numpy as np

from vpoet.errors import PromptError
from vpoet.generate.asks.base import Ask, sources
from vpoet.generate.request import Request
from vpoet.media.video import Video
from vpoet.sequence.arrangements import Given, Sample


class Finer(Ask):
    """Of a request whose video or image is one window, of the size that the model knows."""

    takes = frozenset({"image", "video", "upscale"})

    @staticmethod
    def claims(request: Request) -> str | None:
        if not request.upscale:
            return None
        if sources(request) not in (["image"], ["video"]):
            raise PromptError("upscale makes a video or an image finer: give one of them, and nothing else")
        if request.control:
            raise PromptError("upscale follows what it is given, and no control beside it")
        return "sr"

    def arrange(self, task: str) -> tuple[Sample, str, Given]:
        window = self.request.image or self.request.video
        assert isinstance(window, Video), "tiling cuts it"
        codes = self.tokenizer.encode(window)
        fps = 0 if len(codes) == 1 else self.fps
        return Sample(self.text, np.zeros_like(codes), fps, coarse=codes), task, Given()
