"""Clips that are made while others come and go: each is that of its request alone, and is seen while it grows."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vpoet
from vpoet.errors import VpoetWarning
from vpoet.generate.batching import Continuous, OneByOne, batching
from vpoet.generate.compiled_step import StepCompiler
from vpoet.generate.growing import Filled, Growing, Seen
from vpoet.generate.kept_codes import Source
from vpoet.generate.model import Model, Request
from vpoet.generate.sampling import Sampling
from vpoet.media.video import Video

CLIP = Video(np.random.default_rng(0).integers(0, 256, (9, 16, 24, 3), np.uint8), 8.0)
MASK = Video(np.zeros((1, 16, 24, 3), np.uint8), 0.0)
MASK.frames[:, :8] = 255
SOURCE = Source(np.random.default_rng(1).integers(0, 36, (3, 2, 3), dtype=np.int32), 8, "a hero jumps")
REQUESTS: dict[str, dict[str, Any]] = {
    "t2v": {},
    "t2i": {"frames": 1},
    "i2v": {"image": CLIP},
    "continuation": {"video": CLIP, "given_frames": 5},
    "backward": {"last": CLIP},
    "leading": {"video": CLIP, "task": "backward"},
    "between": {"image": CLIP, "last": CLIP},
    "inpainting": {"video": CLIP, "mask": MASK},
    "windows": {"frames": 17},
    "story": {"frames": 17, "story": ((9, "a hero jumps"),)},
    "picture first": {"via_image": True, "frames": 9},
    "edit": {"edit": SOURCE, "strength": 0.4},
    "edit of a part": {"edit": CLIP, "was": "a hero", "strength": 0.4, "mask": MASK},
}
GUIDED = Sampling(guidance=1.5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Model:
    folder = make_bundle(tmp_path_factory.mktemp("batching"), depth=1, length=200, frames=9, height=16, width=24)
    return vpoet.load(folder, "cpu")


@pytest.fixture(scope="module")
def alone(model: Model) -> Callable[..., Video]:
    made: dict[tuple[str, Sampling], Video] = {}

    def sample(name: str, sampling: Sampling) -> Video:
        if (name, sampling) not in made:
            request = Request(prompt="a robot", seed=3, **REQUESTS[name])
            made[name, sampling] = model.sample_batch([request], sampling)[0]
        return made[name, sampling]

    return sample


def grown(model: Model, name: str, sampling: Sampling, **more: Any) -> Growing:
    return Growing(model, Request(prompt="a robot", seed=3, **REQUESTS[name]), sampling, **more)


def ends(turns: Any) -> dict[Growing, list[Any]]:
    """Step until all have left."""
    found: dict[Growing, list[Any]] = {}
    while len(turns):
        for growing, part in turns.step():
            found.setdefault(growing, []).append(part)
    return found


@pytest.mark.parametrize("name", REQUESTS)
def test_what_grows_is_the_clip_and_was_seen_before(model: Model, alone: Callable[..., Video], name: str) -> None:
    parts: list[float] = []
    one, turns = grown(model, name, GUIDED, on_part=parts.append), OneByOne()
    turns.join(one)
    (found,) = ends(turns).values()
    whole, filled = alone(name, GUIDED).frames, [part for part in found if isinstance(part, Filled)]
    assert np.array_equal(np.concatenate([part.frames for part in filled]), whole)
    assert len(filled) == one.rollout.count
    assert parts == sorted(parts)
    assert parts[-1] == 1
    assert sum(s.tokens for part in filled for s in part.surprise) == sum(len(part.decoded.nats) for part in filled)
    nats = [s.nats for part in filled for s in part.surprise]
    assert sum(nats) == pytest.approx(sum(float(part.decoded.nats.sum()) for part in filled), rel=1e-5)
    begins = [s.first for part in filled for s in part.surprise]
    assert begins == sorted(begins)
    shown = np.full(whole.shape, 128, np.uint8)
    if name in ("leading", "inpainting"):  # what the video's own frames then replace, or cells that end with known ones
        return
    for part in found:
        if isinstance(part, Seen):
            shown[part.first : part.first + len(part.frames)] = part.frames
    assert np.abs(shown.astype(int) - whole).max() <= 1
    assert isinstance(found[0], Seen)
    if len(whole) > 1:
        assert len(found[0].frames) < len(whole)


def test_who_leaves_is_made_no_further_and_the_next_begins(model: Model, alone: Callable[..., Video]) -> None:
    turns, one, two = OneByOne(), grown(model, "t2v", GUIDED), grown(model, "i2v", GUIDED)
    turns.join(one)
    turns.join(two)
    turns.step()
    turns.leave(one)
    (found,) = ends(turns).values()
    assert np.array_equal(found[-1].frames, alone("i2v", GUIDED).frames)


def test_what_fails_fails_alone(model: Model, alone: Callable[..., Video]) -> None:
    class Enough(Exception):
        pass

    def stop(part: float) -> None:
        raise Enough

    turns = OneByOne()
    one, two = grown(model, "t2v", GUIDED, on_part=stop), grown(model, "t2v", GUIDED)
    for each in (one, two):
        turns.join(each)
    found = ends(turns)
    assert isinstance(found[one][-1], Enough)
    assert np.array_equal(found[two][-1].frames, alone("t2v", GUIDED).frames)


def test_a_model_with_a_window_grows_at_once(tmp_path: Path, make_bundle: Callable[..., Path]) -> None:
    model = vpoet.load(make_bundle(tmp_path, depth=1, length=200, frames=5, height=16, width=16, window=4), "cpu")
    turns, one = OneByOne(), Growing(model, Request(prompt="a robot", seed=1), Sampling())
    turns.join(one)
    ((growing, part),) = turns.step()
    assert growing is one
    assert not len(turns)
    assert np.array_equal(part.frames, model.sample("a robot", seed=1).frames)


SAMPLINGS = (
    GUIDED,
    Sampling(),
    Sampling(temperature=0),
    Sampling(guidance=3.0, top_k=5, top_p=0.9),
    Sampling(min_p=0.1),
)


@pytest.mark.parametrize("seed", range(3))
def test_who_joins_a_running_batch_gets_the_clip_that_it_gets_alone(
    model: Model, alone: Callable[..., Video], seed: int
) -> None:
    random = np.random.default_rng(seed)
    names = [str(name) for name in random.permutation([*REQUESTS])]
    wanted = {
        grown(model, name, SAMPLINGS[random.integers(2 if "edit" in name else len(SAMPLINGS))]): name for name in names
    }
    turns, found, most = Continuous(model), {each: [] for each in wanted}, 0
    lost = grown(model, "windows", GUIDED)
    turns.join(lost)
    todo = [*wanted]
    while todo or len(turns):
        for _ in range(random.integers(3) if todo and len(turns) < turns.MOST else 0):
            if todo:
                turns.join(todo.pop())
        most = max(most, len(turns))
        for growing, part in turns.step():
            if growing is not lost:
                found[growing].append(part)
        if len(todo) == 3:
            turns.leave(lost)
    assert most > 3
    for each, name in wanted.items():
        frames = np.concatenate([part.frames for part in found[each] if isinstance(part, Filled)])
        assert np.array_equal(frames, alone(name, each.sampling).frames), name


def test_an_edit_that_does_without_filters_leaves_them_to_others(model: Model) -> None:
    filtered = Sampling(guidance=3.0, top_k=2)
    request = Request(prompt="a robot", seed=3, **REQUESTS["edit"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VpoetWarning)  # codes that no prompt makes probable
        edit = Growing(model, request, filtered)
        (wanted,) = model.sample_batch([request], filtered)
    assert edit.draws.sampling == Sampling(guidance=3.0)
    turns, other = Continuous(model), grown(model, "t2v", filtered)
    for each in (edit, other):
        turns.join(each)
    found = ends(turns)
    assert np.array_equal(found[edit][-1].frames, wanted.frames)
    assert np.array_equal(found[other][-1].frames, model.sample("a robot", seed=3, guidance=3.0, top_k=2).frames)


def test_the_nats_of_a_batch_are_those_of_one(model: Model) -> None:
    request, sampling = Request(prompt="a robot", seed=3), Sampling(guidance=1.5)
    turns, others = Continuous(model), [grown(model, "t2v", GUIDED), Growing(model, request, sampling)]
    for each in others:
        turns.join(each)
    found = ends(turns)
    (wanted,) = model.decode([model.document(request)], [3], sampling)
    assert np.array_equal(found[others[1]][-1].decoded.nats, wanted.nats)


def test_what_fails_in_a_batch_fails_alone(model: Model, alone: Callable[..., Video]) -> None:
    def stop(part: float) -> None:
        if part > 0.5:
            raise KeyError(part)

    turns = Continuous(model)
    one, two = grown(model, "windows", GUIDED, on_part=stop), grown(model, "t2v", GUIDED)
    for each in (one, two):
        turns.join(each)
    found = ends(turns)
    assert isinstance(found[one][-1], KeyError)
    assert np.array_equal(found[two][-1].frames, alone("t2v", GUIDED).frames)


def test_requests_share_passes_where_that_changes_nothing(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(batching(model), Continuous)
    assert isinstance(batching(Model(model.bundle, StepCompiler())), OneByOne)
    monkeypatch.setattr("vpoet.generate.batching.Step.is_exact", lambda *arguments: False)
    assert isinstance(batching(model), OneByOne)
