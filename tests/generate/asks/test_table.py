"""Families of requests: each field is read by the family that takes it, and one file is enough for a new one."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import vpoet
from vpoet.errors import PromptError
from vpoet.generate.asks import table
from vpoet.generate.asks.base import Ask
from vpoet.generate.fields import asked, declared
from vpoet.generate.model import Model
from vpoet.generate.request import Request
from vpoet.media.video import Video
from vpoet.sequence.arrangements import Given, Sample

IMAGE = Video(np.zeros((1, 16, 16, 3), np.uint8), 0)
VIDEO = Video(np.zeros((9, 16, 16, 3), np.uint8), 8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Model:
    folder = make_bundle(tmp_path_factory.mktemp("table"), depth=1, length=120, frames=5, height=16, width=16)
    return vpoet.load(folder, device="cpu")


def test_families_read_fields_that_there_are() -> None:
    for family in table.FAMILIES:
        assert family.takes <= declared(Request).keys()
    tasks = [family.video_task for family in table.FAMILIES if family.video_task]
    assert tasks == ["continuation", "backward", "interpolation"]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(last=IMAGE, overlap=1), "overlap is given: backward is made in one piece"),
        (Request(video=VIDEO, task="interpolation", window=5), "window is given: interpolation is made in one piece"),
        (Request(video=VIDEO, outpaint=(8, 0, 0, 0), given_frames=1), "given_frames says how much"),
        (Request(video=VIDEO, task="interpolation", given_frames=1), "given_frames says how much"),
        (Request(image=IMAGE, video=VIDEO, task="backward"), "an image and a video are given"),
        (Request(image=IMAGE, task="backward"), "no such video is given"),
    ],
)
def test_what_a_family_does_not_read_is_refused(request_: Request, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        table.family(request_)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Coloured(Request):
    shade: int | None = asked(None, "Of the whole clip.")


class Plain(Ask):
    """A made family: one shade for every cell but the last."""

    takes = frozenset({"shade"})

    @staticmethod
    def claims(request: Request) -> str | None:
        return "continuation" if isinstance(request, Coloured) and request.shade is not None else None

    def arrange(self, task: str) -> tuple[Sample, str, Given]:
        assert isinstance(self.request, Coloured)
        codes = self.blank_clip()
        codes[:-1] = self.request.shade
        return Sample(self.text, codes, self.fps), task, Given(len(codes) - 1)


def test_a_new_family_is_one_class_and_one_row(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "FAMILIES", (Plain, *table.FAMILIES))
    (made,) = model.decode([model.document(Coloured(prompt="a robot", shade=3))], [0])
    assert (made.document.task, len(made.document.codes())) == ("continuation", 2)
    assert (made.document.codes()[0] == 3).all()
    assert model.sample_batch([Coloured(prompt="a robot", shade=3)])[0].frames.shape == (5, 16, 16, 3)
    assert model.document(Coloured(prompt="a robot")).task == "t2v"
    monkeypatch.setattr(table, "FAMILIES", (*table.FAMILIES[1:], Plain))
    with pytest.raises(PromptError, match="shade is given: i2v has no use for it"):
        model.document(Coloured(image=IMAGE, shade=3))
