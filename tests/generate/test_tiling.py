"""Super-resolution: tiles that cover a picture of any size, and nothing of their borders in it."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest

import vpoet
from vpoet import bundle
from vpoet.errors import PromptError
from vpoet.generate.model import Model
from vpoet.generate.request import Request
from vpoet.generate.tiling import Tiling, _places, _ramp
from vpoet.media.video import Video
from vpoet.sequence.document import Document, build
from vpoet.worlds.platformer.world import Platformer


@pytest.fixture(scope="module")
def model(make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Model:
    sizes = {"frames": 5, "height": 16, "width": 16, "length": 96}
    return vpoet.load(make_bundle(tmp_path_factory.mktemp("tiling"), depth=1, **sizes), "cpu")


def video(frames: int, height: int, width: int, fps: float = 8) -> Video:
    return Video(np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), np.uint8), fps)


def filled(document: Document, code: int) -> Document:
    return replace(
        document,
        spans=tuple(replace(s, values=np.full_like(s.values, code)) if s.target else s for s in document.spans),
    )


def made(tiling: Tiling, codes: Callable[[int], int]) -> tuple[list[int], np.ndarray]:
    """The frames of a tiling whose tile number i has this code in each cell; and of each document, how long it is."""
    pieces, lengths = [], []
    while tiling.document is not None:
        lengths.append(len(build(tiling.document, tiling._bundle.transformer.vocabulary)))
        pieces += list(tiling.take(filled(tiling.document, codes(len(lengths)))))
    return lengths, np.concatenate(pieces)


@pytest.mark.parametrize("length", [8, 9, 13, 14, 15, 100, 255])
def test_tiles_cover_a_side_and_overlap_by_a_quarter(length: int) -> None:
    starts = _places(length, 16)
    assert (starts[0], starts[-1]) == (0, length - 8)
    assert all(0 < b - a <= 6 for a, b in pairwise(starts))
    fine = np.zeros(2 * length)
    for start in starts:
        fine[2 * start : 2 * start + 16] += _ramp(16)
    assert fine.min() > 0


def test_a_document_is_as_long_for_any_picture(model: Model) -> None:
    """So that the network's memory does not depend on the size of what is made."""
    lengths = set()
    for height, width in ((8, 8), (20, 12), (64, 40)):
        request = Request(prompt="a robot", video=video(5, height, width), upscale=True)
        tiling = Tiling(model.bundle, request)
        each, frames = made(tiling, lambda _: 7)
        assert frames.shape == (5, 2 * height, 2 * width, 3)
        assert len(each) == tiling.count == len(_places(height, 16)) * len(_places(width, 16))
        lengths |= set(each)
    assert len(lengths) == 1


def test_tiles_that_agree_show_no_border(model: Model) -> None:
    """Where all tiles hold one code, what they share is what each of them has, whatever their weights."""
    tile = model.bundle.video.decode(np.full((2, 2, 2), 7, np.int32)).astype(np.float32)
    _, frames = made(Tiling(model.bundle, Request(video=video(5, 8, 14), upscale=True)), lambda _: 7)
    assert np.array_equal(frames[:, :, :12], tile[:, :, :12])  # the second begins at pixel 12
    weights = _ramp(16)
    first, second = weights[12:], weights[:4]
    expected = (tile[:, :, 12:] * first[:, None] + tile[:, :, :4] * second[:, None]) / (first + second)[:, None]
    assert np.abs(frames[:, :, 12:16] - expected).max() <= 0.5 + 1e-3


def test_longer_clips_are_made_in_stretches_and_the_last_one_is_cut(model: Model) -> None:
    tiling = Tiling(model.bundle, Request(video=video(12, 8, 8), upscale=True))
    _, frames = made(tiling, lambda number: number)
    assert (tiling.count, tiling.fps, frames.shape) == (3, 8, (12, 16, 16, 3))
    stretches = [model.bundle.video.decode(np.full((2, 2, 2), code, np.int32)) for code in (1, 2, 3)]
    assert np.array_equal(frames, np.concatenate(stretches)[:12])


def test_a_clip_is_sampled_the_same_alone_and_in_a_batch(model: Model) -> None:
    requests = [
        Request(prompt="a robot", video=video(5, 12, 8), upscale=True, seed=3),
        Request(image=video(1, 14, 14, 0), upscale=True, seed=4),
        Request(prompt="a robot", video=video(5, 6, 6), height=16, width=24, upscale=True),
    ]
    together = model.sample_batch(requests)
    assert [(clip.frames.shape, clip.fps) for clip in together] == [
        ((5, 24, 16, 3), 8), ((1, 28, 28, 3), 0), ((5, 16, 24, 3), 8)
    ]  # fmt: skip
    for request, clip in zip(requests, together, strict=True):
        assert np.array_equal(model.sample_batch([request])[0].frames, clip.frames)
    assert not np.array_equal(model.sample_batch([replace(requests[0], seed=5)])[0].frames, together[0].frames)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"video": video(5, 6, 20)}, "6x20 pixels become 12x40, and a tile has 16x16"),
        ({"video": video(5, 20, 20), "height": 33}, "33x40 pixels have no half"),
        ({}, "give one of them, and nothing else"),
        ({"image": video(1, 20, 20, 0), "last": video(1, 20, 20, 0)}, "give one of them, and nothing else"),
        ({"video": video(5, 20, 20), "task": "backward"}, "task"),
        ({"video": video(5, 20, 20), "mask": video(1, 20, 20, 0)}, "upscale is given"),
        ({"video": video(5, 20, 20), "via_image": True}, "is made in one piece"),
    ],
)
def test_what_cannot_be_made_finer_is_told(model: Model, asked: dict[str, object], told: str) -> None:
    with pytest.raises(PromptError, match=told):
        model.rollout(Request(upscale=True, **asked))  # type: ignore[arg-type]


def test_borders_between_tiles_are_no_steeper_than_what_is_there() -> None:
    """Each tile holds the codes of the true picture, through the tokenizer that ships; side by side they show edges."""
    pytest.importorskip("arcade")
    base = bundle.load(bundle.SHIPPED)
    base = replace(base, config=replace(base.config, tasks=[*base.config.tasks, "sr"], frames=5))
    fine = Platformer(192, 192, 8.0, 5).clip(1)[0]
    tiling = Tiling(base, Request(video=Video(fine, 8).resize(96, 96), upscale=True))
    pieces, pasted = [], np.zeros(fine.shape)
    for top, left in product(_places(96, 64), repeat=2):
        at = np.s_[:, 2 * top : 2 * top + 64, 2 * left : 2 * left + 64]
        codes = base.video.encode(fine[at])
        pasted[at] = base.video.decode(codes)
        assert tiling.document is not None
        spans = (replace(span, values=codes) if span.target else span for span in tiling.document.spans)
        pieces += list(tiling.take(replace(tiling.document, spans=tuple(spans))))
    edges = {2 * start + end for start in _places(96, 64) for end in (0, 64)} - {0, 192}

    def steepness(frames: np.ndarray) -> float:
        """Mean step across the borders of tiles, as a multiple of that elsewhere."""
        steps = np.abs(np.diff(frames.astype(np.float64), axis=2)).mean((0, 1, 3))
        across = np.isin(np.arange(1, 192), list(edges))
        return float(steps[across].mean() / steps[~across].mean())

    made = np.concatenate(pieces)
    assert made.shape == fine.shape
    assert steepness(made) < steepness(fine) + 0.2
    assert steepness(pasted) > steepness(fine) + 0.5
