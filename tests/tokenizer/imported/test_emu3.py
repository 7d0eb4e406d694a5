"""Emu3 here is Emu3 in transformers: its own class, with random weights of small widths, gives codes and pixels."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vpoet.errors import BackendError, CheckpointError, ConfigError, DataError, PromptError
from vpoet.generate.asks.table import expect_whole
from vpoet.generate.request import Request
from vpoet.tokenizer.imported import emu3_files
from vpoet.tokenizer.imported.emu3 import Emu3Config
from vpoet.tokenizer.pixels import to_float, whole_cells
from vpoet.tokenizer.video import VideoTokenizer

transformers = pytest.importorskip("transformers")
PROGRAM = "tokenizers/import_tokenizer.py"
MEAN, DEVIATION = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    model = transformers.Emu3VQVAE(
        transformers.Emu3VQVAEConfig(
            codebook_size=512, base_channels=32, channel_multiplier=[1, 2], num_res_blocks=1, attn_resolutions=[1],
            hidden_size=64,
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if "running" in name or name.endswith("bias"):
                tensor.uniform_(0.2, 0.6)
    return model


@pytest.fixture(scope="module")
def ours(theirs):
    return emu3_files.network(theirs.state_dict(), MEAN, DEVIATION).eval()


def as_published(state):
    """By the names of its makers, and with convolutions for matrices."""
    named = {}
    for name, tensor in state.items():
        if re.search(r"_proj\.weight$", name):
            tensor = tensor[..., None, None]
        for theirs, makers in (
            ("down_block.", ""), ("up_block.", ""), ("middle_block.", "mid."), ("attn_norm.", "attn_1.norm."),
            ("q_proj.", "q."), ("k_proj.", "k."), ("v_proj.", "v."), ("out_proj.", "proj_out."),
        ):  # fmt: skip
            name = name.replace(theirs, makers)
        named[re.sub(r"attn_norms\.(\d)\.", r"attn.\1.norm.", name)] = tensor
    return named


def clip(frames=12):
    return np.random.RandomState(7).randint(0, 256, size=(frames, 8, 12, 3)).astype(np.uint8)


@torch.no_grad()
def test_codes_and_pixels_are_those_of_transformers(theirs, ours):
    pixels = torch.from_numpy(clip()).float() / 255
    normed = ((pixels - torch.tensor(MEAN)) / torch.tensor(DEVIATION)).permute(0, 3, 1, 2)[None]
    (expected,) = theirs.encode(normed, image_sizes=torch.tensor([[8, 12]])).image_tokens
    codes = ours.encode(to_float(clip()[None]))
    assert codes.shape == (1, 3, 4, 6)
    assert torch.equal(codes[0], expected)
    assert len(codes.unique()) > 7, "one code would prove nothing"
    drawn = theirs.decode(codes)[0].permute(0, 2, 3, 1) * torch.tensor(DEVIATION) + torch.tensor(MEAN)
    assert (ours.decode(codes)[0].permute(1, 2, 3, 0) - (drawn * 2 - 1)).abs().max() < 1e-4


def test_chunks_give_what_the_whole_clip_gives(ours):
    tokenizer, frames = VideoTokenizer(ours), clip(64)
    assert ours.sees < 12, "shorter than the clip, or nothing would be left out"
    whole = tokenizer.encode_batch(frames[None])[0]
    drawn = tokenizer.decode_batch(whole[None])[0].astype(int)
    for cells in (1, 3):
        assert np.array_equal(tokenizer.encode(frames, chunk_cells=cells), whole)
        assert abs(tokenizer.decode(whole, chunk_cells=cells).astype(int) - drawn).max() <= 1  # a rounding to bytes


def test_no_cell_sees_a_later_frame(ours):
    video = torch.zeros(1, 3, 12, 4, 4, requires_grad=True)
    ours.vectors(video)[:, 1].sum().backward()
    seen = video.grad.abs().amax((0, 1, 3, 4))
    assert (seen[:8] > 0).all()
    assert (seen[8:] == 0).all()


def test_its_clips_are_whole_cells_and_no_images(ours):
    tokenizer = VideoTokenizer(ours)
    assert (tokenizer.causal, tokenizer.first, tokenizer.frames(3)) == (False, 4, 12)
    assert tokenizer.grid(12, 8, 12) == (3, 4, 6)
    with pytest.raises(DataError, match="a multiple of 4, for it is not causal"):
        tokenizer.encode(clip(1))
    for frames, cut, filled in ((3, 0, 4), (4, 4, 4), (9, 8, 12)):
        assert len(list(whole_cells(clip(frames), tokenizer.stride, pad=False, first=4))) == cut
        assert len(list(whole_cells(clip(frames), tokenizer.stride, pad=True, first=4))) == filled
    expect_whole(Request(prompt="a robot"), "t2v", tokenizer)
    for request, task in ((Request(), "i2v"), (Request(), "inpainting"), (Request(via_image=True), "t2v")):
        with pytest.raises(PromptError, match=r"is not causal: its first cell is 4 frames"):
            expect_whole(request, task, tokenizer)


def test_it_is_imported_under_either_kind_of_names_and_runs_in_the_chain(theirs, tmp_path, program, monkeypatch):
    def done(path, *arguments):
        status, out, err = program(path, *arguments, "--json")
        assert status == 0, err
        return json.loads(out.splitlines()[-1])

    hashes = set()
    ways = {"theirs": theirs.state_dict(), "makers": as_published(theirs.state_dict())}
    for way, state in ways.items():
        (tmp_path / way).mkdir()
        save_file({name: tensor.clone() for name, tensor in state.items()}, tmp_path / way / "model.safetensors")
        (tmp_path / way / "preprocessor_config.json").write_text(
            json.dumps({"image_mean": MEAN, "image_std": DEVIATION})
        )
        hashes.add(done(PROGRAM, "emu3", tmp_path / way, "--out", tmp_path / f"T-{way}")["hash"])
    assert "encoder.mid.attn_1.q.weight" in ways["makers"]
    assert len(hashes) == 1
    ours, raw, tokens = tmp_path / "T-makers", tmp_path / "raw", tmp_path / "tokens"
    assert "Not causal" in (ours / "card.md").read_text()
    assert VideoTokenizer.load(ours).hash in hashes

    done("train/ingest.py", "world:platformer", "--clips", 3, "--frames=8", "--height=16", "--width=16", "--out", raw)
    for option in ("--keyframes", "--paintings=1"):
        status, _, err = program("tokenizers/encode_shards.py", raw, "--tokenizer", ours, option, "--out", tokens)
        assert status != 0
        assert "is not causal: its first cell is 4 frames" in err
    assert done("tokenizers/encode_shards.py", raw, "--tokenizer", ours, "--out", tokens)["samples"] == 3
    done("tokenizers/train_text.py", raw, "--out", tmp_path / "text.model", "--size", 300)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"run: {tmp_path / 'run'}\ntext: {tmp_path / 'text.model'}\nvideo: {ours}\n"
        f"data: {{sources: [{{path: {tokens}}}], length: 256, lookahead: 2, tasks: {{t2v: 1}}}}\n"
        "model: {width: 32, depth: 1, heads: 2, kv_heads: 1, hidden: 48, visual_groups: 1}\n"
        "batch: 1\nsteps: 1\nsamples: {frames: 8, height: 16, width: 16}\n"
    )
    status, _, err = program("train/pretrain.py", recipe, "data.tasks={i2v: 1}")
    assert status != 0
    assert "data.tasks.i2v" in err
    assert "is not causal: its first cell is 4 frames" in err
    done("train/pretrain.py", recipe)
    bundle, made = tmp_path / "bundle", tmp_path / "clip.mp4"
    done("train/export.py", tmp_path / "run", "--out", bundle)
    done("sample/generate.py", "--model", bundle, "--prompt", "a robot", "--out", made)
    (row,) = done("sample/score.py", made, "--model", bundle, "--prompt", "a robot")["rows"]
    assert row["nats"] > 0
    assert row["edges"] == [0, 4, 8]
    for option in ("--image", "--video"):
        status, _, err = program(
            "sample/generate.py", "--model", bundle, "--prompt=a", option, made, "--out", tmp_path / "b.mp4"
        )
        assert status != 0
        assert "is not causal: its first cell is 4 frames" in err
    status, _, err = program(
        "sample/generate.py", "--model", bundle, "--prompt=a", "--frames=16", "--out", tmp_path / "b.mp4"
    )
    assert status != 0
    assert "ask for 8 frames or fewer" in err
    done("sample/reconstruct.py", made, "--tokenizer", ours, "--out", tmp_path / "both.mp4")
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(BackendError, match=r"pip install 'vpoet\[emu3\]'"):
        VideoTokenizer.load(ours)


def test_what_is_missing_or_too_much_is_named(theirs, tmp_path):
    state = dict(theirs.state_dict())
    with pytest.raises(CheckpointError, match=r"1 unknown: adapter\.weight"):
        emu3_files.network(state | {"adapter.weight": torch.ones(1)}, MEAN, DEVIATION)
    with pytest.raises(CheckpointError, match=r"two of them would be quant_conv\.conv\.bias"):
        emu3_files.network(state | {"vqmodel.quant_conv.conv.bias": torch.ones(1)}, MEAN, DEVIATION)
    del state["decoder.conv_out.bias"]
    with pytest.raises(CheckpointError, match=r"1 missing: decoder\.conv_out\.bias"):
        emu3_files.network(state, MEAN, DEVIATION)
    with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
        emu3_files.read(tmp_path, None)
    (tmp_path / "model.safetensors").write_bytes(b"x" * 50)
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not readable"):
        emu3_files.read(tmp_path, None)
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="no image_mean and image_std"):
        emu3_files.read(tmp_path, None)


@pytest.mark.parametrize(
    "change",
    [{"channels": 33}, {"time_stride": 3}, {"attention": [0]}, {"deviation": [0.0, 1.0, 1.0]}, {"multipliers": [1]}],
)
def test_a_config_of_no_emu3_is_refused(change):
    with pytest.raises(ConfigError):
        Emu3Config(**change)
