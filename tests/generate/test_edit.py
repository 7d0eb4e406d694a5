"""Edits: what explains a clip gives it again, and what is changed is what was asked for."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vpoet.arrays import Ints
from vpoet.errors import PromptError, VpoetWarning
from vpoet.generate.asks.edit import Edit
from vpoet.generate.edit import Draws, Redraw
from vpoet.generate.kept_codes import Source
from vpoet.generate.model import Model, load
from vpoet.generate.request import Request
from vpoet.generate.rollout import Rollout
from vpoet.generate.sampling import Sampling
from vpoet.media.video import Video

GRID = (3, 2, 3)
GUIDED = Sampling(guidance=2.5, temperature=0.7)
FILTERED = replace(GUIDED, top_k=4, top_p=0.95, min_p=0.01)
WORDS = ["a", "robot", "hero", "walks", "jumps", "right", "on", "grass", "sand"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Model:
    folder = make_bundle(
        tmp_path_factory.mktemp("edit"), depth=1, length=120, frames=9, height=16, width=24, words=WORDS
    )
    found = load(folder, device="cpu", precision="fp32")
    for parameter in found.bundle.transformer.parameters():
        parameter.requires_grad_(False).mul_(3 if parameter.dim() > 1 else 1)  # far from uniform
    return found


def source(seed: int, prompt: str = "a robot walks right on grass") -> Source:
    """Codes that no prompt makes probable."""
    return Source(np.random.default_rng(seed).integers(0, 36, GRID, dtype=np.int32), 8, prompt)


def edited(model: Model, requests: list[Request], sampling: Sampling) -> list[Ints]:
    rollouts = [model.rollout(request) for request in requests]
    documents = [rollout.document for rollout in rollouts if rollout.document is not None]
    decoded = model.decode(documents, [rollout.seed for rollout in rollouts], sampling)
    for rollout, each in zip(rollouts, decoded, strict=True):
        assert isinstance(rollout.seed, Redraw)
        assert len(each.nats) == rollout.seed.cells.sum()
    return [each.document.codes() for each in decoded]


def edit(clip: Source, prompt: str | None = None, strength: float = 0.0, **asked: object) -> Request:
    return Request(prompt=clip.prompt or "" if prompt is None else prompt, edit=clip, strength=strength, **asked)  # type: ignore[arg-type]


@pytest.mark.parametrize("sampling", [Sampling(), GUIDED], ids=["plain", "guided"])
@pytest.mark.parametrize("guesses", [0, 3, None])
def test_an_edit_that_changes_nothing_gives_the_clip(model: Model, sampling: Sampling, guesses: int | None) -> None:
    """Alone and in a batch, one code a pass and several."""
    clips = [source(i, ("", "a hero jumps on sand")[i % 2]) for i in range(4)]
    guessing = Model(model.bundle, guesses=guesses)
    for some in (clips, clips[:1]):
        for found, clip in zip(edited(guessing, [edit(clip) for clip in some], sampling), some, strict=True):
            assert np.array_equal(found, clip.codes)


def test_so_it_does_with_filters_where_they_leave_its_codes(model: Model) -> None:
    documents = [model.document(Request(prompt="a robot walks right on grass")) for _ in range(4)]
    made = model.decode(documents, range(4), FILTERED)
    clips = [Source(each.document.codes(), 8, "a robot walks right on grass") for each in made]
    with warnings.catch_warnings():
        warnings.simplefilter("error", VpoetWarning)
        found = edited(model, [edit(clip, seed=9) for clip in clips], FILTERED)
    assert all(np.array_equal(a, clip.codes) for a, clip in zip(found, clips, strict=True))


def test_where_a_filter_makes_the_clip_impossible_the_edit_does_without_and_says_so(model: Model) -> None:
    """The others of its batch keep the filter: their codes are those that they have alone."""
    (decoded,) = model.decode([model.document(Request(prompt="a hero jumps on sand"))], [0], FILTERED)
    possible = Source(decoded.document.codes(), 8, "a hero jumps on sand")
    requests = [edit(possible, "a robot walks right on grass", 0.5), edit(source(1))]
    with pytest.warns(VpoetWarning, match=r"\d+ of 18 codes .* impossible under the filters"):
        alike, without = edited(model, requests, FILTERED)
    assert np.array_equal(without, source(1).codes)
    assert np.array_equal(alike, edited(model, requests[:1], FILTERED)[0])


def test_a_mask_keeps_all_other_cells(model: Model) -> None:
    """Through ten edits, each of which draws all cells under its mask afresh; and they do change."""
    clip, mask = source(0), np.zeros((9, 16, 24, 3), np.uint8)
    mask[3:, 9:, :8] = 255
    cells = np.zeros(GRID, np.bool_)
    cells[1:, 1, 0] = True
    codes = [clip.codes]
    for i in range(10):
        request = edit(replace(clip, codes=codes[-1]), WORDS[i % 9], 1.0, seed=i, mask=Video(mask, 8))
        codes += edited(model, [request], FILTERED)
        assert np.array_equal(codes[-1][~cells], clip.codes[~cells])
    assert len({found[cells].tobytes() for found in codes}) > 5


def test_strength_is_the_share_of_fresh_cells_and_less_keeps_more(model: Model) -> None:
    """The fresh cells of a lower strength are fresh, and alike, in a higher one."""
    cells = np.ones(GRID, np.bool_)
    cells[0] = False
    noise = {}
    for strength in (0.0, 0.25, 0.5, 1.0):
        seed = model.rollout(edit(source(2), strength=strength)).seed
        assert isinstance(seed, Redraw)
        noise[strength] = Draws.of(model.decoding, replace(seed, cells=cells), GUIDED).noise(18)
    fresh = {s: (rows != noise[0.0]).any(axis=1) for s, rows in noise.items()}
    assert [int(rows.sum()) for rows in fresh.values()] == [0, 3, 6, 12]
    for low, high in ((0.25, 0.5), (0.5, 1.0)):
        assert fresh[high][fresh[low]].all()
        assert np.array_equal(noise[low][fresh[low]], noise[high][fresh[low]])
    assert not fresh[1.0][:6].any()


def test_a_clip_of_pixels_is_encoded_and_its_prompt_has_to_be_told(model: Model) -> None:
    clip = Video(np.random.default_rng(0).integers(0, 256, (9, 16, 24, 3), np.uint8), 8)
    with pytest.raises(PromptError, match="no record beside the clip says what it shows"):
        model.rollout(Request(edit=clip))
    request = Request(prompt="a hero jumps on sand", was="a hero jumps on sand", edit=clip, strength=0.0)
    assert np.array_equal(edited(model, [request], Sampling())[0], model.bundle.video.encode(clip))
    with pytest.warns(VpoetWarning, match="edited from 16x24 to 8x8 pixels, the first 5 frames only"):
        assert Edit(replace(request, frames=5, height=8, width=8), model.bundle).source().codes.shape == (2, 1, 1)


def test_the_model_finds_what_a_clip_shows(model: Model) -> None:
    """What it finds is at least as probable as what it began with."""
    request = replace(edit(source(3), "a robot, that jumps"), was="auto")
    found = model.rollout(request)
    assert isinstance(found, Rollout)
    nats = [
        model.likelihoods([model.observed(source(3).codes, 8, words)])[0].total.nats
        for words in (found.was, "a robot jumps")
    ]
    assert nats[0] < nats[1]
    assert set(found.was.split()) <= set(WORDS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"was": "a dragon walks"}, "words that this model never met: dragon"),
        ({"frames": 5}, "frames = 5: the clip that is edited has 9"),
        ({"height": 32}, "height = 32: the clip that is edited has 16"),
        ({"strength": 1.5}, "strength = 1.5: it must be 0 to 1"),
        ({"mask": Video(np.full((4, 16, 24, 3), 255, np.uint8), 8)}, "the mask has 4 frames, and the clip 9"),
        ({"mask": Video(np.zeros((1, 16, 24, 3), np.uint8), 0)}, "the mask is black everywhere"),
        ({"image": Video(np.zeros((1, 16, 24, 3), np.uint8), 0)}, "edit and image are given"),
        ({"outpaint": (8, 0, 0, 0)}, "edit and outpaint are given"),
        ({"window": 5}, "window is given"),
        ({"edit": None}, "strength is given: t2v has no use for it"),
    ],
)
def test_what_cannot_be_edited_is_refused(model: Model, changes: dict[str, object], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        model.rollout(replace(edit(source(0), strength=0.5), **changes))  # type: ignore[arg-type]


def test_there_is_no_noise_at_temperature_0(model: Model) -> None:
    with pytest.raises(PromptError, match="temperature = 0"):
        edited(model, [edit(source(0))], Sampling(temperature=0.0))
