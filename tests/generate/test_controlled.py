"""Controls in decoding: every way to decode draws what one code a pass draws, and scores what it drew."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vpoet.generate.batching import Continuous
from vpoet.generate.decode import decode
from vpoet.generate.edit import Redraw
from vpoet.generate.graphed_step import GraphedSteps
from vpoet.generate.growing import Filled, Growing
from vpoet.generate.model import Model, load
from vpoet.generate.request import ControlClip, Request
from vpoet.generate.sampling import Sampling
from vpoet.media.video import Video
from vpoet.nn.cache_attention import SDPA
from vpoet.sequence.controls import Control
from vpoet.sequence.document import Document

GRID = (3, 2, 3)
PLAIN, GUIDED = Sampling(), Sampling(guidance=2.5, temperature=0.7)
FILTERED = replace(GUIDED, top_k=4, top_p=0.95, min_p=0.01)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Path:
    sizes = {"depth": 2, "length": 120, "frames": 9, "height": 16, "width": 24}
    return make_bundle(tmp_path_factory.mktemp("controlled"), controls="edges depth", **sizes)


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load(folder, device="cpu", precision="fp32")


def control(kind: str, seed: int, strength: float = 1.0) -> Control:
    return Control(kind, np.random.default_rng(seed).integers(0, 36, GRID, dtype=np.int32), strength)


def documents(model: Model) -> list[Document]:
    """With one control, two, none, and no prompt."""
    plain = [model.document(Request(prompt=text)) for text in ("a robot", "a hero on sand", "a robot walks", "")]
    told = [
        (control("edges", 1, 0.6),),
        (control("edges", 2), control("depth", 3, 0.3)),
        (),
        (control("depth", 4),),
    ]
    return [replace(document, controls=controls) for document, controls in zip(plain, told, strict=True)]


@pytest.mark.parametrize("sampling", [PLAIN, GUIDED, FILTERED], ids=["plain", "guided", "filtered"])
@pytest.mark.parametrize("guesses", [0, 3, None])
def test_what_is_drawn_is_scored_alike_and_guesses_change_nothing(
    model: Model, sampling: Sampling, guesses: int | None
) -> None:
    """Promise 10 and 11: alone and in a batch, one code a pass and several."""
    some = documents(model)
    wanted = [model.decode([each], [7], sampling)[0] for each in some]
    guessing = Model(model.bundle, guesses=guesses)
    for one, other in zip(wanted, guessing.decode(some, [7] * 4, sampling), strict=True):
        assert other.document.equals(one.document)
    for decoded, scored in zip(wanted, model.token_nats([each.document for each in wanted]), strict=True):
        np.testing.assert_allclose(decoded.nats, scored, atol=1e-4)


def test_controls_change_what_is_drawn_and_at_strength_0_do_not(model: Model) -> None:
    """Promise 15: with guidance, too, where nothing else is given."""
    for prompt, sampling in (("a robot", PLAIN), ("a robot", GUIDED), ("", GUIDED)):
        bare = model.document(Request(prompt=prompt))

        def codes(document: Document, sampling: Sampling = sampling) -> Any:
            return model.decode([document], [3], sampling)[0].document.codes()

        silent = replace(bare, controls=(control("edges", 1, 0.0), control("depth", 2, 0.0)))
        assert np.array_equal(codes(silent), codes(bare))
        assert not np.array_equal(codes(replace(bare, controls=(control("edges", 1),))), codes(bare))
        assert model.likelihoods([silent])[0].total == model.likelihoods([bare])[0].total


def test_documents_that_differ_in_their_controls_alone_are_not_one_prompt(model: Model) -> None:
    bare = model.document(Request(prompt="a robot"))
    some = [replace(bare, controls=(control("edges", seed),)) for seed in (1, 2)]
    together = model.decode(some, [3, 3], PLAIN)
    alone = [model.decode([each], [3], PLAIN)[0] for each in some]
    for one, other in zip(together, alone, strict=True):
        assert one.document.equals(other.document)
        np.testing.assert_allclose(one.nats, other.nats, atol=1e-5)
    assert together[0].nats[0] != together[1].nats[0]


def test_a_captured_step_draws_what_the_plain_one_does(model: Model) -> None:
    """By a stand-in that calls the step again on the buffers, as a graph does."""
    captured = 0

    def again(call: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        nonlocal captured
        captured += 1
        outputs = call()

        def replay() -> None:
            for output, new in zip(outputs, call(), strict=True):
                output.copy_(new)

        return outputs, replay

    graphs = GraphedSteps(again, SDPA)
    plain = model.decoding
    graphed = replace(plain, guesses=0, build=graphs, through=SDPA, memory=graphs.cache)
    some = documents(model)
    for chosen in (some, some[2:3], some[:1]):
        wanted = decode(replace(plain, guesses=0), chosen, [5] * len(chosen), GUIDED)
        for one, other in zip(wanted, decode(graphed, chosen, [5] * len(chosen), GUIDED), strict=True):
            assert one.document.equals(other.document)
    assert captured >= 3


def test_documents_in_order_are_those_of_batches_and_a_window_decodes_alike(model: Model) -> None:
    some = documents(model)
    wide = replace(model.decoding, window=8)
    for document in some:
        (wanted,), (found,) = (decode(how, [document], [5], PLAIN) for how in (model.decoding, wide))
        assert found.document.equals(wanted.document)
        np.testing.assert_allclose(found.nats, wanted.nats, atol=1e-4)


def test_clips_that_come_and_go_are_those_of_their_requests_alone(model: Model) -> None:
    edges = Video(np.random.default_rng(0).integers(0, 2, (9, 16, 24, 1), np.uint8).repeat(3, -1) * np.uint8(255), 8)
    requests = [
        Request(prompt="a robot", seed=3, control=(ControlClip("edges", edges, 0.7),)),
        Request(prompt="a hero", seed=4),
        Request(seed=5, control=(ControlClip("edges", edges),)),
    ]
    wanted = [model.sample_batch([request], GUIDED)[0] for request in requests]
    turns, made = Continuous(model), {}
    growing = [Growing(model, request, GUIDED) for request in requests]
    for each in growing:
        turns.join(each)
    while len(turns):
        for each, part in turns.step():
            if isinstance(part, Filled):
                made[each] = part.frames
    for each, video in zip(growing, wanted, strict=True):
        assert np.array_equal(made[each], video.frames)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_smaller_weights_read_controls_too(folder: Path, precision: str) -> None:
    small = load(folder, device="cpu", precision=precision)
    told, bare = documents(small)[:1], [replace(documents(small)[0], controls=())]
    one, other = (small.token_nats(some)[0] for some in (told, bare))
    assert np.isfinite(one).all()
    assert not np.allclose(one, other, atol=0.05)


@pytest.mark.parametrize("sampling", [PLAIN, GUIDED], ids=["plain", "guided"])
def test_an_edit_under_controls_that_changes_nothing_gives_the_clip(model: Model, sampling: Sampling) -> None:
    codes = np.random.default_rng(5).integers(0, 36, GRID, dtype=np.int32)
    source = replace(model.observed(codes, 8, "a robot"), controls=(control("edges", 1),))
    redraw = Redraw(source, np.ones(GRID, np.bool_), 0.0, 9)
    for guesses in (0, 3):
        (found,) = Model(model.bundle, guesses=guesses).decode([source], [redraw], sampling)
        assert np.array_equal(found.document.codes(), codes)
    other = replace(source, controls=(control("edges", 4),))
    (changed,) = model.decode([other], [redraw], sampling)
    assert not np.array_equal(changed.document.codes(), codes)


def test_a_prefix_lm_decodes_and_scores_alike(model: Model) -> None:
    both = replace(model.bundle, config=replace(model.bundle.config, bidirectional=True))
    reading = Model(both)
    for document in documents(model):
        (decoded,) = reading.decode([document], [3], PLAIN)
        np.testing.assert_allclose(decoded.nats, reading.token_nats([decoded.document])[0], atol=1e-4)


def test_a_model_that_reads_none_has_no_features(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    bare = load(make_bundle(tmp_path / "bare", depth=1, frames=9, height=16, width=24), device="cpu")
    assert not [name for name in bare.bundle.transformer.state_dict() if "control" in name]
    assert bare.decode([bare.document(Request(prompt="a robot"))], [1])[0].document.controls == ()
