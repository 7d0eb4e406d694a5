"""Adapters: saved, loaded beside their bundle, refused beside another."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import vpoet
from vpoet import bundle
from vpoet.adapter import Adapter
from vpoet.errors import CheckpointError, HashMismatch, OutputError

PLACE = "blocks.0.mlp.up"


@pytest.fixture(scope="module")
def base(make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("adapter"), frames=5, height=16, width=16, words=["a", "robot"])


def learned(base: str, **changes: Any) -> Adapter:
    random = torch.Generator().manual_seed(0)
    update = {
        f"{PLACE}.lora_A": torch.randn(2, 32, generator=random),
        f"{PLACE}.lora_B": torch.randn(96, 2, generator=random),
    }
    return Adapter(**{"update": update, "scale": 2.0, "base": base, "words": ["dog"], **changes})


def test_a_model_with_its_adapter_is_the_bundle_they_merge_into(base: Path, tmp_path: Path) -> None:
    plain = bundle.load(base)
    learned(plain.hash).save(tmp_path / "dog.safetensors")
    with_it = bundle.load(base, adapter=tmp_path / "dog.safetensors")
    weight, own = with_it.transformer.state_dict()[f"{PLACE}.weight"], plain.transformer.state_dict()[f"{PLACE}.weight"]
    update = learned("").update
    assert torch.equal(weight, own + 2.0 * (update[f"{PLACE}.lora_B"] @ update[f"{PLACE}.lora_A"]))
    assert with_it.config.words == ["a", "dog", "robot"]

    bundle.save(tmp_path / "merged", with_it.transformer, with_it.config, with_it.text, with_it.video, "")
    merged = bundle.load(tmp_path / "merged")
    assert merged.hash == with_it.hash != plain.hash
    clip = vpoet.load(base, "cpu", adapter=tmp_path / "dog.safetensors").sample("a robot", seed=1)
    assert (clip.frames == vpoet.load(tmp_path / "merged", "cpu").sample("a robot", seed=1).frames).all()
    half = bundle.load(base, dtype=torch.bfloat16, adapter=tmp_path / "dog.safetensors")
    assert half.hash == merged.hash
    assert torch.equal(half.transformer.state_dict()[f"{PLACE}.weight"], weight.bfloat16())


def test_an_adapter_of_another_bundle_is_refused_with_both_hashes(base: Path, tmp_path: Path) -> None:
    learned("0123456789abcdef").save(tmp_path / "dog.safetensors")
    with pytest.raises(
        HashMismatch, match=f"beside the bundle 0123456789abcdef, but this.* is {bundle.load(base).hash}"
    ):
        bundle.load(base, adapter=tmp_path / "dog.safetensors")


def test_what_is_no_adapter_is_named(base: Path, tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("no tensors")
    for path, told in (
        (tmp_path / "nowhere.safetensors", "nowhere.safetensors: adapter not readable"),
        (tmp_path / "text.safetensors", "text.safetensors: adapter not readable"),
        (base / "model.safetensors", "not an adapter; `vpoet finetune --lora` makes one"),
    ):
        with pytest.raises(CheckpointError, match=told):
            bundle.load(base, adapter=path)


def test_an_adapter_that_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    broken = {f"{PLACE}.lora_A": torch.full((2, 32), torch.nan), f"{PLACE}.lora_B": torch.zeros(96, 2)}
    with pytest.raises(CheckpointError, match=r"NaN or infinity .*lora_A first"):
        learned("", update=broken).save(tmp_path / "dog.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_adapter_that_was_there(tmp_path: Path, full: None) -> None:
    (tmp_path / "dog.safetensors").write_text("before")
    with pytest.raises(OutputError, match=r"dog\.safetensors: cannot be written: File too large; make room"):
        learned("").save(tmp_path / "dog.safetensors")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_scale_that_is_no_number_is_refused(tmp_path: Path, scale: float) -> None:
    learned("", scale=scale).save(tmp_path / "dog.safetensors")
    with pytest.raises(CheckpointError, match="changed or damaged"):
        Adapter.load(tmp_path / "dog.safetensors")


def test_a_flipped_bit_of_an_adapter_is_found(tmp_path: Path) -> None:
    path = tmp_path / "dog.safetensors"
    learned("").save(path)
    assert Adapter.load(path).words == ["dog"]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"dog\.safetensors: the adapter was changed or damaged"):
        Adapter.load(path)
