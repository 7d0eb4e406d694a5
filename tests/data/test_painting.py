"""Paintings: what is filled, scaled and shown of a clip with a hole, how holes are drawn, and their file."""

import io
import zipfile
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vpoet.data import painting
from vpoet.data.painting import draw_mask, filled, from_npz, scaled, shown_codes, to_npz, touched
from vpoet.errors import DataError, PromptError
from vpoet.sequence.arrangements import Painting
from vpoet.sequence.tasks import PAINTED

STRIDE = (2, 4, 4)


class Wide:
    """An encoder of 2x4x4 whose every code depends on all of its frame, and on all frames before."""

    stride = STRIDE

    def encode(self, video: Any, /) -> np.ndarray:
        height, width = video.shape[1:3]
        sums = video.astype(np.int64).sum(axis=(1, 2, 3)).cumsum()[:: STRIDE[0]]
        cells = np.indices((len(sums), height // STRIDE[1], width // STRIDE[2])).sum(axis=0)
        return ((sums[:, None, None] + cells) % 1000).astype(np.int32)


def draw(frames: np.ndarray, key: str = "one", *, seed: int = 0, count: int = 2) -> list[Painting]:
    hidden = painting.draw(frames, STRIDE, key, seed=seed, count=count)
    return [one.painting(Wide().encode(one.frames)) for one in hidden]


def clip(seed: int = 0, frames: int = 5, height: int = 12, width: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8)


@pytest.mark.parametrize("task", PAINTED)
def test_what_is_hidden_has_no_influence_on_what_is_shown(task: str) -> None:
    """By construction: with other pixels under the mask a clip has other codes, and shows the same."""
    one = clip()
    for seed in range(20):
        mask = draw_mask(task, (3, 3, 4), STRIDE, np.random.default_rng(seed))
        other = np.where(mask[..., None], 255 - one, one)
        codes, hidden = shown_codes(*scaled(one, mask, 12, 16), Wide())
        assert np.array_equal(hidden, touched(mask, STRIDE))
        assert np.array_equal(codes, np.where(hidden, 0, Wide().encode(filled(one, mask))))
        assert np.array_equal(codes, shown_codes(*scaled(other, mask, 12, 16), Wide())[0])
        assert (Wide().encode(one) != Wide().encode(other))[~hidden].any()


def test_paintings_depend_on_seed_key_task_and_number_alone() -> None:
    def drawn(frames: np.ndarray, **changes: Any) -> list[bytes]:
        return [to_npz(painting) for painting in draw(frames, **changes)]

    two = drawn(clip())
    assert [painting.task for painting in draw(clip())] == [*PAINTED, *PAINTED]
    assert len(set(two)) == 4
    assert drawn(clip()) == two
    assert drawn(clip(), count=1) == two[:2]
    assert drawn(clip(), count=0) == []
    for changes in ({"seed": 1}, {"key": "other"}):
        assert not set(drawn(clip(), **changes)) & set(two)
    hidden = [[painting.hidden for painting in draw(clip(i))] for i in (0, 1)]
    assert np.array_equal(*hidden), "the frames have no part in it"


@pytest.mark.parametrize(
    ("size", "tasks"),
    [((1, 4, 4), []), ((5, 4, 4), ["inpainting"]), ((1, 4, 8), list(PAINTED)), ((3, 8, 4), list(PAINTED))],
)
def test_a_clip_is_painted_where_something_can_be_hidden_and_something_shown(
    size: tuple[int, int, int], tasks: list[str]
) -> None:
    found = draw(clip(0, *size), "key", seed=3, count=1)
    assert [painting.task for painting in found] == tasks
    assert all(0 < painting.hidden.mean() < 1 for painting in found)


def test_boxes_hide_still_and_passing_parts_and_borders_leave_one_rectangle() -> None:
    random = np.random.default_rng(0)
    boxes = [draw_mask("inpainting", (3, 3, 3), STRIDE, random) for _ in range(200)]
    assert 40 < sum(bool((mask == mask[:1]).all()) for mask in boxes) < 160
    assert 0.3 < np.mean([touched(mask, STRIDE).mean() for mask in boxes]) < 0.7
    edges = [np.flatnonzero(np.diff(mask.any(axis=(0, 1)))) + 1 for mask in boxes]
    assert {int(edge) % 4 for found in edges for edge in found} == {0, 1, 2, 3}, "people's masks know no cells"
    times = [np.flatnonzero(np.diff(mask.any(axis=(1, 2)))) + 1 for mask in boxes]
    assert {int(time) for found in times for time in found} == {1, 2, 3, 4}
    kept = set()
    for _ in range(200):
        mask = draw_mask("outpainting", (3, 3, 3), STRIDE, random)
        assert (mask == mask[:1]).all()
        rows, columns = np.nonzero(~touched(mask, STRIDE)[0])
        assert not mask[0, 4 * rows.min() : 4 * rows.max() + 4, 4 * columns.min() : 4 * columns.max() + 4].any()
        rows, columns = np.nonzero(~mask[0])
        assert not mask[0, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].any()
        kept.add((rows.min(), rows.max(), columns.min(), columns.max()))
    assert len(kept) > 100


GRID = (2, 3, 3)
HIDDEN = np.indices(GRID).sum(axis=0) % 3 == 0
PAINTING = Painting("inpainting", HIDDEN, np.where(HIDDEN, 0, np.arange(18, dtype=np.int32).reshape(GRID)))


@given(st.integers(1, 4), st.integers(1, 4), st.integers(2, 4), st.sampled_from([10, 2**16, 2**31]), st.data())
def test_a_painting_survives_its_file(t: int, h: int, w: int, codes: int, data: st.DataObject) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    hidden = random.random((t, h, w)) < 0.5
    hidden.flat[:2] = True, False
    painting = Painting(
        "outpainting", hidden, np.where(hidden, 0, random.integers(0, codes, hidden.shape)).astype("i4")
    )
    found = from_npz(to_npz(painting), "outpainting", hidden.shape)
    assert found.task == painting.task
    assert np.array_equal(found.hidden, painting.hidden)
    assert np.array_equal(found.shown, painting.shown)
    assert found.shown.dtype == np.int32
    assert to_npz(found) == to_npz(painting)


class Trap:
    """An object whose unpickling would be seen."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a pickle was opened",)


def npz(**parts: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **parts)
    return buffer.getvalue()


BITS, CODES = np.packbits(HIDDEN), PAINTING.shown[~HIDDEN].astype(np.uint16)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        to_npz(PAINTING)[:-40],
        npz(hidden=BITS),
        npz(hidden=np.array([Trap()], dtype=object), shown=CODES),
        npz(hidden=HIDDEN, shown=CODES),
        npz(hidden=BITS[:-1], shown=CODES),
        npz(hidden=BITS | np.uint8(1), shown=CODES),
        npz(hidden=np.zeros_like(BITS), shown=np.zeros(18, np.uint16)),
        npz(hidden=np.packbits(np.ones(18, np.bool_)), shown=CODES[:0]),
        npz(hidden=BITS, shown=CODES[1:]),
        npz(hidden=BITS, shown=CODES.astype(np.int64)),
        npz(hidden=BITS, shown=CODES.astype(np.float32)),
        npz(hidden=BITS, shown=CODES.astype(np.uint32) + np.uint32(2**31)),
        npz(hidden=BITS, shown=CODES, more=np.zeros(10**7, np.uint8)),
    ],
)
def test_a_file_that_is_no_painting_of_its_clip_is_refused(data: bytes) -> None:
    with pytest.raises(DataError):
        from_npz(data, "inpainting", GRID)


@given(st.integers(0, 10**6), st.integers(1, 255))
@example(0, 1)
def test_a_flipped_byte_is_refused_or_changes_nothing_else(at: int, flip: int) -> None:
    data = bytearray(to_npz(PAINTING))
    data[at % len(data)] ^= flip
    try:
        found = from_npz(bytes(data), "inpainting", GRID)
    except DataError:
        return
    assert np.array_equal(found.hidden, HIDDEN)
    assert np.array_equal(found.shown, PAINTING.shown)


def test_a_header_that_names_a_huge_array_costs_no_memory() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("hidden.npy", "shown.npy"):
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, {"descr": "<u2", "fortran_order": False, "shape": (10**15,)})
            archive.writestr(name, header.getvalue())
    with pytest.raises(DataError, match=r"not a \.npz"):
        from_npz(buffer.getvalue(), "inpainting", GRID)


def masks(data: st.DataObject, frames: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros((frames, height, width), bool)
    for _ in range(data.draw(st.integers(1, 3))):
        t, h, w = (data.draw(st.integers(0, size - 1)) for size in mask.shape)
        mask[t, h : h + data.draw(st.integers(1, height)), w : w + data.draw(st.integers(1, width))] = True
    return mask


@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.data())
def test_filling_keeps_what_is_kept_and_sees_nothing_else(t: int, h: int, w: int, data: st.DataObject) -> None:
    mask = masks(data, t, h, w)
    one = np.random.default_rng(0).integers(0, 256, (t, h, w, 3), np.uint8)
    other = np.where(mask[..., None], 255 - one, one)
    assert np.array_equal(filled(one, mask), filled(other, mask))
    assert np.array_equal(filled(one, mask)[~mask], one[~mask])
    for frame, hidden, found in zip(one, mask, filled(one, mask), strict=True):
        if not hidden.all():  # means of what is kept: between its darkest and its brightest
            assert (found >= frame[~hidden].min(axis=0)).all()
            assert (found <= frame[~hidden].max(axis=0)).all()


def test_frames_are_filled_each_by_itself() -> None:
    frames, mask = clip(frames=35), np.random.default_rng(1).random((35, 12, 16)) < 0.7
    mask[3:25] = False
    mask[30] = True
    alone = [filled(frames[i : i + 1], mask[i : i + 1]) for i in range(35)]
    assert np.array_equal(filled(frames, mask), np.concatenate(alone))


def test_a_hole_in_a_plain_colour_has_that_colour() -> None:
    frames = np.full((1, 16, 16, 3), (10, 200, 30), np.uint8)
    mask = np.zeros((1, 16, 16), bool)
    mask[0, 3:14, 2:16] = True
    frames[mask] = 255
    assert (filled(frames, mask) == (10, 200, 30)).all()


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.data())
def test_a_cell_is_touched_by_any_of_its_pixels(t: int, h: int, w: int, data: st.DataObject) -> None:
    mask = masks(data, 1 + 2 * (t - 1), 4 * h, 4 * w)
    wanted = np.zeros((t, h, w), bool)
    for frame, row, column in zip(*mask.nonzero(), strict=True):
        wanted[(frame + 1) // 2, row // 4, column // 4] = True
    if wanted.all():
        with pytest.raises(PromptError, match="4x4 pixels and 2 frames: nothing is left to keep"):
            touched(mask, (2, 4, 4))
    else:
        assert np.array_equal(touched(mask, (2, 4, 4)), wanted)


@given(st.integers(5, 30), st.integers(5, 30), st.data())
def test_scaling_lets_nothing_out_from_under_the_mask(height: int, width: int, data: st.DataObject) -> None:
    mask = masks(data, 2, 12, 17)
    one = np.random.default_rng(0).integers(0, 256, (2, 12, 17, 3), np.uint8)
    other = np.where(mask[..., None], 255 - one, one)
    frames, grown = scaled(one, mask, height, width)
    assert np.array_equal(frames, scaled(other, mask, height, width)[0])
    assert frames.shape[:3] == grown.shape == (2, height, width)
    # Beside the mask the picture is nearly as if nothing had been hidden: only bicubic's negative lobes reach there.
    plain, _ = scaled(one, np.zeros_like(mask), height, width)
    assert not (np.abs(frames[~grown].astype(int) - plain[~grown]) > 25).any()
