"""Likelihoods: the sum of what was sampled (promise 10), the training loss, a distribution, and figures that add up."""

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import vpoet
from vpoet.errors import DataError, PromptError, ShapeError
from vpoet.generate.likelihood import Information, Likelihood, posterior
from vpoet.generate.logits import draw
from vpoet.generate.model import Model, Request
from vpoet.generate.observe import fit
from vpoet.generate.plan import Decoded
from vpoet.generate.sampling import Sampling
from vpoet.media.video import Video
from vpoet.nn.nats import PackTensors
from vpoet.sequence.arrangements import Given, Painting, Sample
from vpoet.sequence.document import KINDS, Document, Span, build
from vpoet.sequence.packing import pack
from vpoet.sequence.tasks import PAINTED, TABLE, Task
from vpoet.sequence.vocabulary import Modality
from vpoet.training.loss import PackLoss, counts, losses

IMAGE, VIDEO = (KINDS.index(name) for name in ("image", "video"))


@pytest.fixture(scope="module", params=[False, True], ids=["causal", "prefix"])
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]
) -> Model:
    folder = make_bundle(
        tmp_path_factory.mktemp("score"), length=100, frames=9, height=24, width=32, bidirectional=request.param
    )
    model = vpoet.load(folder, device="cpu")
    for parameter in model.bundle.transformer.parameters():
        parameter.mul_(4 if parameter.dim() > 1 else 1)  # sharp predictions that depend on what came before
    return model


def clip(frames: int, height: int = 24, width: int = 32, fps: float = 8.0, seed: int = 0) -> Video:
    return Video(np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8), fps)


REQUESTS = [
    Request(prompt="a robot walks right", seed=1),
    Request(seed=2),
    Request(prompt="a hero", frames=1, seed=3),
    Request(prompt="a robot", image=clip(1, fps=0), seed=4),
    Request(prompt="a hero jumps", video=clip(9), given_frames=5, seed=5),
    Request(video=clip(9), given_frames=1, seed=6),
]


def sampled(model: Model, sampling: Sampling = Sampling()) -> list[Decoded]:
    return model.decode([model.document(r) for r in REQUESTS], [r.seed for r in REQUESTS], sampling)


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(guidance=2.0, temperature=0.7, top_p=0.8)], ids=["", "guided"]
)
def test_the_score_of_a_sample_is_the_sum_of_its_log_probabilities(model: Model, sampling: Sampling) -> None:
    """However a clip was drawn, its score is that of the plain conditional model, code by code."""
    decoded = sampled(model, sampling)
    scores = model.likelihoods([one.document for one in decoded])
    assert [score.task for score in scores] == ["t2v", "unconditional", "t2i", "i2v", "continuation", "continuation"]
    for one, score in zip(decoded, scores, strict=True):
        mine = score.cells[~np.isnan(score.cells)]
        np.testing.assert_allclose(mine, one.nats, atol=1e-4)
        assert score.total.nats == pytest.approx(one.nats.sum(dtype=np.float64), abs=1e-3)
        assert mine.std() > 0.1


@pytest.mark.parametrize(
    ("sampling", "same"),
    [
        (Sampling(), True),
        (Sampling(temperature=0.7), False),
        (Sampling(guidance=2.0), False),
        (Sampling(top_k=3), False),
    ],
    ids=["plain", "colder", "guided", "filtered"],
)
def test_what_was_drawn_with_is_the_score_at_temperature_1_without_guidance_and_filter_alone(
    model: Model, sampling: Sampling, same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log-probabilities of the logits that `draw` was handed, beside the score."""
    nats: list[float] = []

    def spied(logits: Tensor, gumbel: Tensor, temperature: float) -> Tensor:
        chosen = draw(logits, gumbel, temperature)
        nats.append(-float(logits.log_softmax(-1).gather(-1, chosen[:, None]).sum()))
        return chosen

    monkeypatch.setattr("vpoet.generate.step.draw", spied)
    one_by_one = Model(model.bundle, guesses=0)
    (one,) = one_by_one.decode([model.document(REQUESTS[0])], [1], sampling)
    (score,) = model.likelihoods([one.document])
    assert (abs(sum(nats) - score.total.nats) < 1e-3) == same


@pytest.mark.parametrize(
    "task", [task for task in TABLE.values() if task.needs in ("", "timeline")], ids=lambda task: task.name
)
def test_every_task_of_a_clip_is_scored_as_it_is_sampled(model: Model, task: Task) -> None:
    random = np.random.default_rng(0)
    codes, keyframes = random.integers(0, 36, (2, 3, 2, 3), dtype=np.int32)
    keyframes[0] = codes[0]
    hidden = np.indices(codes.shape).sum(axis=0) % 3 == 0
    paintings = tuple(Painting(name, hidden, np.where(hidden, 0, keyframes)) for name in PAINTED)
    text = random.integers(0, 200, 5, dtype=np.int32)
    sample = Sample(text, codes, 8, keyframes, paintings, timeline=((0, text), (2, text[:2])))
    sample = Sample(sample.text, codes[:1], 0) if task.name == "t2i" else sample
    given = task.draw(sample, random)
    (one,) = model.decode([task.document(sample, given)], [0])
    (score,) = model.likelihoods([one.document])
    assert score.cells.shape == one.document.codes().shape
    np.testing.assert_allclose(score.cells[~np.isnan(score.cells)], one.nats, atol=1e-4)
    if given.hidden is not None:
        assert np.array_equal(np.isnan(score.cells), ~given.hidden)


def test_the_score_is_the_training_loss(model: Model) -> None:
    documents = [one.document for one in sampled(model)]
    sequences = [build(document, model.bundle.transformer.vocabulary) for document in documents]
    row = pack(sequences, sum(map(len, sequences)), bidirectional=model.bundle.config.bidirectional)
    sums = PackLoss(model.bundle.transformer, model.attention)(PackTensors.of(row, torch.device("cpu")))
    scores = model.likelihoods(documents)
    image = scores[2]
    assert float(sums[IMAGE]) == pytest.approx(image.total.nats, rel=1e-5)
    assert float(sums[VIDEO]) == pytest.approx(sum(s.total.nats for s in scores if s is not image), rel=1e-5)
    mean = sum(score.total.bits for score in scores) / sum(score.tokens for score in scores)
    assert losses("all", sums, counts(row))["all/bits"] == pytest.approx(mean, rel=1e-5)


def test_in_bf16_the_score_is_near_the_log_probabilities_of_sampling(model: Model) -> None:
    """The two ways through one bf16 network differ by its rounding, by less than 0.01 nats a code on average here."""
    bf16 = Model(replace(model.bundle, transformer=copy.deepcopy(model.bundle.transformer).bfloat16()))
    decoded = sampled(bf16)
    for one, score in zip(decoded, bf16.likelihoods([d.document for d in decoded]), strict=True):
        assert np.abs(score.cells[~np.isnan(score.cells)] - one.nats).mean() < 0.01


def test_documents_scored_together_are_scored_as_if_alone(model: Model) -> None:
    documents = [one.document for one in sampled(model)]
    together = model.likelihoods(documents)
    for document, score in zip(documents, together, strict=True):
        (alone,) = model.likelihoods([document])
        np.testing.assert_allclose(alone.cells, score.cells, atol=1e-5)
    assert model.likelihoods([]) == []
    longer = Model(replace(model.bundle, config=replace(model.bundle.config, length=1000)))
    for one, other in zip(together, longer.likelihoods(documents), strict=True):  # all in one pack
        np.testing.assert_allclose(one.cells, other.cells, atol=1e-5)


def test_the_probabilities_of_all_clips_of_a_grid_add_up_to_one(model: Model) -> None:
    """Two codes of a codebook of 36: 1,296 images."""
    text = np.array(model.bundle.text.encode("a robot"), np.int32)
    pairs = [np.array(pair, np.int32).reshape(1, 1, 2) for pair in itertools.product(range(36), repeat=2)]
    scores = model.likelihoods([TABLE["t2i"].document(Sample(text, codes, 0)) for codes in pairs])
    probabilities = np.exp([-score.total.nats for score in scores])
    assert probabilities.sum() == pytest.approx(1, abs=1e-4)
    assert probabilities.max() > 3 / 1296  # far from the same for all


def test_what_was_given_has_no_score_and_the_rest_has_its_place_on_the_grid(model: Model) -> None:
    decoded = sampled(model)
    for one, score, given in zip(
        decoded, model.likelihoods([d.document for d in decoded]), (0, 0, 0, 1, 2, 1), strict=True
    ):
        assert score.cells.shape == one.document.codes().shape
        assert np.isnan(score.cells[:given]).all()
        assert np.isfinite(score.cells[given:]).all()
        np.testing.assert_allclose(score.cells[given:].ravel(), one.nats, atol=1e-4)


def test_a_surprise_comes_when_it_happens_and_not_before(model: Model) -> None:
    """Other codes in the last cell of time leave the scores of all earlier ones as they are."""
    codes = np.random.default_rng(0).integers(0, 36, (3, 3, 4), dtype=np.int32)
    changed = codes.copy()
    changed[2, 1:] = (changed[2, 1:] + 1) % 36
    before, after = model.likelihoods([model.observed(c, 8, "a robot") for c in (codes, changed)])
    np.testing.assert_allclose(before.cells[:2], after.cells[:2], atol=1e-5)
    np.testing.assert_allclose(before.cells[2, 0], after.cells[2, 0], atol=1e-5)
    assert np.abs(before.surprise - after.surprise)[2] > 0.05


def test_figures_add_up() -> None:
    """Three cells of time at 4x8x8: frames 0, 1 to 4 and 5 to 8. Given: the first cell, and one code of the second."""
    cells = np.arange(12, dtype=np.float64).reshape(3, 2, 2)
    cells[0] = np.nan
    cells[1, 0, 0] = np.nan
    score = Likelihood("continuation", cells, (4, 8, 8))
    assert score.edges.tolist() == [0, 1, 5, 9]
    assert (score.tokens, score.frames, score.pixels) == (7, 8, 7 * 4 * 64)
    assert score.total.nats == 5 + 6 + 7 + 8 + 9 + 10 + 11
    np.testing.assert_array_equal(score.by_time, [np.nan, 18, 38])
    np.testing.assert_allclose(score.surprise, [np.nan, 6 / math.log(2), 9.5 / math.log(2)])
    assert score.per_token.nats == 8
    assert score.per_frame.nats == 7
    assert score.per_pixel.nats == 56 / (7 * 256)
    assert Information(math.log(2)).bits == 1
    assert score.per_frame.bits == 7 / math.log(2)

    whole = Likelihood("t2v", np.ones((3, 2, 2)), (4, 8, 8))
    assert (whole.tokens, whole.frames, whole.pixels) == (12, 9, 9 * 16 * 16)
    assert np.nansum(whole.by_time) == whole.total.nats == whole.per_frame.nats * 9
    image = Likelihood("t2i", np.ones((1, 2, 2)), (4, 8, 8))
    assert (image.tokens, image.frames, image.pixels) == (4, 1, 16 * 16)


def test_the_posterior_over_prompts_is_bayes_rule() -> None:
    def score(nats: float) -> Likelihood:
        return Likelihood("t2v", np.full((1, 1, 2), nats / 2), (4, 8, 8))

    shares = posterior([score(-math.log(p)) for p in (0.1, 0.3, 0.2)])
    np.testing.assert_allclose(shares, [1 / 6, 1 / 2, 1 / 3])
    np.testing.assert_allclose(posterior([score(9000), score(5000)]), [0, 1])
    assert posterior([score(3)]).tolist() == [1]


def test_a_video_is_scored_as_its_codes_are(model: Model) -> None:
    video = clip(9)
    codes = model.bundle.video.encode(video)
    for prompt, given_frames, task, given in (
        ("a robot", 0, "t2v", 0),
        ("", 0, "unconditional", 0),
        ("a robot", 1, "i2v", 1),
        ("", 1, "i2v", 1),
        ("a robot", 5, "continuation", 2),
    ):
        text = np.array(model.bundle.text.encode(prompt), np.int32)
        (wanted,) = model.likelihoods([TABLE[task].document(Sample(text, codes, 8), Given(given))])
        score = model.score(video, prompt, given_frames=given_frames)
        assert score.task == task
        np.testing.assert_array_equal(score.cells, wanted.cells)
    picture = model.score(clip(1, fps=0), "a robot")
    assert (picture.task, picture.frames, picture.tokens) == ("t2i", 1, 12)
    only = Model(replace(model.bundle, config=replace(model.bundle.config, tasks=["t2v", "continuation"])))
    assert only.score(video, given_frames=1).task == "continuation"
    assert only.score(video).task == "t2v"


def test_a_clip_is_brought_to_what_the_model_knows(model: Model, tmp_path: Path) -> None:
    big = clip(40, height=50, width=60, fps=16.0)
    big.write(tmp_path / "big.mp4", lossless=True)
    fitted = fit(model.bundle, tmp_path / "big.mp4")
    assert np.array_equal(fitted.video.frames, big.resample(8).resize(24, 32).frames[:9])
    assert fitted.video.fps == 8
    assert fitted.changes == (
        "from 50x60 to 24x32 pixels",
        "from 16 to 8 frames per second",
        "the first 9 frames only",
    )
    cells = model.score(tmp_path / "big.mp4", "a robot").cells
    np.testing.assert_array_equal(cells, model.score(fitted.video, "a robot").cells)

    untouched = fit(model.bundle, clip(9))
    assert np.array_equal(untouched.video.frames, clip(9).frames)
    assert untouched.changes == ()
    assert fit(model.bundle, clip(7)).changes == ("the first 5 frames only",)
    image = fit(model.bundle, clip(1, fps=0))
    assert (len(image.video), image.video.fps, image.changes) == (1, 0, ())
    other = fit(model.bundle, clip(9, 16, 8, fps=4.0), frames=5, height=16, width=8, fps=4)
    assert (other.video.frames.shape, other.video.fps) == ((5, 16, 8, 3), 4)
    assert fit(model.bundle, clip(9), frames=1).video.fps == 0


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"given_frames": 4}, PromptError, r"given_frames = 4: for a clip of 9 frames it is 0, 1, 5$"),
        ({"given_frames": 9}, PromptError, r"given_frames = 9: for a clip of 9 frames it is 0, 1, 5$"),
        ({"given_frames": -1}, PromptError, "given_frames = -1"),
        ({"frames": 13}, DataError, "the clip: 9 frames at 8 fps, and 13 were asked for"),
        ({"frames": 6}, DataError, "the nearest is 5 frames of 24x32"),
        ({"height": 25}, DataError, "the nearest is 9 frames of 24x32"),
        ({"height": 0}, DataError, "9 frames of 0x32 at 8 fps were asked for: each is 1 to 100000"),
        ({"height": 48, "width": 48}, ShapeError, r"3x6x6 cells take \d+ tokens, .* on at most 100"),
        ({"prompt": "x" * 90}, PromptError, r"the prompt takes \d+ tokens, and beside a video of this size \d+"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    model: Model, settings: dict[str, int], error: type[ValueError], message: str
) -> None:
    with pytest.raises(error, match=message):
        model.score(clip(9), **settings)  # type: ignore[arg-type]


def test_files_that_are_no_videos_are_named(model: Model, tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_text("no video")
    for name, message in (("x.mp4", r"x\.mp4: not a video"), ("y.mp4", r"y\.mp4: no such file")):
        with pytest.raises(DataError, match=message):
            model.score(tmp_path / name)


def test_a_document_without_a_visual_target_has_no_score(model: Model) -> None:
    picture = Span(Modality.IMAGE, np.zeros((1, 2, 2), np.int32))
    caption = Span(Modality.TEXT, np.zeros(3, np.int32), target=True)
    with pytest.raises(ShapeError, match="a document of task t2i without an image or video to predict has no score"):
        model.likelihoods([Document("t2i", (picture, caption))])


def test_a_task_that_was_not_trained_is_not_scored(model: Model) -> None:
    only = Model(replace(model.bundle, config=replace(model.bundle.config, tasks=["t2v"])))
    with pytest.raises(PromptError, match=r"not trained for continuation .*; it was for t2v"):
        only.score(clip(9), given_frames=5)
