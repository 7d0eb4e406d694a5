"""Bundles: what is saved comes back; what is missing, damaged or foreign is named."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from vpoet import bundle
from vpoet.bundle import Bundle, BundleConfig
from vpoet.errors import CheckpointError, HashMismatch, OutputError
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.sequence.actions import ActionSpace
from vpoet.sequence.vocabulary import Vocabulary, grouped
from vpoet.tokenizer.autoencoder import Autoencoder, AutoencoderConfig
from vpoet.tokenizer.quantiser import QuantiserConfig
from vpoet.tokenizer.text import TextTokenizer
from vpoet.tokenizer.video import VideoTokenizer

SIZES = TransformerConfig(width=32, depth=2, heads=2, kv_heads=1, hidden=48)
CAPTIONS = ["a robot walks right on grass", "a hero jumps on sand", "a zombie stands still at night"]


def parts(folder: Path, seed: int = 0) -> tuple[Transformer, TextTokenizer, VideoTokenizer]:
    torch.manual_seed(seed)
    small = AutoencoderConfig(
        widths=[8, 8, 8],
        encoder_blocks=[0, 0, 1],
        decoder_blocks=[0, 0, 1],
        quantiser=QuantiserConfig(levels=[4, 3, 3]),
    )
    video = VideoTokenizer(Autoencoder(small))
    text = TextTokenizer.train(CAPTIONS[: 3 - seed], folder / f"text-{seed}.model", 300)
    vocabulary = Vocabulary(text.size, grouped(video.levels, 2), text.hash, video.hash)
    return Transformer(SIZES, vocabulary), text, video


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    transformer, text, video = parts(tmp_path)
    config = BundleConfig(model=SIZES, bidirectional=True, length=300, tasks=["t2v", "i2v"], frames=9, fps=12)
    bundle.save(tmp_path / "bundle", transformer, config, text, video, "# A small model\n")
    return tmp_path / "bundle"


def test_a_model_that_plays_knows_its_actions(tmp_path: Path) -> None:
    plain, text, video = parts(tmp_path)
    keys = ActionSpace(names=["noop", "left", "right"])
    config = BundleConfig(model=SIZES, tasks=["play"], actions=keys)
    bundle.save(tmp_path / "b", Transformer(SIZES, keys.vocabulary(plain.vocabulary)), config, text, video, "")
    loaded = bundle.load(tmp_path / "b")
    assert loaded.config.actions == keys
    assert loaded.transformer.vocabulary.appended == (("actions", 4), ("outcomes", 8))
    fewer = replace(config, actions=ActionSpace(names=["noop", "left"]))
    with pytest.raises(HashMismatch, match="the weights were trained on the vocabulary"):
        bundle.save(tmp_path / "c", loaded.transformer, fewer, text, video, "")


def test_what_is_saved_comes_back(saved: Path, tmp_path: Path) -> None:
    transformer, text, video = parts(tmp_path)
    loaded = bundle.load(saved)
    assert isinstance(loaded, Bundle)
    assert loaded.config.model == SIZES
    assert (loaded.config.bidirectional, loaded.config.length, loaded.config.tasks) == (True, 300, ["t2v", "i2v"])
    assert (loaded.config.frames, loaded.config.height, loaded.config.width, loaded.config.fps) == (9, 64, 64, 12)
    assert loaded.text.hash == loaded.config.text_tokenizer == text.hash
    assert loaded.video.hash == loaded.config.video_tokenizer == video.hash
    assert loaded.transformer.vocabulary == transformer.vocabulary
    assert not loaded.transformer.training
    for name, weight in transformer.state_dict().items():
        found = loaded.transformer.get_parameter(name)
        assert torch.equal(found, weight), name
        assert not found.requires_grad
    assert sorted(path.name for path in saved.iterdir()) == sorted(bundle.PARTS)
    assert (saved / "card.md").read_text() == "# A small model\n"
    assert bundle.load(saved, dtype=torch.bfloat16).transformer.language.weight.dtype == torch.bfloat16


def test_the_hash_is_of_the_weights(saved: Path, tmp_path: Path) -> None:
    transformer, text, video = parts(tmp_path)
    before = bundle.load(saved).hash
    bundle.save(tmp_path / "same", transformer, BundleConfig(model=SIZES), text, video, "another card")
    assert bundle.load(tmp_path / "same").hash == before
    transformer.norm.weight.data[0] += 1e-3
    bundle.save(tmp_path / "other", transformer, BundleConfig(model=SIZES), text, video, "")
    assert bundle.load(tmp_path / "other").hash != before


@pytest.mark.parametrize("part", bundle.PARTS)
def test_a_missing_part_is_named(saved: Path, part: str) -> None:
    path = saved / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(CheckpointError, match=f"it lacks {part}; `vpoet export` makes bundles"):
        bundle.load(saved)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere: no such folder"):
        bundle.load(tmp_path / "nowhere")


@pytest.mark.parametrize("part", ["text.model", "video_tokenizer"])
def test_a_foreign_tokenizer_is_refused_with_both_hashes(saved: Path, tmp_path: Path, part: str) -> None:
    _, text, video = parts(tmp_path, seed=1)
    config = bundle.load(saved).config
    if part == "text.model":
        text.save(saved / part)
        mine, other = config.text_tokenizer, text.hash
    else:
        shutil.rmtree(saved / part)
        video.save(saved / part)
        mine, other = config.video_tokenizer, video.hash
    with pytest.raises(HashMismatch, match=f"tokenizer {mine}, but {part} is {other}"):
        bundle.load(saved)


def test_foreign_weights_are_refused_with_both_hashes(saved: Path, tmp_path: Path) -> None:
    transformer, text, video = parts(tmp_path, seed=1)
    bundle.save(tmp_path / "other", transformer, BundleConfig(model=SIZES), text, video, "")
    mine = bundle.load(saved).transformer.vocabulary.hash
    shutil.copy(tmp_path / "other" / "model.safetensors", saved)
    with pytest.raises(HashMismatch, match=f"vocabulary {transformer.vocabulary.hash}, but .* make {mine}"):
        bundle.load(saved)


def test_parts_that_do_not_belong_together_are_not_saved(tmp_path: Path) -> None:
    transformer, text, _ = parts(tmp_path)
    _, _, video = parts(tmp_path, seed=1)
    with pytest.raises(HashMismatch, match=transformer.vocabulary.hash):
        bundle.save(tmp_path / "bundle", transformer, BundleConfig(model=SIZES), text, video, "")
    assert not (tmp_path / "bundle").exists()


def test_damaged_parts_are_named(saved: Path) -> None:
    weights = saved / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not readable"):
        bundle.load(saved)
    weights.write_bytes(whole)
    (saved / "text.model").write_bytes(b"no model")
    with pytest.raises(CheckpointError, match=r"text\.model: not a sentencepiece model.*copy the bundle again"):
        bundle.load(saved)


def test_weights_of_another_size_are_refused(saved: Path) -> None:
    loaded = bundle.load(saved)
    weights = {name: tensor for name, tensor in load_file(saved / "model.safetensors").items() if "norm" not in name}
    save_file(weights, saved / "model.safetensors", metadata={"vocabulary": loaded.transformer.vocabulary.hash})
    with pytest.raises(CheckpointError, match=r"model\.safetensors does not fit config\.yaml: .*norm"):
        bundle.load(saved)


def test_an_unknown_key_is_a_checkpoint_error(saved: Path) -> None:
    (saved / "config.yaml").write_text((saved / "config.yaml").read_text() + "lenght: 3\n")
    with pytest.raises(CheckpointError, match=r"config\.yaml: unknown key 'lenght'; did you mean length\?"):
        bundle.load(saved)


def test_saving_replaces_a_bundle_and_nothing_else(saved: Path, tmp_path: Path) -> None:
    transformer, text, video = parts(tmp_path)
    bundle.save(saved, transformer, BundleConfig(model=SIZES, fps=30), text, video, "new")
    assert bundle.load(saved).config.fps == 30
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "text-0.model"]
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "photo.jpg").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="precious: exists and is no bundle"):
        bundle.save(precious, transformer, BundleConfig(model=SIZES), text, video, "")
    assert (precious / "photo.jpg").exists()


@pytest.mark.parametrize("room", [100, 1_000, 200_000], ids=["config", "weights", "tokenizer"])
def test_a_full_disk_leaves_the_bundle_that_was_there(
    saved: Path, tmp_path: Path, full_disk: Callable[[int], None], room: int
) -> None:
    transformer, text, video = parts(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    full_disk(room)
    for folder in (saved, tmp_path / "other"):
        with pytest.raises(OutputError, match=rf"{folder.name}.*: cannot be written: File too large; make room"):
            bundle.save(folder, transformer, BundleConfig(model=SIZES, fps=30), text, video, "")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "other").exists()


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    transformer, text, video = parts(tmp_path)
    transformer.norm.weight.data[0] = torch.nan
    with pytest.raises(CheckpointError, match=r"1 tensors hold NaN or infinity \(norm\.weight first\)"):
        bundle.save(tmp_path / "bundle", transformer, BundleConfig(model=SIZES), text, video, "")
    assert not (tmp_path / "bundle").exists()


def test_half_the_space_keeps_the_weights_to_their_eleventh_bit(saved: Path, tmp_path: Path) -> None:
    transformer, text, video = parts(tmp_path)
    bundle.save(tmp_path / "half", transformer, BundleConfig(model=SIZES), text, video, "", torch.float16)
    whole, half = (bundle.load(folder).transformer.state_dict() for folder in (saved, tmp_path / "half"))
    for name, weight in whole.items():
        assert half[name].dtype == torch.float32
        torch.testing.assert_close(half[name], weight, rtol=2**-11, atol=1e-7)
    sizes = [(folder / bundle.WEIGHTS).stat().st_size for folder in (saved, tmp_path / "half")]
    assert sizes[1] < 0.6 * sizes[0]
    assert bundle.load(tmp_path / "half").hash != bundle.load(saved).hash


def spoilt(saved: Path, change: Callable[[bytearray], None]) -> None:
    data = bytearray((saved / "model.safetensors").read_bytes())
    change(data)
    (saved / "model.safetensors").write_bytes(data)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("loaded_as", [torch.float32, torch.bfloat16])
def test_a_flipped_bit_of_the_weights_is_found(
    saved: Path, tmp_path: Path, dtype: torch.dtype, loaded_as: torch.dtype
) -> None:
    transformer, text, video = parts(tmp_path)
    bundle.save(saved, transformer, BundleConfig(model=SIZES), text, video, "", dtype)
    whole = bundle.load(saved, dtype=loaded_as).hash
    spoilt(saved, lambda data: data.__setitem__(-100, data[-100] ^ 1))
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: saved with hash {whole}, but its content now has"):
        bundle.load(saved, dtype=loaded_as)


def test_weights_that_are_not_finite_are_not_loaded(saved: Path) -> None:
    spoilt(saved, lambda data: data.__setitem__(slice(-8, None), b"\xff" * 8))
    with pytest.raises(CheckpointError, match=r"model\.safetensors: 1 tensors hold NaN or infinity"):
        bundle.load(saved)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"frames": 0}, "frames = 0"),
        ({"tasks": ["x"]}, "tasks: no x; there are unconditional"),
        ({"tasks": ["t2v", "play"]}, "tasks: play: say in `actions` what the model can be told to do"),
        ({"actions": {"names": ["a", "a"]}}, "action_space: a name comes twice"),
        ({"temperature": float("nan")}, "temperature = nan"),
        ({"model": {"heads": 0}}, "model.heads = 0"),
        ({"model": {"dropout": 7}}, "model.dropout = 7"),
    ],
)
def test_a_config_that_cannot_be_is_refused(saved: Path, values: dict[str, Any], said: str) -> None:
    path = saved / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values))
    with pytest.raises(CheckpointError, match=said):
        bundle.load(saved)
