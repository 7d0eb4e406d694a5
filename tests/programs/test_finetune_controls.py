"""A bundle that reads no controls learns some: by all weights, by new ones alone, or beside an adapter."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from vpoet import bundle, config
from vpoet.errors import ConfigError
from vpoet.evaluate.describe import describe
from vpoet.media.video import Video
from vpoet.nn import initial, lora
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.training.recipe import PretrainConfig

Program = Callable[..., tuple[int, str, str]]
RECIPE = Path(__file__).parents[2] / "train/configs/3m.yaml"
SIZES = {"frames": 5, "height": 16, "width": 16, "length": 200}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Path:
    return make_bundle(tmp_path_factory.mktemp("base"), depth=1, tasks=["t2v", "t2i"], **SIZES)


def test_a_run_begins_with_the_bundles_weights_and_with_nothing_added(base: Path) -> None:
    whole = bundle.load(base)
    sizes = TransformerConfig(**{**vars(whole.config.model), "controls": ["depth", "edges"]})
    with initial.Weightless():
        transformer = Transformer(sizes, whole.transformer.vocabulary)
    found, weights = bundle.begin(transformer, base)
    assert found == whole.hash
    began = dict(weights)
    assert list(began) == list(transformer.state_dict())
    for name, weight in whole.transformer.state_dict().items():
        assert torch.equal(began[name], weight.float())
    assert not began["controls.edges.out.weight"].any()
    assert began["controls.edges.mix.weight"].std() == pytest.approx(0.02, rel=0.1)
    with pytest.raises(ConfigError, match="the recipe's model"):
        bundle.begin(Transformer(TransformerConfig(width=64), transformer.vocabulary), base)


def test_a_run_without_controls_begins_with_the_rest_of_a_bundle_that_reads_some(
    tmp_path: Path, make_bundle: Callable[..., Path]
) -> None:
    folder = make_bundle(tmp_path, depth=1, controls="depth edges", **SIZES)
    whole = bundle.load(folder)
    for kinds in ([], ["edges"]):
        sizes = TransformerConfig(**{**vars(whole.config.model), "controls": kinds})
        with initial.Weightless():
            transformer = Transformer(sizes, whole.transformer.vocabulary)
        began = dict(bundle.begin(transformer, folder)[1])
        assert list(began) == list(transformer.state_dict())
        assert all(torch.equal(weight, whole.transformer.state_dict()[name]) for name, weight in began.items())


def test_lora_trains_what_reads_controls_as_a_whole(base: Path) -> None:
    pytest.importorskip("peft")
    whole = bundle.load(base)
    sizes = TransformerConfig(**{**vars(whole.config.model), "controls": ["edges"]})
    transformer = Transformer(sizes, whole.transformer.vocabulary)
    config = lora.LoraConfig(rank=2)
    lora.add(transformer, config)
    trained = {name for name, weight in transformer.named_parameters() if weight.requires_grad}
    assert {name for name in trained if "lora" not in name} == {
        name for name, _ in transformer.named_parameters() if name.startswith("controls.")
    }
    plain = Transformer(sizes, whole.transformer.vocabulary)
    plain.load_state_dict(lora.trained(transformer.state_dict(), config))


@pytest.mark.parametrize("how", [["train=all"], []], ids=["all", "controls"])
def test_a_list_of_clips_teaches_a_bundle_its_edges(
    base: Path, tmp_path: Path, program: Program, how: list[str]
) -> None:
    """By those weights alone that read them, unless told otherwise: then all others stay as they were, bit for bit."""
    random = np.random.default_rng(0)
    for i in range(2):
        frames = random.integers(0, 256, (5, 4, 4, 3), np.uint8).repeat(4, 1).repeat(4, 2)
        Video(frames, 8).write(tmp_path / f"{i}.mp4", lossless=True)
    (tmp_path / "list.csv").write_text("path,caption\n0.mp4,a robot walks\n1.mp4,a hero jumps\n")
    out = tmp_path / "bundle"
    recipe = ("steps=2", "save_every=2", "data.tasks.t2i=0", *how)
    asked = (base, tmp_path / "list.csv", "--controls", "edges", *recipe, "--out", out)
    status, _, err = program("train/finetune.py", *asked)
    assert status == 0, err
    learned = bundle.load(out)
    stayed = [
        torch.equal(weight, learned.transformer.state_dict()[name])
        for name, weight in bundle.load(base).transformer.state_dict().items()
    ]
    assert all(stayed) == (not how)
    assert learned.config.model.controls == ["edges"]
    assert learned.config.tasks == (["t2v"] if how else ["t2v", "t2i"])
    assert describe(out)["controls"] == ["edges"]
    assert learned.transformer.controls["edges"].out.weight.abs().max() > 0
    Video(np.zeros((5, 16, 16, 3), np.uint8), 8).write(tmp_path / "edges.mp4", lossless=True)
    wish = ("--prompt", "a robot", "--control", f"edges={tmp_path / 'edges.mp4'}:0.5", "--out", tmp_path / "s.mp4")
    status, _, err = program("sample/generate.py", "--model", out, *wish)
    assert status == 0, err
    assert '"strength": 0.5' in (tmp_path / "s.mp4.json").read_text()
    status, _, err = program("sample/generate.py", "--model", base, *wish)
    assert status == 2
    assert "reads none" in err


def test_what_cannot_be_learned_is_told_first(base: Path, tmp_path: Path, program: Program) -> None:
    status, _, err = program(
        "train/finetune.py", base, tmp_path / "no.csv", "--controls", "heat", "--out", tmp_path / "x"
    )
    assert (status, "no kind 'heat'" in err) == (2, True)
    for wrong, told in (("train=edges", "neither all nor controls"), ("train=controls", "add begin=BUNDLE")):
        with pytest.raises(ConfigError, match=told):
            config.load(RECIPE, PretrainConfig, [wrong])
    adapter = tmp_path / "x.safetensors"
    status, _, err = program(
        "train/finetune.py", base, tmp_path / "no.csv", "--controls", "edges", "--lora", 2, "--out", adapter
    )
    assert (status, "an adapter has no place" in err) == (2, True)
