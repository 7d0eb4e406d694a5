"""The compiled step beside the plain one: the same codes, the same nats; found again without compiling."""

import itertools
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._inductor.runtime.benchmarking import benchmarker

import vpoet
from vpoet.errors import BackendError, ConfigError
from vpoet.generate import compiled_step
from vpoet.generate.ahead import Ahead
from vpoet.generate.compiled_step import StepCompiler, compiled_file
from vpoet.generate.decode import decode
from vpoet.generate.decoder import Decoding
from vpoet.generate.likelihood import likelihoods
from vpoet.generate.model import Model, Request
from vpoet.generate.sampling import Sampling
from vpoet.generate.step import Step
from vpoet.nn.attention import backend
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.sequence.actions import ActionSpace
from vpoet.sequence.arrangements import Sample
from vpoet.sequence.controls import Control
from vpoet.sequence.document import Document
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Vocabulary

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="compiling a step needs a C++ compiler"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Path:
    return make_bundle(tmp_path_factory.mktemp("compiled"), length=300, frames=9, height=48, width=48)


@pytest.fixture
def untuned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled with no contest between kernels, each of which is compiled too: most of the time. The tests without
    this have it, for steps of one token in fp32 and of two in bf16."""
    monkeypatch.setitem(compiled_step._INDUCTOR, "max_autotune", False)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("guesses", [0, 3])
def test_a_compiled_step_decodes_as_the_plain_one_and_is_compiled_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, guesses: int
) -> None:
    """108 codes a clip, so that the cache grows over a block; three clips, which fill up to four."""
    if guesses:
        request.getfixturevalue("untuned")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made: list[Path] = []
    plain = vpoet.load(folder, "cpu")
    fast = vpoet.load(folder, "cpu", compiler=StepCompiler(made.append), guesses=guesses)
    requests = [Request(prompt=text, seed=seed) for seed, text in enumerate(("a robot", "", "a hero on sand"))]
    sampling = Sampling(guidance=2.0, temperature=0.9, top_k=30, top_p=0.9, min_p=0.01)
    documents = [plain.document(request) for request in requests]
    for settings in (sampling, replace(sampling, guidance=3.0, top_p=0.5)):  # settings are inputs of the step
        wanted = plain.decode(documents, [0, 1, 2], settings)
        found = fast.decode(documents, [0, 1, 2], settings)
        assert len(found) == 3
        for one, other in zip(wanted, found, strict=True):
            assert one.document.equals(other.document)
            np.testing.assert_allclose(other.nats, one.nats, atol=1e-4)
    assert len(made) == 1
    again = vpoet.load(folder, "cpu", compiler=StepCompiler(made.append), guesses=guesses)
    assert again.decode(documents, [0, 1, 2], sampling)[2].document.equals(
        plain.decode(documents, [0, 1, 2], sampling)[2].document
    )
    assert len(made) == 1
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".pt2"]


@needs_compiler
@pytest.mark.slow
@pytest.mark.usefixtures("untuned")
def test_controls_are_an_input_of_a_step_of_its_own(
    make_bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that reads controls has two steps, each compiled when it is first needed; both draw as the plain one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    sizes = {"depth": 1, "length": 300, "frames": 9, "height": 16, "width": 24}
    told = make_bundle(tmp_path / "told", controls="edges", **sizes)
    made: list[Path] = []
    plain = vpoet.load(told, "cpu")
    fast = vpoet.load(told, "cpu", compiler=StepCompiler(made.append), guesses=0)
    bare = plain.document(Request(prompt="a robot"))
    codes = np.random.default_rng(0).integers(0, 36, bare.codes().shape, dtype=np.int32)
    for count, document in enumerate((bare, replace(bare, controls=(Control("edges", codes, 0.7),))), 1):
        (wanted,), (found,) = (one.decode([document], [5], Sampling(guidance=2.0)) for one in (plain, fast))
        assert found.document.equals(wanted.document)
        np.testing.assert_allclose(found.nats, wanted.nats, atol=1e-4)
        assert len(made) == count


@needs_compiler
@pytest.mark.slow
@pytest.mark.usefixtures("untuned")
def test_a_compiled_pass_plays_as_the_plain_one_and_is_compiled_once(
    make_bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a window and a change of prompt, made ahead or not; a prompt of another length needs no other one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    settings = {"actions": ActionSpace(names=["noop", "left", "right"]), "tasks": ["play"], "window": 3}
    folder = make_bundle(tmp_path / "toy", depth=1, time_stride=1, length=300, height=16, width=16, **settings)
    made: list[Path] = []
    plain = vpoet.load(folder, "cpu").play("a robot", 3)
    model = vpoet.load(folder, "cpu", compiler=StepCompiler(made.append))
    fast = Ahead(model.play("a robot", 3))
    for key in (1, 2, 0, 1, 2, 2):
        for one in (plain, fast.session):
            one.outcome = "unknown"  # an untrained model says at random that this is the end
        fast.make(1)
        assert np.array_equal(fast.step(key)[0], plain.step(key)[0])
        np.testing.assert_allclose(fast.session.nats, plain.nats, atol=1e-4)
        if key == 0:
            for one in (plain, fast.session):
                one.prompt("a hero on sand")
    model.play("a hero jumps on the sand", 4)
    assert len(made) == 1


@needs_compiler
@pytest.mark.slow
def test_a_compiled_step_in_bf16_draws_from_the_distribution_of_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It rounds in its own way, so its codes are other samples. Chi-squared of the second code of an image, guessed and
    tested, against exact probabilities: with three degrees of freedom it exceeds 32 once in two million times."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    torch.manual_seed(0)
    config = TransformerConfig(width=32, depth=1, heads=2, kv_heads=1, hidden=48)
    transformer = Transformer(config, Vocabulary(20, (2, 2), "t", "v")).eval().requires_grad_(False)
    for parameter in transformer.parameters():
        parameter.mul_(4 if parameter.dim() > 1 else 1)
    transformer.bfloat16()
    attention, compiler = backend("sdpa", torch.device("cpu"), torch.bfloat16), StepCompiler()

    def image(first: int, second: int) -> Document:
        return TABLE["t2i"].document(Sample(np.arange(3, dtype=np.int32), np.array([[[first, second]]], np.int32), 0))

    every = [image(first, second) for first in range(4) for second in range(4)]
    scores = likelihoods(transformer, every, attention=attention, stride=(1, 8, 8), length=64)
    expected = np.exp([-score.total.nats for score in scores]).reshape(4, 4).sum(0)
    decoding = Decoding(
        transformer=transformer, attention=attention, guesses=1,
        build=lambda step, *shape: compiler("tiny", step, *shape),
    )  # fmt: skip

    def chi_squared(sampling: Sampling, count: int = 1024, together: int = 64) -> float:
        found = np.zeros(4)
        for start in range(0, count, together):
            for one in decode(decoding, [image(0, 0)] * together, range(start, start + together), sampling):
                found[one.document.codes().flat[1]] += 1
        return float(((found - count * expected) ** 2 / (count * expected)).sum())

    assert chi_squared(Sampling()) < 32
    assert chi_squared(Sampling(temperature=0.3)) > 32  # it can tell


def test_the_record_says_what_may_turn_near_ties_and_nothing_where_none_is_turned(folder: Path) -> None:
    bundle = vpoet.load(folder, "cpu").bundle
    assert Model(bundle).rounding == {}
    assert Model(bundle, guesses=5).rounding == {}
    assert Model(bundle, StepCompiler()).rounding == {"compiled": True}
    assert Model(bundle, StepCompiler(), 5).rounding == {"compiled": True, "guesses": 5}


def test_the_file_depends_on_all_that_the_step_depends_on(folder: Path) -> None:
    model = vpoet.load(folder, "cpu")
    step = Step(model.bundle.transformer, filtered=False, products=True)
    files = [
        compiled_file("a", step, 1, 1, 1),
        compiled_file("b", step, 1, 1, 1),
        compiled_file("a", step, 1, 2, 1),
        compiled_file("a", step, 2, 2, 1),
        compiled_file("a", step, 1, 1, 2),
        compiled_file("a", Step(model.bundle.transformer, filtered=True, products=True), 1, 1, 1),
    ]
    for precision in ("bf16", "int8"):
        other = vpoet.load(folder, "cpu", precision)
        files.append(compiled_file("a", Step(other.bundle.transformer, filtered=False, products=True), 1, 1, 1))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    files.append(compiled_file("a", step, 1, 1, 1))
    torch.set_num_threads(threads)
    assert len(set(files)) == len(files)
    assert compiled_file("a", step, 1, 1, 1) == files[0]


def test_what_cannot_be_compiled_or_loaded_says_so(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = vpoet.load(folder, "cpu", compiler=StepCompiler())
    document = model.document(Request(prompt="a robot"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BackendError, match="needs a C\\+\\+ compiler"):
        model.decode([document], [0])
    step = Step(model.bundle.transformer, filtered=False, products=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as `Model.decode` does with a small model
    file = compiled_file(model.bundle.hash, step, 1, 1, 1)
    torch.set_num_threads(threads)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"not a package")
    with pytest.raises(BackendError, match=f"{file.name}.*remove the file"):
        model.decode([document], [0])


def test_precisions_decode_near_each_other_and_unknown_ones_are_refused(folder: Path) -> None:
    wanted = vpoet.load(folder, "cpu")
    document = wanted.document(Request(prompt="a robot"))
    filled = wanted.decode([document], [0])[0].document
    (reference,) = wanted.likelihoods([filled])
    for precision in ("bf16", "int8"):
        model = vpoet.load(folder, "cpu", precision)
        assert model.bundle.transformer.language.weight.dtype == torch.bfloat16
        (found,) = model.likelihoods([filled])
        assert 0 < abs(found.per_token.bits - reference.per_token.bits) < 0.05
        assert model.decode([document], [0])[0].document.codes().shape == (3, 6, 6)
    with pytest.raises(ConfigError, match="precision = 'fp8': there are auto, fp32, bf16, int8"):
        vpoet.load(folder, "cpu", "fp8")


def test_kernels_are_compared_by_their_shortest_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three runs one is quick, by a clock that goes on with the runs alone: their median is not."""
    runs, clock = itertools.count(), [0.0]
    monkeypatch.setattr("vpoet.generate.compiled_step.time.perf_counter", lambda: clock[0])

    def run() -> None:
        clock[0] += 0.02 if next(runs) % 3 else 0.001

    with compiled_step._by_shortest_runs():
        assert benchmarker.benchmark(run, device="cpu") == pytest.approx(1)
    assert "benchmark_cpu" not in vars(benchmarker)
