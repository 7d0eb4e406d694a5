"""Cosmos here is Cosmos there: codes and pixels of NVIDIA's own code, at small widths with weights made from names.

cosmos.safetensors holds what github.com/NVIDIA/Cosmos-Tokenizer (commit 3584ae7, networks as `discrete_video` says, but
channels=4, z_channels=8, num_res_blocks=1, of 8x16x16 2, and patch_size=2 for 4x8x8) computes in fp32 with the weights
and frames below: codes, every seventh value of the decoded clip and of its decoded first frame, and, as metadata, name
and shape of each tensor of its state dict.
"""

import json
import pickle
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from vpoet.errors import CheckpointError, ConfigError
from vpoet.tokenizer.imported import cosmos_files
from vpoet.tokenizer.imported.archive import read_tensors
from vpoet.tokenizer.imported.cosmos import STRIDES
from vpoet.tokenizer.imported.cosmos_layers import haar, inverse_haar
from vpoet.tokenizer.pixels import to_float
from vpoet.tokenizer.video import VideoTokenizer

FIXTURE = Path(__file__).parent / "cosmos.safetensors"
SIZES = {"4x8x8": (17, 24, 32), "8x8x8": (17, 24, 32), "8x16x16": (17, 32, 48)}
PROGRAM = "tokenizers/import_tokenizer.py"
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


def weight(name, shape):
    noise = np.random.RandomState(zlib.crc32(name.encode())).uniform(-1, 1, size=shape).astype(np.float32)
    if len(shape) < 2:
        return torch.from_numpy(noise * 0.5 + ("norm" in name and name.endswith("weight")))
    gain = {"quant_conv": 3.0, "decoder.conv_out.1": 0.1}.get(name.removesuffix(".conv3d.weight"), 1.0)
    return torch.from_numpy(noise * np.float32(gain * (3 / np.prod(shape[1:])) ** 0.5))


def published(stride):
    """A state dict as NVIDIA publishes it: what no pass reads, too."""
    with safe_open(FIXTURE, framework="pt") as file:
        return {name: weight(name, shape) for name, shape in json.loads(file.metadata()[f"{stride}.tensors"]).items()}


def clip(stride):
    return np.random.RandomState(7).randint(0, 256, size=(*SIZES[stride], 3)).astype(np.uint8)


def expected(name):
    with safe_open(FIXTURE, framework="pt") as file:
        return file.get_tensor(name)


def save_script(tensors, path):
    """A TorchScript archive with these tensors, in modules as their dotted names say."""
    whole = nn.Module()
    for name, tensor in tensors.items():
        *way, last = name.split(".")
        place = whole
        for part in way:
            if not hasattr(place, part):
                place.add_module(part, nn.Module())
            place = getattr(place, part)
        place.register_buffer(last, tensor)
    torch.jit.save(torch.jit.script(whole), path)


@pytest.fixture(scope="module", params=STRIDES)
def stride(request):
    return request.param


@pytest.fixture(scope="module")
def network(stride):
    return cosmos_files.network(published(stride), stride).eval()


@torch.no_grad()
def test_codes_and_pixels_are_those_of_nvidias_own_code(stride, network):
    video = to_float(clip(stride)[None])
    codes = network.encode(video)
    assert torch.equal(codes[0], expected(f"{stride}.codes").long())
    assert len(codes.unique()) > 7, "a fixture of one code would prove nothing"
    pixels = network.decode(codes)
    assert pixels.shape == video.shape
    assert (pixels[0].flatten()[::7] - expected(f"{stride}.pixels")).abs().max() < 1e-4


@torch.no_grad()
def test_an_image_is_the_first_frame_of_a_clip(stride, network):
    video = to_float(clip(stride)[None])
    image = network.encode(video[:, :, :1])
    assert torch.equal(image, network.encode(video)[:, :1])
    drawn = network.decode(image)
    assert (drawn[0].flatten()[::7] - expected(f"{stride}.image_pixels")).abs().max() < 1e-4
    assert (drawn - network.decode(network.encode(video))[:, :, :1]).abs().max() < 1e-4


def test_chunks_give_what_the_whole_clip_gives(stride, network):
    tokenizer = VideoTokenizer(network)
    frames = clip(stride)
    whole = tokenizer.encode_batch(frames[None])[0]
    for cells in (1, 2):
        assert np.array_equal(tokenizer.encode(frames, chunk_cells=cells), whole)
        drawn = tokenizer.decode(whole, chunk_cells=cells).astype(int)
        assert abs(drawn - tokenizer.decode_batch(whole[None])[0]).max() <= 1  # a rounding to bytes


def test_no_frame_is_seen_before_it_is_there(network):
    r, s, _ = network.stride
    video = torch.zeros(1, 3, 1 + 2 * r, 2 * s, 2 * s, requires_grad=True)
    network.vectors(video)[:, 1].sum().backward()
    by_frame = video.grad.abs().amax((0, 1, 3, 4))
    assert (by_frame[: 1 + r] > 0).all()
    assert (by_frame[1 + r :] == 0).all()


def test_the_wavelets_have_an_inverse():
    x = torch.randn(1, 3, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    assert haar(x).shape == (1, 24, 2, 3, 4)
    assert (inverse_haar(haar(x)) - x).abs().max() < 1e-6


def test_scripts_state_dicts_and_halves_are_one_tokenizer(tmp_path, program):
    """autoencoder.jit, the pair of encoder.jit and decoder.jit, and model.pt."""
    state = published("8x16x16")
    constants = {
        "quantizer._levels": torch.tensor([8, 8, 8, 5, 5, 5]),
        "encoder.patcher3d.wavelets": torch.full((2,), 0.5**0.5).bfloat16(),
    }
    halves = {"encoder.jit": ("encoder.", "quant_conv.", "quantizer."), "decoder.jit": ("decoder.", "post_quant_conv.")}
    ways = [tmp_path / way / "Cosmos-Tokenize1-DV8x16x16-720p" for way in ("whole", "halves", "state")]
    for way in ways:
        way.mkdir(parents=True)
    save_script(state | constants, ways[0] / "autoencoder.jit")
    for name, prefixes in halves.items():
        part = {key: value for key, value in (state | constants).items() if key.startswith(prefixes)}
        if name == "decoder.jit":
            part["inv_quant.quantizer._levels"] = constants["quantizer._levels"]
        save_script(part, ways[1] / name)
    torch.save(state, ways[2] / "model.pt")
    hashes = set()
    for way in ways:
        status, out, err = program(PROGRAM, "cosmos", way, "--out", way / "T", "--json")
        assert status == 0, err
        said = json.loads(out)
        hashes.add(said["hash"])
        assert (said["strides"], said["license"]) == ("8x16x16", "NVIDIA Open Model License")
        assert "NVIDIA Open Model License" in (way / "T" / "card.md").read_text()
        assert sorted(path.name for path in (way / "T").iterdir() if not path.name.startswith(".")) == [
            "card.md", "config.yaml", "model.safetensors",
        ]  # fmt: skip
    assert len(hashes) == 1
    loaded = VideoTokenizer.load(ways[0] / "T")
    assert (loaded.hash, loaded.stride, loaded.levels) == (hashes.pop(), (8, 16, 16), (8, 8, 8, 5, 5, 5))
    assert np.array_equal(loaded.encode(clip("8x16x16")), expected("8x16x16.codes").numpy())
    loaded.save(tmp_path / "again")
    assert "NVIDIA Open Model License" in (tmp_path / "again" / "config.yaml").read_text(), "it goes with every copy"


def test_every_tensor_that_is_missing_renamed_or_too_much_is_named():
    def refused(change):
        tensors = published("8x8x8")
        change(tensors)
        with pytest.raises(CheckpointError) as caught:
            cosmos_files.network(tensors, "8x8x8")
        return str(caught.value)

    name = "decoder.mid.block_1.conv1.0.conv3d.weight"
    assert f"1 missing: {name}" in refused(lambda tensors: tensors.pop(name))
    renamed = refused(lambda tensors: tensors.update({name.replace("block_1", "block_3"): tensors.pop(name)}))
    assert f"{name} (is it decoder.mid.block_3.conv1.0.conv3d.weight?)" in renamed
    assert "1 unknown: decoder.mid.block_3.conv1.0.conv3d.weight" in renamed
    assert "1 unknown: adapter.weight" in refused(lambda tensors: tensors.update({"adapter.weight": torch.ones(1)}))
    for stray in ("encoder.down.1.downsample.conv9.conv3d.bias", "encoder.down.7.downsample.conv1.conv3d.bias"):
        assert f"1 unknown: {stray}" in refused(lambda tensors, stray=stray: tensors.update({stray: torch.ones(1)}))
    assert f"{name} [2, 2, 1, 3, 3] instead of [16, 16, 1, 3, 3]" in refused(
        lambda tensors: tensors.update({name: torch.ones(2, 2, 1, 3, 3)})
    )
    assert "encoder.conv_in.0.conv3d.weight is missing" in refused(lambda tensors: tensors.clear())
    assert "quantizer._levels" in refused(lambda tensors: tensors.update({"quantizer._levels": torch.tensor([8] * 6)}))


def test_other_strides_than_the_weights_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="2x2x2 pixels"):
        cosmos_files.network(published("4x8x8"), "8x16x16")
    folder = tmp_path / "Cosmos-Tokenize1-DV8x16x16-720p"
    assert cosmos_files.strides(folder, None) == cosmos_files.strides(folder / "model.pt", "8x16x16") == "8x16x16"
    with pytest.raises(ConfigError, match="is named DV8x16x16"):
        cosmos_files.strides(folder, "8x8x8")
    with pytest.raises(ConfigError, match="its name does not say"):
        cosmos_files.strides(tmp_path / "weights", None)
    with pytest.raises(ConfigError, match="CV8x8x8 is not a tokenizer of video into codes"):
        cosmos_files.strides(tmp_path / "Cosmos-Tokenize1-CV8x8x8-720p", "8x8x8")
    with pytest.raises(ConfigError, match="16x8x8 is none that Cosmos has"):
        cosmos_files.strides(tmp_path / "weights", "16x8x8")


def test_two_halves_of_two_tokenizers_are_refused(tmp_path):
    for name, levels in (("encoder.jit", [8, 8]), ("decoder.jit", [5, 5])):
        save_script({"quantizer._levels": torch.tensor(levels)}, tmp_path / name)
    with pytest.raises(CheckpointError, match=r"decoder\.jit: quantizer\._levels is another"):
        cosmos_files.gather(cosmos_files.find(tmp_path))
    with pytest.raises(CheckpointError, match=r"it has no autoencoder\.jit, or encoder\.jit and decoder\.jit"):
        cosmos_files.find(tmp_path / "..")


@pytest.mark.parametrize("kind", ["script", "state"])
def test_truncated_and_damaged_files_are_refused_by_name(tmp_path, kind):
    path = tmp_path / f"weights-{kind}"
    tensors = {"a.weight": torch.arange(5000.0), "b": torch.ones(3, dtype=torch.bfloat16)}
    save_script(tensors, path) if kind == "script" else torch.save(tensors, path)
    read = read_tensors(path)
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    for damaged in (b"", whole[:100], whole[:middle], whole[:-30], *([flipped] if kind == "script" else [])):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=f"weights-{kind}: neither"):
            read_tensors(path)


class Trap:
    """Pickled, it makes whoever unpickles it create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_malicious_pickle_executes_nothing(tmp_path):
    sprung = tmp_path / "sprung"
    trap = pickle.dumps({"weight": Trap(sprung)}, protocol=2)
    pickle.loads(trap)
    assert sprung.exists(), "the trap works where nobody guards"
    sprung.unlink()
    (tmp_path / "plain.pt").write_bytes(trap)
    torch.save({"weight": Trap(sprung)}, tmp_path / "zipped.pt")
    save_script({"a": torch.ones(2)}, tmp_path / "good.jit")
    with zipfile.ZipFile(tmp_path / "good.jit") as good, zipfile.ZipFile(tmp_path / "script.jit", "w") as bad:
        for name in good.namelist():
            bad.writestr(name, trap if name.endswith("/data.pkl") else good.read(name))
    for name in ("plain.pt", "zipped.pt", "script.jit"):
        with pytest.raises(CheckpointError, match=name):
            read_tensors(tmp_path / name)
    assert not sprung.exists()


def test_a_checkpoint_with_more_than_tensors_is_told_what_it_holds(tmp_path):
    torch.save({"model": {"a": torch.ones(1)}, "step": 5}, tmp_path / "run.pt")
    with pytest.raises(CheckpointError, match=r"a mapping with model, step; give the \.jit files"):
        read_tensors(tmp_path / "run.pt")


def test_a_config_of_an_unknown_family_is_refused(tmp_path, network):
    VideoTokenizer(network).save(tmp_path)
    written = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(written.replace("family: cosmos", "family: comsos"))
    with pytest.raises(CheckpointError, match="family is 'comsos', and the imported tokenizers are cosmos"):
        VideoTokenizer.load(tmp_path)
