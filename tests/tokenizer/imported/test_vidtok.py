"""VidTok here is VidTok there: codes and pixels of Microsoft's own code, at small widths with weights made from names.

vidtok.safetensors holds what github.com/microsoft/VidTok (commit d6ad92d, networks as its configs say, but ch=4 and
num_res_blocks=1) computes in fp32 with the weights and frames below: codes, every seventh value of the decoded clip and
of its decoded first frame, and, as metadata, name and shape of each tensor of its state dict.
"""

import json
import pickle
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from vpoet.errors import CheckpointError, ConfigError
from vpoet.media.video import Video
from vpoet.tokenizer.imported import vidtok_files
from vpoet.tokenizer.imported.archive import read_tensors
from vpoet.tokenizer.imported.vidtok import VidTokConfig
from vpoet.tokenizer.imported.vidtok_files import PRESETS, preset
from vpoet.tokenizer.pixels import to_float
from vpoet.tokenizer.video import VideoTokenizer

FIXTURE = Path(__file__).parent / "vidtok.safetensors"
PROGRAM = "tokenizers/import_tokenizer.py"
SMALL = "vidtok_fsq_causal_488_4096"
AHEAD = "vidtok_fsq_causal_888_32768_v1_1"


def weight(name, shape):
    noise = np.random.RandomState(zlib.crc32(name.encode())).uniform(-1, 1, size=shape).astype(np.float32)
    if len(shape) < 2:
        return torch.from_numpy(noise * 0.5 + ("norm" in name and name.endswith("weight")))
    gain = {"encoder.conv_out": 2.0, "decoder.conv_out": 0.3}.get(name.removesuffix(".conv.weight"), 1.0)
    return torch.from_numpy(noise * np.float32(gain * (3 / np.prod(shape[1:])) ** 0.5))


def published(name):
    """A state dict as Microsoft publishes it."""
    with safe_open(FIXTURE, framework="pt") as file:
        return {
            tensor: weight(tensor, shape) for tensor, shape in json.loads(file.metadata()[f"{name}.tensors"]).items()
        }


def built(name):
    return vidtok_files.network(published(name), preset(Path(f"{name}.ckpt"), None)).eval()


def clip(name):
    r, s, _ = preset(Path("x"), name).strides
    return np.random.RandomState(7).randint(0, 256, size=(1 + 2 * r, 2 * s, 3 * s, 3)).astype(np.uint8)


def expected(name):
    with safe_open(FIXTURE, framework="pt") as file:
        return file.get_tensor(name)


@pytest.mark.parametrize("name", PRESETS)
@torch.no_grad()
def test_codes_and_pixels_are_those_of_microsofts_own_code(name):
    network, video = built(name), to_float(clip(name)[None])
    codes = network.encode(video)
    assert torch.equal(codes[0], expected(f"{name}.codes").long())
    assert len(codes.unique()) > 7, "a fixture of one code would prove nothing"
    pixels = network.decode(codes)
    assert pixels.shape == video.shape
    assert (pixels[0].flatten()[::7] - expected(f"{name}.pixels")).abs().max() < 1e-4
    image = network.encode(video[:, :, :1])
    assert torch.equal(image, codes[:, :1]), "an image is the first frame of a clip"
    drawn = network.decode(image)
    assert (drawn[0].flatten()[::7] - expected(f"{name}.image_pixels")).abs().max() < 1e-4
    assert (drawn - pixels[:, :, :1]).abs().max() < 1e-4


@pytest.mark.parametrize("name", [SMALL, AHEAD])
def test_chunks_give_what_the_whole_clip_gives(name):
    tokenizer, frames = VideoTokenizer(built(name)), clip(name)
    r = tokenizer.stride[0]
    frames = np.concatenate([frames, frames[::-1][1 : 1 + r]])  # four cells
    whole = tokenizer.encode_batch(frames[None])[0]
    drawn = tokenizer.decode_batch(whole[None])[0].astype(int)
    for cells in (1, 2, 3):
        assert np.array_equal(tokenizer.encode(frames, chunk_cells=cells), whole)
        assert abs(tokenizer.decode(whole, chunk_cells=cells).astype(int) - drawn).max() <= 1  # a rounding to bytes
    pieces = [len(piece) for piece in tokenizer.decode_stream(whole[at : at + 1] for at in range(4))]
    assert pieces == ([1, 1, r, 2 * r - 1] if tokenizer.model.sees_ahead else [1, r, r, r])


@pytest.mark.parametrize("name", [SMALL, AHEAD])
def test_who_sees_what_in_time(name):
    """No cell sees a later frame. A frame is drawn from the cells up to its own, and in 1.1 from one cell more."""
    network = built(name)
    r, s, _ = network.stride
    video = torch.zeros(1, 3, 1 + 2 * r, 2 * s, 2 * s, requires_grad=True)
    network.vectors(video)[:, 1].sum().backward()
    seen = video.grad.abs().amax((0, 1, 3, 4))
    assert (seen[: 1 + r] > 0).all()
    assert (seen[1 + r :] == 0).all()
    points = torch.randn(1, 4, 2, 2, network.config.digits, generator=torch.Generator().manual_seed(0))
    points.requires_grad = True
    network.draw(points)[:, :, r].sum().backward()  # the last frame of the second cell
    cells = points.grad.abs().amax((0, 2, 3, 4)) > 0
    assert cells.tolist() == [True, True, network.sees_ahead, False]


def test_a_checkpoint_is_imported_with_its_licence_and_a_table_of_the_users_clips(tmp_path, program):
    state = published(SMALL) | {"loss.discriminator.main.0.weight": torch.ones(2)}
    torch.save({"state_dict": state, "epoch": 3, "global_step": 7}, tmp_path / f"{SMALL}.ckpt")
    (tmp_path / "clips" / "deep").mkdir(parents=True)
    frames = np.random.RandomState(0).randint(0, 256, size=(11, 24, 37, 3)).astype(np.uint8)
    Video(frames, 8).write(tmp_path / "clips" / "a.mp4")
    Video(frames[:1], 0).write(tmp_path / "clips" / "deep" / "b.png")
    Video(frames[:1, :7], 0).write(tmp_path / "clips" / "flat.png")
    (tmp_path / "clips" / "broken.mp4").write_bytes(b"no video")
    out = tmp_path / "T"
    status, said, err = program(
        PROGRAM, "vidtok", tmp_path / f"{SMALL}.ckpt", "--clips", tmp_path / "clips", "--out", out, "--json"
    )
    assert status == 0, err
    facts = json.loads(said)
    assert "1 tensors of the training's loss" in err
    assert (facts["strides"], facts["license"], facts["tensors"]) == ("4x8x8", "MIT", len(state) - 1)
    assert [each["clip"] for each in facts["round_trip"]["per_clip"]] == ["a.mp4", "deep/b.png"]
    assert 0 < facts["round_trip"]["psnr"] < 30
    assert "1 smaller than a cell" in err
    assert "1 cannot be decoded" in err
    card = (out / "card.md").read_text()
    assert "**Licence of the weights: MIT**" in card
    assert f"| mean of 2 | {facts['round_trip']['psnr']:.2f} |" in card
    loaded = VideoTokenizer.load(out)
    assert (loaded.hash, loaded.levels) == (facts["hash"], (8, 8, 8, 8))
    assert np.array_equal(loaded.encode(clip(SMALL)), expected(f"{SMALL}.codes").numpy())
    assert "license: MIT" in (out / "config.yaml").read_text()
    (tmp_path / "none").mkdir()
    for folder, why in ((tmp_path / "none", "no video, image or .tar in this folder"), (out, "would be written over")):
        status, _, err = program(PROGRAM, "vidtok", tmp_path / f"{SMALL}.ckpt", "--clips", folder, "--out", out)
        assert status != 0
        assert why in err


def test_every_tensor_that_is_missing_renamed_or_too_much_is_named():
    def refused(change):
        tensors = published(SMALL)
        change(tensors)
        with pytest.raises(CheckpointError) as caught:
            vidtok_files.network(tensors, preset(Path("x"), SMALL))
        return str(caught.value)

    name = "decoder.mid.block_1.conv1.conv.weight"
    assert f"1 missing: {name}" in refused(lambda tensors: tensors.pop(name))
    renamed = refused(lambda tensors: tensors.update({name.replace("block_1", "block_3"): tensors.pop(name)}))
    assert f"{name} (is it decoder.mid.block_3.conv1.conv.weight?)" in renamed
    assert "1 unknown: adapter.weight" in refused(lambda tensors: tensors.update({"adapter.weight": torch.ones(1)}))
    assert f"{name} [2, 2, 3, 3, 3] instead of [16, 16, 3, 3, 3]" in refused(
        lambda tensors: tensors.update({name: torch.ones(2, 2, 3, 3, 3)})
    )
    assert "a causal VidTok: decoder.conv_in.conv.weight is missing" in refused(lambda tensors: tensors.clear())


def test_another_preset_than_the_weights_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="these tensors are of a 4x8x8 with 4096 codes"):
        vidtok_files.network(published(SMALL), preset(Path("x"), "vidtok_fsq_causal_488_32768"))
    with pytest.raises(ConfigError, match="these tensors are of a 4x8x8 with 4096 codes"):
        vidtok_files.network(published(SMALL), preset(Path("x"), "vidtok_fsq_causal_41616_262144"))
    assert preset(tmp_path / f"{AHEAD}.ckpt", None) == preset(tmp_path / "renamed.ckpt", AHEAD)
    assert preset(tmp_path / f"{AHEAD}.ckpt", None)[1:] == ((8, 8, 8), 32768, "1.1")
    with pytest.raises(ConfigError, match=f"is named {AHEAD}; give --preset {AHEAD}"):
        preset(tmp_path / f"{AHEAD}.ckpt", SMALL)
    for name, why in (
        ("renamed", "its name does not say it"),
        ("vidtok_kl_causal_488_4chn", "vidtok_kl_causal_488_4chn has no codes"),
        ("vidtok_fsq_noncausal_488_262144", "sees all frames of a clip at once"),
        ("vidtok_fsq_causal_488_999", "is none that VidTok has"),
    ):
        with pytest.raises(ConfigError, match=f"give --preset, one of vidtok_fsq_causal_488_4096, .*{why}"):
            preset(tmp_path / f"{name}.ckpt", None)


@pytest.mark.parametrize(
    "change", [{"version": "2"}, {"digits": 3}, {"halved": [3]}, {"doubled": [1]}, {"widths": [4]}]
)
def test_a_config_of_no_vidtok_is_refused(change):
    with pytest.raises(ConfigError):
        VidTokConfig(**change)


class Trap:
    """Pickled, it makes whoever unpickles it create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_malicious_or_truncated_checkpoint_executes_nothing(tmp_path, program):
    sprung, path = tmp_path / "sprung", tmp_path / f"{SMALL}.ckpt"
    hostile = {"state_dict": published(SMALL), "callbacks": Trap(sprung)}
    torch.save(hostile, path)
    torch.load(path, weights_only=False)
    assert sprung.exists(), "the trap works where nobody guards"
    sprung.unlink()
    status, _, err = program(PROGRAM, "vidtok", path, "--out", tmp_path / "T")
    assert status != 0
    assert f"{SMALL}.ckpt: neither" in err
    assert "it names " in err
    path.write_bytes(pickle.dumps(hostile, protocol=2))
    with pytest.raises(CheckpointError, match=r"ckpt: neither .*it names "):
        read_tensors(path, vidtok_files.PART)
    torch.save({"state_dict": published(SMALL)}, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="not whole"):
        read_tensors(path, vidtok_files.PART)
    torch.save({"state_dict": {"a": 5}}, path)
    with pytest.raises(CheckpointError, match="it has no state_dict of tensors alone"):
        read_tensors(path, vidtok_files.PART)
    assert not sprung.exists()
    assert not (tmp_path / "T").exists()


def test_an_option_of_another_family_is_refused(tmp_path, program):
    status, _, err = program(PROGRAM, "vidtok", tmp_path / "x.ckpt", "--strides=4x8x8", "--out", tmp_path / "T")
    assert status != 0
    assert "--strides does not go with vidtok; vidtok takes --preset" in err
    status, _, err = program(PROGRAM, "magvit", tmp_path / "x.ckpt", "--out", tmp_path / "T")
    assert status != 0
    assert "no tokenizers of 'magvit' can be imported; those of cosmos, vidtok, emu3 can" in err
