"""I3D, V-JEPA and LPIPS against what the originals gave for the same weights and pixels, and what is refused.

``references.safetensors`` was made outside of this repository, by the originals' own code, in fp32 on a CPU: every
tensor of their state dicts was filled by `filled`, and they were given the pixels that the tests draw.

    i3d          [1, 400]   InceptionI3d of cd-fvd 0.1.1, which is VideoGPT's, after its preprocess_i3d
    vjepa        [2, 192]   vjepa 0.1.2: VisionTransformer of 32 pixels, 4 frames and 2 blocks, the mean of its tokens
    jedi         [2, 192]   the pooler of its AttentiveClassifier, on those tokens, as videojedi 1.1.0 takes it
    lpips_alex,  [2]        lpips 0.1.4, LPIPS(net="alex") and LPIPS(net="vgg"), version 0.1
    lpips_vgg
"""

import math
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vpoet.errors import BackendError, CheckpointError, ShapeError
from vpoet.evaluate.compare.each import LPIPSPairs
from vpoet.evaluate.compare.networks import load
from vpoet.evaluate.compare.state_dicts import load_lpips
from vpoet.files import fingerprint
from vpoet.nn.i3d import I3D
from vpoet.nn.lpips import ALEX, TAKEN, VGG

CPU = torch.device("cpu")
REFERENCES = Path(__file__).with_name("references.safetensors")


def filled(name: str, shape: Iterable[int]) -> Tensor:
    """Weights that name and shape decide, of a size that keeps activations near 1."""
    shape = tuple(shape)
    random = np.random.default_rng(zlib.crc32(name.encode())).random(shape)
    if len(shape) > 1:
        return torch.from_numpy((random - 0.5) * math.sqrt(24 / math.prod(shape[1:]))).float()
    scale = name.endswith(("weight", "running_var"))
    return torch.from_numpy(np.asarray(random + 0.5 if scale else random - 0.5)).float()


def pixels(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


@pytest.fixture(scope="module")
def references() -> dict[str, Tensor]:
    return load_file(REFERENCES)


@pytest.fixture(scope="module")
def i3d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("i3d") / "i3d.pt"
    state = {name: value.to(torch.float32) for name, value in I3D().state_dict().items()}
    torch.save({name: filled(name, value.shape) for name, value in state.items()}, file)
    return file


def test_i3ds_features_are_the_originals(i3d: Path, references: dict[str, Tensor]) -> None:
    network = load(i3d, "cpu")
    assert network.sha256 == fingerprint(i3d)["sha256"]
    found = network(pixels(0, 2, 10, 40, 48, 3)[:1])
    torch.testing.assert_close(found, references["i3d"], atol=1e-4, rtol=1e-4)
    assert "[-1, 1]" in network.input
    assert "[-0.5, 0.5]" in load(i3d, "cpu", reach=0.5).input
    with pytest.raises(ShapeError, match="I3D takes clips of 9 frames or more, not 8"):
        network(pixels(0, 1, 8, 16, 16, 3))


def test_i3d_that_is_not_whole_is_refused(i3d: Path, tmp_path: Path) -> None:
    state = torch.load(i3d, weights_only=True)
    del state["Mixed_4b.b0.conv3d.weight"]
    torch.save(state, tmp_path / "lacks.pt")
    with pytest.raises(CheckpointError, match=r"lacks\.pt: not the weights of I3D: .*Mixed_4b\.b0\.conv3d\.weight"):
        load(tmp_path / "lacks.pt", "cpu")


WIDTH, HIDDEN = 192, 768
MLP = {"mlp.fc1": (HIDDEN, WIDTH), "mlp.fc2": (WIDTH, HIDDEN), "norm1": (WIDTH,), "norm2": (WIDTH,)}


def weights(prefix: str, layers: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    names = [(f"{prefix}{name}", shape) for name, shape in layers.items()]
    return {
        **{f"{name}.weight": filled(f"{name}.weight", shape) for name, shape in names},
        **{f"{name}.bias": filled(f"{name}.bias", shape[:1]) for name, shape in names},
    }


@pytest.fixture
def vjepa(tmp_path: Path) -> Path:
    """A folder as JEDi's: a checkpoint of the encoder, and one of the probe."""
    attention = {"attn.qkv": (3 * WIDTH, WIDTH), "attn.proj": (WIDTH, WIDTH)}
    encoder = weights("", {"patch_embed.proj": (WIDTH, 3, 2, 16, 16), "norm": (WIDTH,)})
    encoder["pos_embed"] = filled("pos_embed", (1, 8, WIDTH))
    for block in range(2):
        encoder |= weights(f"blocks.{block}.", MLP | attention)
    cross = {"xattn.q": (WIDTH, WIDTH), "xattn.kv": (2 * WIDTH, WIDTH), "xattn.proj": (WIDTH, WIDTH)}
    probe = weights("pooler.cross_attention_block.", MLP | cross) | weights("", {"linear": (5, WIDTH)})
    probe["pooler.query_tokens"] = filled("pooler.query_tokens", (1, 1, WIDTH))
    folder = tmp_path / "vjepa"
    folder.mkdir()
    whole = {f"module.backbone.{name}": value for name, value in encoder.items()}
    other = {name: value + 1 for name, value in whole.items()}
    torch.save({"encoder": other, "target_encoder": whole, "epoch": 3}, folder / "encoder.pth.tar")
    torch.save({"classifier": {f"module.{name}": value for name, value in probe.items()}}, folder / "probe.pth.tar")
    return folder


def test_vjepas_features_are_the_originals_with_the_probe_and_without(
    vjepa: Path, references: dict[str, Tensor]
) -> None:
    clips = pixels(0, 2, 4, 32, 32, 3)
    probed, alone = load(vjepa, "cpu"), load(vjepa / "encoder.pth.tar", "cpu")
    torch.testing.assert_close(probed(clips), references["jedi"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(alone(clips), references["vjepa"], atol=1e-4, rtol=1e-4)
    assert "attentive probe" in probed.input
    assert "mean over tokens" in alone.input
    assert probed.sha256 != alone.sha256
    assert probed(pixels(0, 1, 4, 40, 48, 3)).shape == (1, WIDTH)
    with pytest.raises(ShapeError, match="takes no clips of 5 frames"):
        probed(pixels(0, 1, 5, 32, 32, 3))


def lpips(kind: str, package: bool = False) -> dict[str, Tensor]:
    """The convolutions as torchvision names them, or as the package does, and the package's weights of channels."""
    found, inward, slices = {}, 3, 1
    for layer in VGG if kind == "vgg" else ALEX:
        if layer is None:
            continue
        number, outward, kernel, _ = layer
        for name, shape in (("weight", (outward, inward, kernel, kernel)), ("bias", (outward,))):
            where = f"net.slice{slices}" if package else "features"
            found[f"{where}.{number}.{name}"] = filled(f"features.{number}.{name}", shape)
        if number in TAKEN[kind]:
            lin = f"lin{slices - 1}.model.1.weight"
            found[lin] = filled(lin, (1, outward, 1, 1)).abs()
            slices += 1
        inward = outward
    return found


@pytest.mark.parametrize("kind", ["alex", "vgg"])
def test_lpips_is_the_originals(kind: str, references: dict[str, Tensor], tmp_path: Path) -> None:
    first = lpips(kind)
    parts = tmp_path / "two"
    parts.mkdir()
    torch.save({name: value for name, value in first.items() if name.startswith("features")}, parts / "net.pth")
    save_file({name: value for name, value in first.items() if name.startswith("lin")}, parts / "lin.safetensors")
    torch.save(lpips(kind, package=True), tmp_path / "one.pth")
    a, b = (pixels(seed, 2, 3, 64, 80) for seed in (0, 1))
    for path in (parts, tmp_path / "one.pth"):
        network, _ = load_lpips(path, CPU)
        found = network(a.float() / 127.5 - 1, b.float() / 127.5 - 1)
        torch.testing.assert_close(found, references[f"lpips_{kind}"].flatten(), atol=1e-5, rtol=1e-4)
    measure = LPIPSPairs(parts, CPU)
    frames = [each.permute(0, 2, 3, 1).contiguous().numpy() for each in (a, b)]
    assert measure(*frames) == pytest.approx(float(references[f"lpips_{kind}"].mean()), rel=1e-4)
    assert measure(frames[0], frames[0]) == 0
    with pytest.raises(ShapeError, match="pictures of 4x4 are too small"):
        measure(frames[0][:, :4, :4], frames[1][:, :4, :4])


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pt")
    torch.save({"step": 3, "fc.weight": torch.zeros(2, 2)}, tmp_path / "mixed.pt")
    (tmp_path / "short.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    with pytest.raises(BackendError, match=r"other\.pt: weights of no network that is known \(fc\.weight"):
        load(tmp_path / "other.pt", "cpu")
    with pytest.raises(CheckpointError, match=r"mixed\.pt: not a state dict"):
        load(tmp_path / "mixed.pt", "cpu")
    with pytest.raises(CheckpointError, match=r"short\.safetensors: neither TorchScript nor a state dict"):
        load(tmp_path / "short.safetensors", "cpu")
    with pytest.raises(CheckpointError, match=r"other\.pt: not the weights of LPIPS"):
        load_lpips(tmp_path / "other.pt", CPU)
    with pytest.raises(BackendError, match="no such weights"):
        load_lpips(tmp_path / "nowhere.pt", CPU)
