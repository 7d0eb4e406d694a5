"""Networks that are handed in: what they see, what they give, and what is refused before it can run."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vpoet.errors import BackendError, CheckpointError, ShapeError
from vpoet.evaluate.compare import networks
from vpoet.evaluate.compare.networks import IMAGENET, LITE0, digest, load
from vpoet.files import fingerprint
from vpoet.nn.features import EfficientNetLite0


def clips(count: int = 2, frames: int = 4, side: int = 32) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, frames, side, side, 3), np.uint8))


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=[2, 3, 4])


class LikeI3D(nn.Module):
    def forward(self, x: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False) -> Tensor:
        assert rescale
        assert resize
        assert return_features
        return x.mean(dim=[2, 3, 4])


def test_efficientnet_tells_looks_and_motion() -> None:
    found = load(None, "cpu")(clips())
    assert found.shape == (2, 224)
    network = EfficientNetLite0()
    last = network(clips()[0].permute(0, 3, 1, 2).float() / 127.5 - 1)[-1]
    torch.testing.assert_close(found[0, :112], last.mean((0, 2, 3)), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[0, 112:], last.diff(dim=0).abs().mean((0, 2, 3)), atol=1e-4, rtol=1e-4)
    still = load(None, "cpu")(clips()[:, :1])
    assert (still[:, 112:] == 0).all()


def test_efficientnet_is_known_by_its_file_and_by_its_weights_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    known = load(None, "cpu")
    monkeypatch.setattr(networks, "LITE0_FILE", "of another file")
    assert load(None, "cpu").sha256 == known.sha256 == LITE0 == digest(EfficientNetLite0())
    with pytest.raises(BackendError, match="device 'gpu'"):
        load(None, "gpu")


def test_torchscript_runs_only_when_told_to_and_gets_pixels_in_minus_1_to_1(tmp_path: Path) -> None:
    file = tmp_path / "mean.pt"
    torch.jit.script(Mean()).save(str(file))
    with pytest.raises(BackendError, match=r"would run with your rights; .* --run-torchscript"):
        load(file, "cpu")
    network = load(file, "cpu", run_torchscript=True)
    expected = (clips().float() / 127.5 - 1).mean((1, 2, 3))
    torch.testing.assert_close(network(clips()), expected)
    assert network.sha256 == fingerprint(file)["sha256"]


def test_weights_of_fvd_are_called_as_stylegan_v_calls_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "i3d.pt"
    torch.jit.script(LikeI3D()).save(str(file))
    monkeypatch.setattr(networks, "FVD_WEIGHTS", {fingerprint(file)["sha256"]: "I3D"})
    network = load(file, "cpu", run_torchscript=True)
    torch.testing.assert_close(network(clips()), clips().float().mean((1, 2, 3)))
    assert "resized and scaled by the module" in network.input


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


def test_a_pickle_that_would_run_code_does_not(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    torch.save({"weights": Evil(mark)}, tmp_path / "evil.pt")
    torch.save({"weights": Evil(mark)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("evil.pt", "old.pth"):
        for allowed in (False, True):
            with pytest.raises(CheckpointError, match="neither TorchScript nor a state dict of tensors alone"):
                load(tmp_path / name, "cpu", run_torchscript=allowed)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "videomae"}')
    torch.save({"weights": Evil(mark)}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"not a folder with config.json and model.safetensors"):
        load(folder, "cpu")
    assert not mark.exists()


def test_what_is_no_network_is_named(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").touch()
    (tmp_path / "empty").mkdir()
    bert = tmp_path / "bert"
    bert.mkdir()
    (bert / "config.json").write_text('{"model_type": "bert"}')
    (bert / "model.safetensors").touch()
    for name, said in (
        ("nowhere.pt", "no such feature network"), ("net.onnx", "no kind of feature network"),
        ("bert", "a model of type 'bert'; features come from videomae, vjepa2, clip"),
    ):  # fmt: skip
        with pytest.raises(BackendError, match=said):
            load(tmp_path / name, "cpu")
    with pytest.raises(CheckpointError, match=r"not a folder with config\.json"):
        load(tmp_path / "empty", "cpu")


def test_a_network_that_gives_no_features_of_clips_is_named(tmp_path: Path) -> None:
    torch.jit.script(nn.Identity()).save(str(tmp_path / "same.pt"))
    torch.jit.script(nn.Conv3d(3, 4, (9, 1, 1))).save(str(tmp_path / "long.pt"))
    with pytest.raises(ShapeError, match=r"same.pt: gives \[2, 3, 4, 32, 32\] for 2 clips"):
        load(tmp_path / "same.pt", "cpu", run_torchscript=True)(clips())
    with pytest.raises(ShapeError, match=r"long.pt: cannot take clips \[2, 3, 4, 32, 32\]"):
        load(tmp_path / "long.pt", "cpu", run_torchscript=True)(clips())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """VideoMAE and CLIP of random weights, as transformers saves them."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("transformers")
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 32,
        "patch_size": 16,
    }  # fmt: skip
    mae = transformers.VideoMAEModel(transformers.VideoMAEConfig(num_frames=4, tubelet_size=2, **sizes))
    vision = transformers.CLIPVisionConfig(projection_dim=8, **sizes)
    clip = transformers.CLIPVisionModelWithProjection(vision)
    jepa = transformers.VJEPA2Model(
        transformers.VJEPA2Config(
            crop_size=32, frames_per_clip=4, hidden_size=24, num_attention_heads=2, num_hidden_layers=1,
            pred_hidden_size=24, pred_num_attention_heads=2, pred_num_hidden_layers=1, num_pooler_layers=1,
        )
    )  # fmt: skip
    jepa.save_pretrained(folder / "jepa")
    mae.save_pretrained(folder / "mae")
    clip.save_pretrained(folder / "clip")
    about = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
    (folder / "clip" / "preprocessor_config.json").write_text(json.dumps(about))
    return {name: folder / name for name in ("mae", "jepa", "clip")}


def test_videomae_is_that_of_transformers(folders: dict[str, Path]) -> None:
    import transformers

    mean, deviation = (torch.tensor(values) for values in IMAGENET)
    pixels = ((clips().float() / 255 - mean) / deviation).permute(0, 1, 4, 2, 3)
    with torch.inference_mode():
        expected = transformers.VideoMAEModel.from_pretrained(folders["mae"]).eval()(pixel_values=pixels)
        found = load(folders["mae"], "cpu")(clips())
    torch.testing.assert_close(found, expected.last_hidden_state.mean(1), atol=1e-4, rtol=1e-4)
    with pytest.raises(ShapeError, match="takes clips of 4 frames, not 5; give --frames"):
        load(folders["mae"], "cpu")(clips(frames=5))


def test_vjepa2_is_that_of_transformers(folders: dict[str, Path]) -> None:
    import transformers

    mean, deviation = (torch.tensor(values) for values in IMAGENET)
    pixels = ((clips().float() / 255 - mean) / deviation).permute(0, 1, 4, 2, 3)
    with torch.inference_mode():
        model = transformers.VJEPA2Model.from_pretrained(folders["jepa"]).eval()
        expected = model.get_vision_features(pixel_values_videos=pixels)
        found = load(folders["jepa"], "cpu")(clips())
    torch.testing.assert_close(found, expected.mean(1), atol=1e-4, rtol=1e-4)
    assert load(folders["jepa"], "cpu")(clips(frames=6, side=48)).shape == (2, 24)
    with pytest.raises(ShapeError, match="takes frames by 2, not 5; give --frames"):
        load(folders["jepa"], "cpu")(clips(frames=5))


def test_clip_is_that_of_transformers_averaged_over_frames(folders: dict[str, Path]) -> None:
    import transformers

    pixels = (clips().float() / 255 - torch.tensor([0.5, 0.4, 0.3])) / torch.tensor([0.2, 0.3, 0.4])
    model = transformers.CLIPVisionModelWithProjection.from_pretrained(folders["clip"]).eval()
    with torch.inference_mode():
        frames = [model(pixel_values=clip.permute(0, 3, 1, 2)).image_embeds.mean(0) for clip in pixels]
        found = load(folders["clip"], "cpu")(clips())
    torch.testing.assert_close(found, torch.stack(frames), atol=1e-4, rtol=1e-4)
    assert load(folders["clip"], "cpu")(clips(side=48)).shape == (2, 8)


def test_a_folder_that_lacks_weights_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folders["mae"] / "model.safetensors")
    lost = next(name for name in weights if "query" in name)
    (tmp_path / "config.json").write_text((folders["mae"] / "config.json").read_text())
    save_file({name: value for name, value in weights.items() if name != lost}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="lacks weights of VideoMAEModel"):
        load(tmp_path, "cpu")
