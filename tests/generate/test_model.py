"""`Model`: from a request to a document, a video of the declared shape, and errors that say what is possible."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vpoet
from vpoet.errors import ConfigError, DataError, PromptError, ShapeError
from vpoet.generate.live import live
from vpoet.generate.model import Model, Request
from vpoet.generate.prompt_file import output_files, read_prompts, record
from vpoet.generate.sampling import Sampling
from vpoet.media.video import Video
from vpoet.sequence.document import Document, build
from vpoet.sequence.vocabulary import Modality


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Path:
    return make_bundle(tmp_path_factory.mktemp("model"), length=100, frames=9, height=24, width=32)


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return vpoet.load(folder, device="cpu")


def clip(frames: int, height: int = 24, width: int = 32, fps: float = 8.0) -> Video:
    return Video(np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), np.uint8), fps)


def corner(frames: int, height: int = 24, width: int = 32) -> Video:
    """A mask: white in the 8x8 pixels at the top left."""
    mask = np.zeros((frames, height, width, 3), np.uint8)
    mask[:, :8, :8] = 255
    return Video(mask, 8 if frames > 1 else 0)


@pytest.mark.parametrize(
    ("asked", "shape", "fps"),
    [
        ({}, (9, 24, 32, 3), 8),
        ({"frames": 5, "height": 16, "width": 8, "fps": 12}, (5, 16, 8, 3), 12),
        ({"frames": 1}, (1, 24, 32, 3), 0),
    ],
)
def test_a_video_has_the_size_and_rate_that_were_asked_for(
    model: Model, asked: dict[str, int], shape: tuple[int, ...], fps: int
) -> None:
    video = model.sample("a robot", **asked)  # type: ignore[arg-type]
    assert video.frames.shape == shape
    assert video.fps == fps


def test_the_task_follows_from_what_is_given(model: Model) -> None:
    for request, task in (
        (Request(prompt="a robot"), "t2v"),
        (Request(prompt="a robot", frames=1), "t2i"),
        (Request(), "unconditional"),
        (Request(frames=1), "unconditional"),
        (Request(prompt="a robot", image=clip(1, fps=0)), "i2v"),
        (Request(image=clip(1, fps=0)), "i2v"),
        (Request(prompt="a robot", video=clip(9)), "continuation"),
        (Request(video=clip(9), task="continuation"), "continuation"),
        (Request(video=clip(9), task="backward"), "backward"),
        (Request(last=clip(1, fps=0)), "backward"),
        (Request(prompt="a robot", image=clip(1, fps=0), last=clip(1, fps=0)), "interpolation"),
        (Request(video=clip(9), task="interpolation"), "interpolation"),
        (Request(video=clip(9), mask=corner(1)), "inpainting"),
        (Request(image=clip(1), outpaint=(8, 0, 0, 0)), "outpainting"),
    ):
        assert model.document(request).task == task


def test_an_empty_prompt_is_an_empty_text_where_no_task_does_without_text(model: Model) -> None:
    config = replace(model.bundle.config, tasks=["t2v"])
    document = Model(replace(model.bundle, config=config)).document(Request())
    assert document.task == "t2v"
    assert document.spans[0].values.size == 0


def test_an_image_is_the_first_cell_bit_for_bit(model: Model) -> None:
    image = clip(1, fps=0)
    request = Request(prompt="a robot", image=image, seed=3)
    (decoded,) = model.decode([model.document(request)], [3], Sampling(guidance=2.0))
    wanted = model.bundle.video.encode(image)
    assert np.array_equal(decoded.document.codes()[:1], wanted)
    video = model.render(decoded.document)
    assert video.frames.shape == (9, 24, 32, 3)
    assert np.array_equal(video.frames[0], model.bundle.video.decode(wanted)[0])


@pytest.mark.parametrize(("given", "cells"), [(None, 1), (1, 1), (5, 2)])
def test_a_continuation_keeps_the_last_frames_of_the_video_bit_for_bit(
    model: Model, given: int | None, cells: int
) -> None:
    video = clip(11)
    document = model.document(Request(prompt="a robot", video=video, given_frames=given))
    (decoded,) = model.decode([document], [0])
    frames = 1 + 4 * (cells - 1)
    assert np.array_equal(decoded.document.codes()[:cells], model.bundle.video.encode(video.frames[-frames:]))
    assert model.render(decoded.document).frames.shape == (9, 24, 32, 3)


def pictures(model: Model, frames: np.ndarray) -> np.ndarray:
    """Codes of each frame as an image of its own."""
    return np.concatenate([model.bundle.video.encode(frame[None]) for frame in frames])


def guides(document: Document) -> dict[int, np.ndarray]:
    return {s.time: s.values[0] for s in document.spans if s.modality == "image" and s.time > 0}


@pytest.mark.parametrize(("given", "count"), [(None, 1), (1, 1), (5, 2)])
def test_what_leads_to_a_video_shares_its_first_frame_and_is_joined_in_front(
    model: Model, given: int | None, count: int
) -> None:
    video = clip(11)
    request = Request(prompt="a robot", video=video, task="backward", given_frames=given)
    document = model.document(request)
    shown = pictures(model, video.frames[: 4 * count : 4])
    assert [*guides(document)] == [3 - count, 2][-count:]
    assert all(np.array_equal(a, b) for a, b in zip(guides(document).values(), shown, strict=True))
    (made,) = model.sample_batch([request])
    new = 1 + 4 * (3 - count)
    assert made.frames.shape == (new - 1 + 11, 24, 32, 3)
    assert np.array_equal(made.frames[-11:], video.frames)
    (decoded,) = model.decode([document], [0])
    assert decoded.document.codes().shape == (4 - count, 3, 4)
    assert np.array_equal(made.frames[: new - 1], model.bundle.video.decode(decoded.document.codes())[:-1])


def test_what_leads_to_an_image_is_a_whole_clip(model: Model) -> None:
    image = clip(1, fps=0)
    document = model.document(Request(last=image))
    assert np.array_equal(guides(document)[2], model.bundle.video.encode(image)[0])
    assert model.sample(last=image).frames.shape == (9, 24, 32, 3)


def test_between_two_images_the_first_is_the_first_cell_and_the_last_is_a_guide(model: Model) -> None:
    ends = clip(2)
    request = Request(prompt="a robot", image=Video(ends.frames[:1], 0), last=Video(ends.frames[1:], 0))
    (decoded,) = model.decode([model.document(request)], [0])
    first, last = pictures(model, ends.frames)
    codes = decoded.document.codes()
    assert codes.shape == (3, 3, 4)
    assert np.array_equal(codes[0], first)
    assert {time: code.tolist() for time, code in guides(decoded.document).items()} == {2: last.tolist()}


@pytest.mark.parametrize(
    ("rate", "asked", "times", "frames"),
    [
        (2.0, {}, [1, 2], 9),  # at 8 fps a frame in 4, which is one a cell; as long as the model's clips
        (2.0, {"frames": 17}, [1, 2, 3, 4], 17),
        (1.0, {}, [2], 9),
        (8.0, {}, [1], 5),
        (2.0, {"fps": 16, "frames": 17}, [2, 4], 17),
    ],
)
def test_a_slow_video_gives_frames_at_even_distances(
    model: Model, rate: float, asked: dict[str, int], times: list[int], frames: int
) -> None:
    video = clip(5, height=16, width=16, fps=rate)
    document = model.document(Request(video=video, task="interpolation", height=16, width=16, **asked))  # type: ignore[arg-type]
    assert [*guides(document)] == times
    step = max(1, round(4 * rate / 8)) if "fps" not in asked else 1
    shown = pictures(model, video.frames[::step][: 1 + len(times)])
    assert np.array_equal(document.spans[1].values[0], shown[0])
    assert all(np.array_equal(a, b) for a, b in zip(guides(document).values(), shown[1:], strict=True))
    assert len(model.bundle.video.decode(document.codes())) == frames


@pytest.mark.parametrize("frames", [1, 4])
def test_pixels_under_a_mask_have_no_influence_and_kept_cells_stay_bit_for_bit(model: Model, frames: int) -> None:
    """Of a video and of an image, at the size of the model and at another one."""
    for height, width in ((24, 32), (60, 70)):
        one = clip(frames, height, width)
        mask = np.zeros((height, width), bool)
        mask[height // 3 :, : width // 3] = True
        other = Video(np.where(mask[..., None], 255 - one.frames, one.frames), one.fps)
        shown = Video(mask[None, ..., None].repeat(3, axis=-1).astype(np.uint8) * 255, 0)
        name = "image" if frames == 1 else "video"
        made = []
        for source in (one, other):
            document = model.document(Request(prompt="a robot", mask=shown, **{name: source}))  # type: ignore[arg-type]
            (decoded,) = model.decode([document], [4])
            made.append(decoded.document)
        assert made[0].equals(made[1])
        context, target = made[0].spans[1:]
        assert context.hidden is not None
        assert not context.hidden.all()
        assert np.array_equal(target.values[~context.hidden], context.values[~context.hidden])
        assert len(decoded.nats) == context.hidden.sum()
        assert target.values[context.hidden].any()


def test_kept_cells_are_those_of_the_picture_where_the_mask_is_far(model: Model) -> None:
    """A mask of one corner of the second cell in time: the first cell, before it, is the plain video's."""
    video, mask = clip(5), corner(5)
    mask.frames[:2] = 0
    document = model.document(Request(video=video, mask=mask))
    hidden = document.spans[1].hidden
    assert hidden is not None
    assert hidden.nonzero() == (np.array([1]), np.array([0]), np.array([0]))
    assert np.array_equal(document.spans[1].values[0], model.bundle.video.encode(video)[0])


def test_outpainting_keeps_the_picture_within_its_border(model: Model) -> None:
    video = clip(9, 16, 16)
    document = model.document(Request(video=video, outpaint=(8, 0, 8, 8)))
    hidden = document.spans[1].hidden
    assert hidden is not None
    assert np.array_equal(hidden.nonzero()[0], np.repeat([0, 1, 2], 12 - 4))
    assert not hidden[:, :2, 1:3].any()
    made = model.sample(video=video, outpaint=(8, 0, 8, 8))
    assert made.frames.shape == (9, 24, 32, 3)
    (half,) = model.document(Request(image=clip(1), outpaint=(3, 0, 0, 0))).spans[1:2]
    assert half.hidden is not None
    assert half.hidden[0].tolist() == [[True, False, False, False]] * 3, "a cell that the border touches is made anew"


def test_guidance_and_batches_serve_every_task(model: Model) -> None:
    requests = [
        Request(prompt="a robot", last=clip(1)),
        Request(prompt="a robot", video=clip(9), mask=corner(1), seed=1),
        Request(prompt="a robot", image=clip(1), last=clip(1), seed=2),
        Request(prompt="a robot", image=clip(1), outpaint=(8, 0, 0, 0), seed=3),
        Request(prompt="a robot", frames=17, seed=4),
    ]
    together = model.sample_batch(requests, Sampling(guidance=2.0))
    for request, video in zip(requests, together, strict=True):
        (alone,) = model.sample_batch([request], Sampling(guidance=2.0))
        assert np.array_equal(alone.frames, video.frames)
        assert alone.fps == video.fps


def test_what_is_given_is_brought_to_size_and_rate(model: Model, tmp_path: Path) -> None:
    big = clip(20, height=50, width=60, fps=16.0)
    big.write(tmp_path / "big.mp4", lossless=True)
    document = model.document(Request(video=tmp_path / "big.mp4", given_frames=5))
    wanted = big.resample(8).frames[-5:]
    assert np.array_equal(document.spans[1].values, model.bundle.video.encode(Video(wanted, 8).resize(24, 32)))
    assert [span.fps for span in document.spans] == [0, 8, 8]


def test_a_batch_gives_what_each_request_gives_alone(model: Model) -> None:
    requests = [
        Request(prompt="a robot walks", seed=1),
        Request(prompt="a hero", frames=1, seed=2),
        Request(prompt="a robot", image=clip(1, fps=0), frames=5, seed=3),
    ]
    together = model.sample_batch(requests, Sampling(guidance=1.5, top_p=0.9))
    for request, video in zip(requests, together, strict=True):
        (alone,) = model.sample_batch([request], Sampling(guidance=1.5, top_p=0.9))
        assert np.array_equal(alone.frames, video.frames)
    for name in ("cfg", "guidance"):
        same = model.sample("a robot walks", seed=1, top_p=0.9, **{name: 1.5})
        assert np.array_equal(same.frames, together[0].frames)
    assert not np.array_equal(model.sample("a robot walks", seed=2, cfg=1.5, top_p=0.9).frames, same.frames)


def test_a_prompt_that_is_too_long_is_refused_with_what_is_allowed(model: Model) -> None:
    document = model.document(Request(prompt="robot"))
    free = 100 - len(build(document, model.bundle.transformer.vocabulary)) + document.spans[0].values.size
    longest = "x" * (2 * free - len(model.bundle.text.encode("x" * free)))  # one token a letter, and some for the start
    assert len(model.bundle.text.encode(longest)) == free
    assert len(build(model.document(Request(prompt=longest)), model.bundle.transformer.vocabulary)) == 100
    with pytest.raises(PromptError, match=rf"the prompt takes {free + 1} tokens, .* {free} are allowed"):
        model.document(Request(prompt=longest + "x"))


def test_sizes_that_cannot_be_are_refused_with_what_can(model: Model) -> None:
    with pytest.raises(DataError, match="the nearest is 9 frames of 24x32"):
        model.sample("a robot", frames=10, height=25, width=30)
    with pytest.raises(ShapeError, match=r"9x3x4 cells take \d+ tokens, .* on at most 100: ask for fewer frames"):
        model.sample("a robot", frames=33, window=33)
    with pytest.raises(ShapeError, match="fps = 300 does not fit the header"):
        model.sample("a robot", fps=300)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(image=clip(1), video=clip(9)), "an image and a video are given"),
        (Request(prompt="a", given_frames=1), "no such video is given"),
        (Request(image=clip(1), frames=1), "1 frames are all given: ask for 5 or more"),
        (Request(video=clip(9), given_frames=9), r"given_frames = 9: for a clip of 9 frames it is 1, 5$"),
        (Request(video=clip(9), given_frames=4), r"given_frames = 4: .* it is 1, 5$"),
        (Request(video=clip(3), given_frames=5), "given_frames = 5, but the video has 3 frames at 8 fps"),
        (Request(video=clip(9), last=clip(1)), "an image and a video are given"),
        (Request(last=clip(1), frames=1), "1 frames are all given: ask for 5 or more"),
        (Request(prompt="a", task="backward"), "no such video is given"),
        (Request(video=clip(9), task="t2v"), "task = 't2v': of a video there can be its continuation, backward"),
        (Request(video=clip(9), task="backward", given_frames=9), r"given_frames = 9: .* it is 1, 5$"),
        (Request(video=clip(9), task="interpolation", frames=3), "frames = 3: the video gives one frame in 4 at 8 fps"),
        (Request(video=clip(9), task="interpolation", frames=13), "multiple of 4, and at most 9"),
        (Request(video=clip(2), task="interpolation"), "nothing between"),
        (Request(video=clip(1, fps=0), task="interpolation"), "nothing between"),
        (Request(mask=corner(1)), "give one of them, and nothing else"),
        (Request(image=clip(1), last=clip(1), mask=corner(1)), "give one of them, and nothing else"),
        (Request(image=clip(1), mask=corner(1), outpaint=(8, 0, 0, 0)), "within a picture, or around it"),
        (Request(video=clip(9), mask=corner(1), task="backward"), "without a mask"),
        (Request(image=clip(1), mask=corner(1), frames=9), "frames = 9: an image is painted on as the one frame"),
        (Request(video=clip(5), mask=corner(1), frames=9), "frames = 9, but the video has 5 frames"),
        (Request(video=clip(9), mask=corner(5)), "the mask has 5 frames, and the clip 9"),
        (Request(video=clip(9), mask=corner(1, 16, 16)), "the mask has 16x16 pixels, and what it is for 24x32"),
        (Request(video=clip(9), mask=Video(np.zeros((1, 24, 32, 3), np.uint8), 0)), "black everywhere"),
        (Request(video=clip(9), mask=Video(np.full((1, 24, 32, 3), 255, np.uint8), 0)), "nothing is left to keep"),
        (Request(video=clip(9), outpaint=(0, 0, 0, 0)), "outpaint = 0,0,0,0: "),
        (Request(video=clip(9), outpaint=(16, 0, 16, 0)), "outpaint = 16,0,16,0: .* 24x32"),
        (Request(video=clip(9), outpaint=(30, 0, 0, 0)), "nothing is left to keep"),
        (Request(prompt="a", seed=-1), "seed = -1"),
        (Request(prompt="a", fps=0), "fps = 0"),
    ],
)
def test_requests_that_make_no_sense_are_refused(model: Model, request_: Request, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        model.document(request_)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ((0, 0, 8, 4), "nothing of what the mask shows white is in the clip"),  # left of the centre that is taken
        ((0, 0, 64, 0), "black everywhere"),
    ],
)
def test_a_mask_of_which_nothing_is_in_the_clip_is_refused(
    model: Model, mask: tuple[int, int, int, int], message: str
) -> None:
    top, left, bottom, right = mask
    white = np.zeros((1, 24, 64, 3), np.uint8)
    white[:, top:bottom, left:right] = 255
    with pytest.raises(PromptError, match=message):
        model.document(Request(video=clip(9, width=64), mask=Video(white, 0)))


@pytest.mark.parametrize("ink", ["white on clear", "white on black", "grey"])
def test_what_is_transparent_in_a_mask_is_kept(model: Model, ink: str, tmp_path: Path) -> None:
    """An editor's layer of white strokes, and any other way to draw the same mask."""
    corners = corner(1).frames[0]
    alpha = corners[..., :1] if ink == "white on clear" else np.full_like(corners[..., :1], 255)
    colour = np.full_like(corners, 255) if ink == "white on clear" else corners
    drawn = Image.fromarray(np.dstack([colour, alpha])) if ink != "grey" else Image.fromarray(corners[..., 0])
    drawn.save(tmp_path / "mask.png")
    wanted = model.document(Request(video=clip(9), mask=corner(1)))
    assert model.document(Request(video=clip(9), mask=tmp_path / "mask.png")).equals(wanted)


def test_a_video_of_any_length_gives_what_its_end_or_start_gives(model: Model, tmp_path: Path) -> None:
    """Read from a file, frame by frame, at another rate, and of it no more than what is needed is held."""
    long = clip(60, fps=16.0)
    long.write(tmp_path / "long.mp4", lossless=True)
    at_8 = long.frames[::2]
    for task, part in (("continuation", at_8[-5:]), ("backward", at_8[:5])):
        asked = Request(video=tmp_path / "long.mp4", task=task, given_frames=5)
        wanted = model.document(replace(asked, video=Video(part, 8)))
        assert model.document(asked).equals(wanted)
    painted = model.document(Request(video=tmp_path / "long.mp4", outpaint=(8, 0, 0, 0)))
    assert painted.equals(model.document(Request(video=Video(at_8[:9], 8), outpaint=(8, 0, 0, 0))))


def test_a_task_that_was_not_trained_is_refused(model: Model) -> None:
    config = replace(model.bundle.config, tasks=["t2v", "t2i"])
    other = Model(replace(model.bundle, config=config))
    with pytest.raises(
        PromptError, match=r"not trained for i2v \(a video that starts from an image\); it was for t2v, t2i"
    ):
        other.sample("a robot", image=clip(1))


def test_only_visual_spans_are_targets(model: Model) -> None:
    for request in (Request(prompt="a"), Request(image=clip(1)), Request(video=clip(9)), Request()):
        spans = model.document(request).spans
        assert [s.modality for s in spans if s.target] == [Modality.VIDEO]


def test_a_prompt_file_gives_requests_and_names_its_bad_lines(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    good = '{"prompt": "a hero", "seed": 4, "image": "a.png"}'
    path.write_text("\n".join(["# a comment", "", "a robot walks", good, '{"prmpt": "x"}', '{"seed": "1"}', "{"]))
    requests, problems = read_prompts(path, {"frames": 5, "seed": 9})
    (where, first), (_, second) = requests
    assert where == f"{path}:3"
    assert (first.prompt, first.frames, first.seed) == ("a robot walks", 5, 9)
    assert (second.prompt, second.frames, second.seed, second.image) == ("a hero", 5, 4, tmp_path / "a.png")
    assert [problem.partition(": ")[0] for problem in problems] == [f"{path}:{n}" for n in (5, 6, 7)]
    assert "unknown field 'prmpt'; did you mean 'prompt'?" in problems[0]
    assert "seed = '1': it must be of type int" in problems[1]
    assert "not valid JSON" in problems[2]
    with pytest.raises(DataError, match=r"nowhere\.txt: not readable"):
        read_prompts(tmp_path / "nowhere.txt", {})


def test_a_prompt_file_serves_every_task(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    lines = [
        '{"video": "a.mp4", "mask": "m.png"}',
        '{"image": "a.png", "last": "b.png"}',
        '{"video": "a.mp4", "task": "backward"}',
        '{"image": "a.png", "outpaint": "8, 0,8,0"}',
        '{"prompt": "a", "via_image": true, "frames": 33, "window": 17, "overlap": 5}',
        '{"prompt": "a", "story": ["17: b", "25:c: d"]}',
        '{"outpaint": "8,0,8"}',
        '{"story": ["b"]}',
        '{"via_image": 1}',
        '{"story": "17: b"}',
    ]
    path.write_text("\n".join(lines))
    requests, problems = read_prompts(path, {})
    found = [request for _, request in requests]
    assert (found[0].video, found[0].mask) == (tmp_path / "a.mp4", tmp_path / "m.png")
    assert (found[1].image, found[1].last) == (tmp_path / "a.png", tmp_path / "b.png")
    assert found[2].task == "backward"
    assert found[3].outpaint == (8, 0, 8, 0)
    assert (found[4].via_image, found[4].frames, found[4].window, found[4].overlap) == (True, 33, 17, 5)
    assert found[5].story == ((17, "b"), (25, "c: d"))
    for problem, words in zip(problems, ("outpaint = '8,0,8'", "FRAME: TEXT", "type bool", "type list"), strict=True):
        assert words in problem


def test_files_are_named_after_out_or_after_the_prompts(tmp_path: Path) -> None:
    one, two, three = (Request(prompt=p, seed=2) for p in ("A robot, walking!", "a robot walking", ""))
    assert output_files(Path("x.gif"), [one]) == [Path("x.gif")]
    assert output_files(Path("a/x.mp4"), [one, two]) == [Path("a/x-0.mp4"), Path("a/x-1.mp4")]
    names = [file.name for file in output_files(tmp_path, [one, two, three, Request(prompt="b", frames=1)])]
    assert names == ["a-robot-walking-2.mp4", "a-robot-walking-2.2.mp4", "sample-2.mp4", "b-0.png"]
    with pytest.raises(DataError, match=r"x\.avi: cannot write \.avi; use \.mp4, \.gif, \.webp, \.png, or a folder"):
        output_files(Path("x.avi"), [one])


def test_guesses_leave_the_clips_as_they_are(folder: Path, model: Model) -> None:
    requests = [Request(prompt="a robot"), Request(prompt="a hero", image=clip(1, fps=0), seed=4, frames=5)]
    guessing = vpoet.load(folder, device="cpu", guesses=3)
    for one, other in zip(model.sample_batch(requests), guessing.sample_batch(requests), strict=True):
        assert np.array_equal(one.frames, other.frames)
    watched = np.concatenate(list(live(guessing, requests[0])))
    assert int(np.abs(watched.astype(int) - model.sample("a robot").frames).max()) <= 1


def test_guesses_are_no_negative_number(model: Model) -> None:
    with pytest.raises(ConfigError, match="guesses = -1: it must be 0 to 4096"):
        Model(model.bundle, guesses=-1)


def recorded(request: Request, sampling: Sampling, weights: str, decoder: str, precision: str) -> dict[str, Any]:
    """The record of a sample of a model with these hashes."""
    bundle = SimpleNamespace(hash=weights, video=SimpleNamespace(hash=decoder))
    return record(request, sampling, SimpleNamespace(bundle=bundle, precision=precision))


def test_a_record_changes_with_all_that_changes_the_sample(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    image.write_bytes(b"one")
    request = Request(prompt="a", image=image)
    records = [
        recorded(request, Sampling(), "model", "decoder", "fp32"),
        recorded(replace(request, seed=1), Sampling(), "model", "decoder", "fp32"),
        recorded(request, Sampling(top_k=3), "model", "decoder", "fp32"),
        recorded(request, Sampling(), "other", "decoder", "fp32"),
        recorded(request, Sampling(), "model", "decoder", "int8"),
        recorded(request, Sampling(), "model", "another", "fp32"),
        recorded(replace(request, mask=image), Sampling(), "model", "decoder", "fp32"),
        recorded(replace(request, story=((5, "b"),)), Sampling(), "model", "decoder", "fp32"),
        recorded(replace(request, task="backward"), Sampling(), "model", "decoder", "fp32"),
    ]
    assert all(json.loads(json.dumps(made)) == made for made in records)
    image.write_bytes(b"two")
    records.append(recorded(request, Sampling(), "model", "decoder", "fp32"))
    assert len({str(r) for r in records}) == 10
    assert recorded(request, Sampling(), "model", "decoder", "fp32") == records[-1]
    os.mkfifo(tmp_path / "pipe.png")
    for name, said in (("none.png", "no such file"), ("pipe.png", "a pipe"), ("a\0b.png", "null byte")):
        with pytest.raises(DataError, match=f"image not readable: .*{said}"):
            recorded(Request(image=tmp_path / name), Sampling(), "model", "decoder", "fp32")


def test_a_bundle_says_which_words_it_knows_and_how_it_is_best_sampled(
    tmp_path: Path, make_bundle: Callable[..., Path]
) -> None:
    small = {"length": 60, "frames": 5, "height": 16, "width": 16}
    told = vpoet.load(
        make_bundle(tmp_path / "a", words=["a", "robot", "walks"], guidance=2.5, temperature=0.7, **small)
    )
    assert told.unknown("A robot dances, a dragon walks") == ["dances", "dragon"]
    assert told.sampling() == Sampling(guidance=2.5, temperature=0.7)
    assert told.sampling(cfg=1.0, top_k=3) == Sampling(guidance=1.0, temperature=0.7, top_k=3)
    assert told.sampling(guidance=1.0) == told.sampling(cfg=1.0)
    assert told.sampling(guidance=None) == told.sampling()
    quiet = vpoet.load(make_bundle(tmp_path / "b", **small))
    assert quiet.unknown("a dragon") == []
    assert quiet.sampling() == Sampling()


def test_a_small_model_decodes_in_one_thread_and_leaves_the_others_as_they_were(model: Model) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    seen: list[int] = []
    model.decode(
        [model.document(Request(prompt="a robot"))], [0], on_step=lambda *_: seen.append(torch.get_num_threads())
    )
    assert set(seen) == {1}
    assert torch.get_num_threads() == 3
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("asked", "found"), [("auto", "fp32"), ("fp32", "fp32"), ("bf16", "bf16"), ("int8", "int8")])
def test_the_precision_that_auto_came_to_is_told(folder: Path, asked: str, found: str) -> None:
    assert vpoet.load(folder, device="cpu", precision=asked).precision == found
