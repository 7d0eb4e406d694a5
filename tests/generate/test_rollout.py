"""Clips of several documents: windows cover a clip exactly, continue what was made, and hold no more than they need."""

import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vpoet
from vpoet.errors import DataError, PromptError
from vpoet.generate.asks import base
from vpoet.generate.clip_file import Film
from vpoet.generate.model import Model, Request
from vpoet.generate.rollout import Rollout, roll, windows
from vpoet.generate.sampling import Sampling
from vpoet.media.video import Video
from vpoet.sequence.document import Document
from vpoet.sequence.tasks import COMPOSED


@pytest.fixture(scope="module")
def model(make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = make_bundle(tmp_path_factory.mktemp("long"), depth=1, length=120, frames=13, height=16, width=16)
    return vpoet.load(folder, device="cpu")


def image(seed: int = 0) -> Video:
    return Video(np.random.default_rng(seed).integers(0, 256, (1, 16, 16, 3), np.uint8), 0)


def run(model: Model, request: Request) -> tuple[list[Document], list[np.ndarray]]:
    """The filled documents of a rollout, and the frames that each handed out."""
    documents, chunks = [], []
    for _, decoded, pieces in roll(model, [Rollout(model.bundle, request)], Sampling()):
        documents.append(decoded.document)
        chunks.append(np.concatenate(list(pieces)))
    return documents, chunks


@given(st.data())
def test_windows_cover_a_clip_once_and_are_as_long_as_the_model_knows(model: Model, data: st.DataObject) -> None:
    total, most = data.draw(st.integers(1, 30)), data.draw(st.integers(2, 6))
    overlap = data.draw(st.none() | st.integers(1, most - 1))
    changes = sorted(data.draw(st.sets(st.integers(1, max(1, total - 1)), max_size=3))) if total > 1 else []
    request = Request(
        prompt="0",
        frames=4 * total - 3,
        window=4 * most - 3,
        overlap=None if overlap is None else 4 * overlap - 3,
        story=[(4 * cell - data.draw(st.integers(0, 3)), str(cell)) for cell in changes],
    )
    found = windows(request, model.bundle)
    assert [window.made for window in found] == [0, *(window.stop for window in found[:-1])]
    assert found[-1].stop == total
    for window in found:
        assert window.start <= window.made < window.stop
        assert window.stop - window.start == min(most, window.stop)
        if window.made:
            assert window.made - window.start >= min(window.made, overlap or max(1, most // 2))
        holds = [str(cell) for cell in [0, *changes] if cell <= window.made][-1]
        assert window.prompt == holds
        assert not any(window.made < cell < window.stop for cell in changes)


def test_a_long_clip_hands_out_each_frame_once_and_continues_what_it_made(model: Model) -> None:
    request = Request(prompt="a robot", frames=33, overlap=5, seed=3)
    documents, chunks = run(model, request)
    assert [d.task for d in documents] == ["t2v", "continuation", "continuation", "continuation"]
    assert [len(chunk) for chunk in chunks] == [13, 8, 8, 4]
    made = chunks[0]
    for document, chunk in zip(documents[1:], chunks[1:], strict=True):
        _, before, after = document.spans
        tail = made[-(1 + 4 * (len(before.values) - 1)) :]
        assert np.array_equal(before.values, model.bundle.video.encode(tail))
        whole = model.bundle.video.decode(document.codes())
        assert np.array_equal(chunk, whole[len(tail) :])
        assert len(before.values) + len(after.values) == 4
        made = np.concatenate([made, chunk])
    sampled = model.sample("a robot", frames=33, overlap=5, seed=3)
    assert np.array_equal(sampled.frames, made)
    assert sampled.fps == 8
    assert np.array_equal(np.concatenate(list(model.stream(request))), made)


def test_the_first_window_is_the_short_clip_and_later_ones_have_noise_of_their_own(model: Model) -> None:
    long = model.sample("a robot", frames=29, seed=5)
    assert np.array_equal(long.frames[:13], model.sample("a robot", seed=5).frames)
    rollout = Rollout(model.bundle, Request(prompt="a robot", frames=29, seed=5))
    seeds = [rollout.seed]
    while rollout.document is not None:
        rollout.take(rollout.document)
        seeds.append(rollout.seed)
    assert len(set(seeds)) == rollout.count == 3
    assert seeds[0] == 5


def test_512_frames_are_made_holding_no_more_than_a_window(model: Model) -> None:
    """What was handed out is let go: of all chunks at most the last two are alive, and a window's tail is held."""
    chunks: list[weakref.ref[np.ndarray]] = []
    total = 0
    rollout = Rollout(model.bundle, Request(prompt="a robot", frames=513))
    for _, _, pieces in roll(model, [rollout], Sampling()):
        (frames,) = pieces
        total += len(frames)
        assert rollout.held <= 13 - 4
        chunks.append(weakref.ref(frames if frames.base is None else frames.base))
        del frames
        assert sum(chunk() is not None for chunk in chunks) <= 2
    assert (total, rollout.held) == (513, 0)
    assert rollout.count == len(chunks) == 1 + (128 - 3) // 2 + 1


def test_the_video_that_a_clip_leads_to_is_read_frame_by_frame(model: Model, tmp_path: Path) -> None:
    """Of 400 frames no more than one is alive beside the decoder's own; they are the video's, to the last."""
    video = Video(np.random.default_rng(0).integers(0, 256, (400, 16, 16, 3), np.uint8), 8)
    video.write(tmp_path / "x.mp4", lossless=True)
    request = Request(video=tmp_path / "x.mp4", task="backward", frames=9, given_frames=5)
    ((_, decoded, pieces),) = roll(model, [Rollout(model.bundle, request)], Sampling())
    made = next(pieces)
    assert np.array_equal(made, model.bundle.video.decode(decoded.document.codes())[:-1])
    alive: list[weakref.ref[np.ndarray]] = []
    for wanted, piece in zip(video.frames, pieces, strict=True):
        assert np.array_equal(piece, wanted[None])
        alive.append(weakref.ref(piece if piece.base is None else piece.base))
        del piece
        assert sum(frame() is not None for frame in alive) <= 1
    whole = model.render(decoded.document, request)
    assert np.array_equal(whole.frames, np.concatenate([made, video.frames]))
    assert whole.fps == 8


def test_a_video_that_breaks_off_behind_what_leads_to_it_leaves_no_file(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Iterator[np.ndarray]:
        yield from np.zeros((20, 16, 16, 3), np.uint8)
        raise DataError("x.mp4: broken while decoding")

    monkeypatch.setattr(base, "at_rate", broken)
    rollout = Rollout(model.bundle, Request(video="x.mp4", task="backward", frames=9))
    ((_, _, pieces),) = roll(model, [rollout], Sampling())

    def write() -> None:
        with Film(tmp_path / "film.mp4", 8) as film:
            for frames in pieces:
                film.add(frames)

    with pytest.raises(DataError, match=r"x\.mp4: broken"):
        write()
    assert not list(tmp_path.iterdir())


def test_a_story_changes_its_prompt_where_it_says(model: Model) -> None:
    request = Request(prompt="a robot", story=((7, "a hero"), (21, "")), frames=25)
    documents, chunks = run(model, request)
    texts = [model.bundle.text.decode(d.spans[0].values) for d in documents]
    assert texts == ["a robot", "a hero", "a hero", ""]
    assert [len(chunk) for chunk in chunks] == [5, 8, 8, 4]
    assert [d.task for d in documents] == ["t2v", *["continuation"] * 3]


def test_an_image_that_is_made_first_is_the_first_frame(model: Model) -> None:
    documents, chunks = run(model, Request(prompt="a robot", via_image=True, frames=21, seed=2))
    assert [d.task for d in documents] == ["t2i", "i2v", "continuation"]
    assert [len(chunk) for chunk in chunks] == [0, 13, 8]
    picture = model.bundle.video.decode(documents[0].codes())
    assert np.array_equal(documents[1].spans[1].values, model.bundle.video.encode(picture))
    assert np.array_equal(picture, model.sample("a robot", frames=1, seed=2).frames)
    assert model.sample("a robot", via_image=True).frames.shape == (13, 16, 16, 3)


def test_compositions_are_made_of_the_tasks_that_the_table_says(model: Model) -> None:
    requests = {
        "t2i, then i2v": Request(prompt="a robot", via_image=True),
        "long video": Request(prompt="a robot", frames=21),
        "story": Request(prompt="a robot", story=((9, "a hero"),)),
        "size, length, aspect": Request(prompt="a robot", frames=9, height=24, width=8),
        "frame rate": Request(prompt="a robot", fps=12),
    }
    assert set(requests) == {row.name for row in COMPOSED}
    for row in COMPOSED:
        documents, _ = run(model, requests[row.name])
        assert {d.task for d in documents} - {"t2v"} == set(row.of)


def test_a_long_clip_starts_from_an_image_or_a_video_and_keeps_its_rate(model: Model) -> None:
    still = image()
    documents, chunks = run(model, Request(image=still, frames=21, fps=12))
    assert [d.task for d in documents] == ["i2v", "continuation"]
    assert np.array_equal(documents[0].codes()[:1], model.bundle.video.encode(still))
    assert {span.fps for d in documents for span in d.spans if span.modality == "video"} == {12}
    video = Video(np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), np.uint8), 8)
    documents, chunks = run(model, Request(video=video, frames=21))
    assert [d.task for d in documents] == ["continuation", "continuation"]
    assert sum(map(len, chunks)) == 21
    assert np.array_equal(documents[0].codes()[:2], model.bundle.video.encode(video.frames[-5:]))


def test_long_and_short_clips_share_their_rounds(model: Model) -> None:
    requests = [
        Request(prompt="a robot", frames=21, seed=1),
        Request(prompt="a hero", frames=1, seed=2),
        Request(prompt="a robot", via_image=True, seed=3),
        Request(last=image(), seed=4),
    ]
    together = model.sample_batch(requests, Sampling(guidance=1.5))
    for request, video in zip(requests, together, strict=True):
        (alone,) = model.sample_batch([request], Sampling(guidance=1.5))
        assert np.array_equal(alone.frames, video.frames)
        assert alone.fps == video.fps == (0 if request.frames == 1 else 8)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(prompt="a", frames=21, overlap=4), r"overlap = 4: for windows of 13 frames it is 1, 5, 9$"),
        (Request(prompt="a", frames=21, overlap=13), "overlap = 13: "),
        (Request(prompt="a", frames=21, window=1), "made in windows of 5 or more"),
        (Request(prompt="a", story=((13, "b"),)), "prompts change at frames 13; .* within 1 to 12"),
        (Request(prompt="a", story=((0, "b"),)), "prompts change at frames 0"),
        (Request(prompt="a", story=((6, "b"), (8, "c"))), "ascend from cell to cell of 4 frames"),
        (Request(last=image(), story=((5, "b"),)), "story is given: backward is made in one piece"),
        (Request(image=image(), via_image=True), "would be it"),
        (Request(image=image(), outpaint=(8, 0, 0, 0), via_image=True), "via_image is given: outpainting is made in"),
        (Request(prompt="a", via_image=True, frames=1), "has 5 frames or more"),
        (Request(prompt="a", story=((5, "b" * 200),)), "the prompt takes .* tokens"),
    ],
)
def test_chains_that_cannot_be_made_are_refused_before_the_first_document(
    model: Model, request_: Request, message: str
) -> None:
    with pytest.raises(PromptError, match=message):
        Rollout(model.bundle, request_)


def test_windows_that_no_grid_has_and_tasks_that_were_not_trained_are_refused_before_the_first_document(
    model: Model,
) -> None:
    with pytest.raises(DataError, match="the nearest is 13 frames"):
        Rollout(model.bundle, Request(prompt="a", frames=21, window=12))
    config = replace(model.bundle.config, tasks=["t2v", "t2i"])
    other = Model(replace(model.bundle, config=config))
    with pytest.raises(PromptError, match="not trained for continuation"):
        Rollout(other.bundle, Request(prompt="a", frames=21))
    with pytest.raises(PromptError, match="not trained for i2v"):
        Rollout(other.bundle, Request(prompt="a", via_image=True))
