"""What is asked of motion and quality reaches documents, records and the server; models that know none say so."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vpoet
from vpoet.errors import PromptError, VpoetWarning
from vpoet.generate.edit import Redraw
from vpoet.generate.kept_codes import Source
from vpoet.generate.model import Model
from vpoet.generate.prompt_file import read_prompts, record
from vpoet.generate.request import Request
from vpoet.generate.sampling import Sampling
from vpoet.media.video import Video
from vpoet.sequence.conditions import Learnt
from vpoet.serve.asked import orders
from vpoet.serve.history import History
from vpoet.serve.openapi import question
from vpoet.serve.uploads import Uploads

IMAGE = Video(np.zeros((1, 16, 16, 3), np.uint8), 0)
CONDITIONS = {"motion": Learnt(edges=[1.0, 2.0, 4.0], met=[0, 1, 2])}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Model:
    folder = make_bundle(tmp_path_factory.mktemp("plain"), depth=1, length=120, frames=5, height=16, width=16)
    return vpoet.load(folder, device="cpu")


@pytest.fixture(scope="module")
def model(plain: Model) -> Model:
    return Model(replace(plain.bundle, config=replace(plain.bundle.config, conditions=CONDITIONS)))


def test_it_is_told_before_what_is_asked_for(model: Model) -> None:
    assert model.document(Request(prompt="a robot", motion=1.5)).conditions == (("motion", 1),)
    assert model.document(Request(prompt="a robot", image=IMAGE, motion=0)).conditions == (("motion", 0),)
    assert model.document(Request(prompt="a robot")).conditions == ()
    assert model.document(Request(prompt="a robot", motion=3, frames=1)).conditions == ()


def test_all_windows_of_a_long_clip_are_told(model: Model) -> None:
    rollout = model.rollout(Request(prompt="a robot", motion=3, frames=13))
    told = []
    while rollout.document is not None:
        told.append(rollout.document.conditions)
        (decoded,) = model.decode([rollout.document], [0])
        list(rollout.take(decoded.document))
    assert told == [(("motion", 2),)] * rollout.count
    assert rollout.count > 1


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_codes_are_drawn_given_it_and_their_nats_are_those_of_a_full_pass(model: Model, guidance: float) -> None:
    documents = [model.document(Request(prompt="a robot", motion=motion)) for motion in (None, 0.5, 3)]
    decoded = model.decode(documents, [1, 1, 1], Sampling(guidance=guidance))
    assert [result.document.conditions for result in decoded] == [(), (("motion", 0),), (("motion", 2),)]
    scored = model.token_nats([result.document for result in decoded])
    for result, nats in zip(decoded, scored, strict=True):
        assert np.allclose(result.nats, nats, atol=1e-4)
    assert len({result.nats.tobytes() for result in decoded}) == 3


def test_an_edit_without_it_keeps_the_clip_and_may_ask_for_another(model: Model) -> None:
    (decoded,) = model.decode([model.document(Request(prompt="a robot", seed=1, motion=0.5))], [1])
    source = Source(decoded.document.codes(), 8.0, "a robot")
    same = Request(prompt="a robot", edit=source, was="a robot", seed=1)
    rollout = model.rollout(same)
    assert rollout.document is not None
    (again,) = model.decode([rollout.document], [rollout.seed])
    assert (again.document.codes() == decoded.document.codes()).all()
    moved = model.rollout(replace(same, motion=3))
    assert moved.document is not None
    assert moved.document.conditions == (("motion", 2),)
    assert isinstance(moved.seed, Redraw)
    assert moved.seed.source.conditions == ()


def test_a_bucket_that_no_clip_was_in_is_told(model: Model) -> None:
    with pytest.warns(VpoetWarning, match=r"motion = 9: .* has motion 4 or more; the nearest are asked for, 2 to 4"):
        assert model.document(Request(prompt="a robot", motion=9)).conditions == (("motion", 2),)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"motion": -1.0}, "motion = -1.0: it must be 0 or more"),
        ({"motion": float("nan")}, "motion = nan"),
        ({"quality": 1.0}, r"not learnt to be asked for quality \(it knows motion\); a recipe with `data.conditions"),
        ({"quality": float("inf")}, "quality"),
    ],
)
def test_what_cannot_be_asked_is_refused(model: Model, asked: dict[str, float], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        model.document(Request(prompt="a robot", **asked))  # type: ignore[arg-type]


def test_a_model_without_any_says_so(plain: Model) -> None:
    with pytest.raises(PromptError, match=r"motion = 3: this model has not learnt .* \(it knows none\)"):
        plain.rollout(Request(prompt="a robot", motion=3, frames=13))


def test_prompt_files_and_records_have_it_where_it_is_asked(model: Model, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text('{"prompt": "a robot", "motion": 3}\na hero\n{"motion": "fast"}\n')
    found, problems = read_prompts(tmp_path / "prompts.txt", {})
    assert [request.motion for _, request in found] == [3, None]
    assert problems == [f"{tmp_path}/prompts.txt:3: motion = 'fast': it must be of type float"]
    records = [record(request, Sampling(), model) for _, request in found]
    assert records[0]["motion"] == 3
    assert not {"motion", "quality"} & records[1].keys()


def test_the_server_takes_it(plain: Model, model: Model, tmp_path: Path) -> None:
    fields: dict[str, Any] = question()["properties"]
    assert (fields["motion"]["type"], fields["motion"]["minimum"], fields["quality"]["type"]) == ("number", 0, "number")
    models = {"told": model, "plain": plain}
    told = json.loads('{"prompt": "a robot", "motion": 3, "seed": 4, "count": 2}')
    files = Uploads(tmp_path), History(tmp_path / "history")
    assert [(order.request.motion, order.request.seed) for order in orders(told, models, *files)] == [(3, 4), (3, 5)]
    with pytest.raises(PromptError, match="not learnt to be asked for motion"):
        orders(told | {"model": "plain"}, models, *files)
