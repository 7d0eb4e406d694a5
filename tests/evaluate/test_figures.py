"""What is kept of figures, and when codes change: counted on clips and codes made by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vpoet.data.shards import Problems, Sample
from vpoet.evaluate.comparison import Comparison, in_words
from vpoet.evaluate.figures import CodeChanges, FigureScores, figure_boxes
from vpoet.evaluate.pixels import psnr
from vpoet.evaluate.reconstruction import ReconstructionScores
from vpoet.media.video import Video
from vpoet.tokenizer.autoencoder import Autoencoder, AutoencoderConfig
from vpoet.tokenizer.quantiser import QuantiserConfig
from vpoet.tokenizer.video import VideoTokenizer
from vpoet.worlds.playground import WORLD


def moving(frames: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """A square of 4x4 in row 2, four pixels to the right each frame, over grey of 16x32; and its boxes."""
    clip = np.full((frames, 16, 32, 3), 100, np.uint8)
    boxes = np.array([(4 * t, 2, 4 * t + 4, 6) for t in range(frames)])
    for frame, (left, top, right, bottom) in zip(clip, boxes, strict=True):
        frame[top:bottom, left:right] = 200
    return clip, boxes


def test_codes_are_counted_by_whether_their_pixels_change() -> None:
    clip, boxes = moving()  # the square is in cells 0, 0, 1, 1 of the upper row
    codes = np.zeros((4, 2, 4), np.int32)
    codes[1:, 0, 0] = 1  # with its pixels
    codes[2:, 0, 1] = 1  # with its pixels
    codes[2:, 1, 3] = 1  # though its pixels hold still
    changes = CodeChanges()
    changes.update(codes, clip, boxes)
    assert (changes.steps, changes.changed) == (3, 3)
    assert (changes.still, changes.still_changed) == (24 - 4, 1)
    assert (changes.figure_steps, changes.figure_cells, changes.figure_changed) == (3, 4, 3)
    assert changes.result() == {
        "codes_changed_a_step": 1,
        "codes_changed_where_still": 1 / 20,
        "codes_changed_by_the_figure": 1,
        "cells_moved_by_the_figure": 4 / 3,
    }


def test_steps_count_for_the_figure_in_which_it_moves_and_nothing_else_does() -> None:
    clip, boxes = moving()
    clip[2:, 12, 20] = 0  # something else, from frame 1 to 2
    clip[:, 15, 31] += np.arange(4, dtype=np.uint8)[:, None]  # noise
    changes = CodeChanges()
    changes.update(np.zeros((4, 2, 4), np.int32), clip, boxes)
    assert changes.figure_steps == 2
    still = np.repeat(clip[:1], 4, axis=0)
    changes.update(np.zeros((4, 2, 4), np.int32), still, np.repeat(boxes[:1], 4, axis=0))
    assert (changes.figure_steps, changes.steps) == (2, 6)
    changes.update(np.zeros((4, 2, 4), np.int32), clip)
    changes.update(np.zeros((1, 2, 4), np.int32), clip[:1], boxes[:1])
    assert (changes.figure_steps, changes.steps) == (2, 9)


def test_steps_of_several_frames_are_the_figure_s_if_all_of_theirs_are() -> None:
    clip, boxes = moving(5)
    for other, expected in ((None, 2), (4, 1), (2, 1)):
        shown = clip.copy()
        if other is not None:
            shown[other:, 12, 20] = 0
        changes = CodeChanges()
        changes.update(np.zeros((3, 2, 4), np.int32), shown, boxes)
        assert (changes.steps, changes.figure_steps) == (2, expected)


def test_nothing_is_said_of_what_there_is_nothing_of() -> None:
    assert set(CodeChanges().result().values()) == {None}
    assert FigureScores().result() == {}


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"truth": 3},
        {"truth": {"boxes": "no"}},
        {"truth": {"boxes": [[0, 0, 1, 1]]}},
        {"truth": {"boxes": [[0.5, 0, 1, 1]] * 2}},
        {"truth": {"boxes": [[0, 0, 1]] * 2}},
        {"truth": {"boxes": [[0, 0, 1, 1], [0]]}},
        {"source": "vpoet playground world, clip 0", "truth": {"x": [1], "y": "?"}},
    ],
)
def test_a_json_that_tells_of_no_figure_is_no_error(facts: dict[str, Any]) -> None:
    assert figure_boxes(facts, 2) is None
    scores = FigureScores()
    clip = np.zeros((2, 64, 64, 3), np.uint8)
    scores.add(clip, clip, facts, 8)
    assert scores.result() == {}


def test_psnr_in_boxes_is_that_of_what_lies_in_them() -> None:
    clip, boxes = moving()
    drawn = clip.copy()
    drawn[:, :, :2] += 9  # in the box of frame 0 alone, half of it
    drawn[:, 10:] = 0
    scores = FigureScores()
    scores.add(clip, drawn, {"truth": {"boxes": [*boxes[:3].tolist(), [32, 2, 32, 6]]}}, 8)
    assert scores.result() == {
        "psnr_in_boxes": pytest.approx((psnr(clip[:1, 2:6, :4], drawn[:1, 2:6, :4]) + 100 + 100) / 3)
    }


@pytest.fixture(scope="module")
def played() -> tuple[np.ndarray, dict[str, Any]]:
    return WORLD(frames=6).clip(3)


def test_a_box_is_what_the_figure_covers(played: tuple[np.ndarray, dict[str, Any]]) -> None:
    """Of the playground: frames with two in the same place differ within their boxes alone, up to the edges."""
    world = WORLD.stepped()
    for seed in range(4):
        frames, boxes = [], []
        for who in ("robot", "zombie"):
            frames.append(world.reset(seed, f"a {who}").astype(int))
            boxes.append(world.box)
        left, top = np.min(boxes, axis=0)[:2]
        right, bottom = np.max(boxes, axis=0)[2:]
        rows, columns = np.nonzero(np.abs(frames[0] - frames[1]).max(-1))
        assert left <= columns.min() <= left + 2
        assert right - 2 <= columns.max() + 1 <= right
        assert top <= rows.min() <= top + 2
        assert bottom - 2 <= rows.max() + 1 <= bottom
    frames, facts = played
    assert figure_boxes(facts, len(frames)) is not None


def test_the_world_s_judge_reads_the_figure(played: tuple[np.ndarray, dict[str, Any]]) -> None:
    frames, facts = played
    scores = FigureScores()
    drawn = frames.copy()
    drawn[2:] = np.roll(frames[2:], 1, axis=2)  # a pixel to the right
    drawn[5] = 0
    scores.add(frames, drawn, facts, 8)
    found = scores.result()
    assert (found["figures"], found["figures_read_in_originals"]) == (6, 1)
    assert found["figures_read"] == pytest.approx(2 / 6)


def test_an_evaluation_tells_of_figures_and_changes(played: tuple[np.ndarray, dict[str, Any]]) -> None:
    frames, facts = played
    torch.manual_seed(0)
    sizes = AutoencoderConfig(time_stride=1, widths=[8, 8], encoder_blocks=[0, 0], decoder_blocks=[0, 0])
    sizes.quantiser = QuantiserConfig(levels=[5, 5])
    comparison = Comparison([ReconstructionScores(VideoTokenizer(Autoencoder(sizes)))], [], Problems())
    comparison.add(Sample("a", {}, facts), Video(frames, 8))
    (values,) = comparison.results()
    assert {"psnr_in_boxes", "figures_read", "codes_changed_where_still"} <= values.keys()
    assert values["codes_a_step"] == 64
    _, line = in_words(Path("x"), values, 1)
    assert "of 64 codes change a step" in line
    assert "of 6 figures within half a pixel (100.00% in the originals)" in line
