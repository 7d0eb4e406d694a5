"""A new clip under the controls of a video, of which nothing else is given (`vpoet.generate.asks.control`)."""

from vpoet.generate.asks.base import ROLLING, Ask, sources
from vpoet.generate.asks.control import restyles
from vpoet.generate.request import Request
from vpoet.sequence.arrangements import Given, Sample


class Restyle(Ask):
    takes = frozenset({"video", *ROLLING})

    @staticmethod
    def claims(request: Request) -> str | None:
        return "t2v" if restyles(request) and sources(request) == ["video"] else None

    def arrange(self, task: str) -> tuple[Sample, str, Given]:
        codes = self.blank(self.frames())
        return Sample(self.text, codes, 0 if len(codes) == 1 else self.fps), *self.whole(len(codes))
