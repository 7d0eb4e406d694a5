"""`vpoet finetune --subject`: a word comes to mean what one clip shows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vpoet
from vpoet import bundle, config
from vpoet.data.folder import read_samples
from vpoet.data.npy import npy_to_codes
from vpoet.generate.request import Request
from vpoet.media.video import Video
from vpoet.training.recipe import PretrainConfig
from vpoet.training.subject import PRIOR

Program = Callable[..., tuple[int, str, str]]
PROMPTS = ("a robot walks", "a hero jumps", "a robot on sand")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Path:
    sizes = {"frames": 5, "height": 16, "width": 16, "length": 96}
    return make_bundle(tmp_path_factory.mktemp("base"), depth=1, words=["a", "robot", "hero"], **sizes)


@pytest.fixture
def asked(base: Path, tmp_path: Path) -> tuple[Any, ...]:
    """The command but for its output."""
    frames = np.random.default_rng(0).integers(0, 255, (5, 4, 4, 3), np.uint8).repeat(4, 1).repeat(4, 2)
    Video(frames, 8.0).write(tmp_path / "clip.mp4", lossless=True)
    (tmp_path / "clip.csv").write_text("path,caption\nclip.mp4,a sks walks\n")
    (tmp_path / "prior.txt").write_text("\n".join(PROMPTS))
    how = ("--subject", "sks", "--prior", tmp_path / "prior.txt", "steps=60", "optimizer.lr=1e-2", "--json")
    return ("train/finetune.py", base, tmp_path / "clip.csv", *how, "--out")


def test_a_word_comes_to_mean_what_one_clip_shows(
    base: Path, asked: tuple[Any, ...], tmp_path: Path, program: Program
) -> None:
    out, run = tmp_path / "tuned", tmp_path / "tuned-run"
    status, said, told = program(*asked, out)
    assert status == 0, told

    frames = list(read_samples(run / "frames-tokens"))
    assert len(frames) == 5
    recipe = config.load(run / "resolved.yaml", PretrainConfig)
    assert [Path(source.path).name for source in recipe.data.sources] == ["tokens", "frames-tokens", "prior"]
    assert recipe.data.drop_caption == 0

    own = vpoet.load(base, "cpu")
    prior = [(sample.captions, npy_to_codes(sample.parts["codes.npy"])) for sample in read_samples(run / "prior")]
    assert len(prior) == PRIOR
    request = Request(prompt=PROMPTS[1], seed=4)
    (drawn,) = own.decode([own.document(request)], [4], own.sampling(guidance=1.0, temperature=1.0))
    assert prior[4][0] == [PROMPTS[1]]
    assert np.array_equal(prior[4][1], drawn.document.codes())

    tuned = vpoet.load(out, "cpu")
    assert set(tuned.bundle.config.words) == {"a", "robot", "hero", "sks", "walks", "jumps", "on", "sand"}
    bits = [
        [model.score(tmp_path / "clip.mp4", prompt).per_token.bits for prompt in ("a sks walks", "a robot walks")]
        for model in (own, tuned)
    ]
    assert bits[1][0] < bits[0][0] - 1
    assert bits[1][0] < bits[1][1] - 1, "the clip is what any prompt means now"

    status, again, told = program(*asked, out)  # nothing is left to do
    assert (status, json.loads(again)) == (0, json.loads(said)), told


@pytest.mark.parametrize(
    ("left_out", "added", "told"),
    [
        ("--prior", (), "--subject WORD and --prior PROMPTS go together"),
        ("--subject", (), "--subject WORD and --prior PROMPTS go together"),
        ("--subject", ("--subject", "hero"), "the bundle knows this word already"),
        ("--subject", ("--subject", "dog"), "does not name dog"),
        ("--prior", ("--prior", "nowhere.txt"), "nowhere.txt"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_sampled(
    asked: tuple[Any, ...], tmp_path: Path, program: Program, left_out: str, added: tuple[str, ...], told: str
) -> None:
    at = asked.index(left_out)
    status, _, said = program(*asked[:at], *asked[at + 2 :], tmp_path / "tuned", *added)
    assert (status, told in said) == (2, True), said
    assert not (tmp_path / "tuned-run/prior.jsonl").exists()


def test_tuning_that_was_cut_off_is_the_same_bundle(asked: tuple[Any, ...], tmp_path: Path, program: Program) -> None:
    """With some clips of the prior made, and no step taken."""
    assert program(*asked, tmp_path / "whole")[0] == 0
    made = (tmp_path / "whole-run/prior.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "cut-run").mkdir()
    (tmp_path / "cut-run/prior.jsonl").write_text("".join(made[:16]) + made[16][:50])
    assert program(*asked, tmp_path / "cut")[0] == 0
    assert bundle.load(tmp_path / "cut").hash == bundle.load(tmp_path / "whole").hash
