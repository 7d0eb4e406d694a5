"""The video tokenizer's programs, run as users run them: train (and stop, and go on), encode, evaluate, reconstruct."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vpoet import config
from vpoet.data import painting
from vpoet.data.npy import npy_to_codes
from vpoet.data.shards import Manifest, Problems, ShardWriter, read_shard
from vpoet.errors import VpoetWarning
from vpoet.media.video import Video
from vpoet.sequence import tasks
from vpoet.tokenizer.autoencoder import Autoencoder
from vpoet.tokenizer.video import VideoTokenizer
from vpoet.training.codec.recipe import VideoTokenizerRecipe
from vpoet.training.codec.training import TokenizerTraining
from vpoet.training.run.tracking import read_metrics

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "tokenizers/configs").glob("*.yaml"))
TINY_MODEL = (
    "model={widths: [8, 12, 16], encoder_blocks: [0, 1, 0], decoder_blocks: [1, 0, 1], quantiser: {levels: [5, 5, 5]}}"
)
Program = Callable[..., tuple[int, str, str]]


def moving_square(seed: int, frames: int = 5, size: int = 16) -> np.ndarray:
    random = np.random.default_rng(seed)
    clip = np.full((frames, size, size, 3), random.integers(0, 256, 3), np.uint8)
    colour, (top, left) = random.integers(0, 256, 3), random.integers(0, size - 8, 2)
    for t in range(frames):
        clip[t, top : top + 6, left + t % 4 : left + t % 4 + 6] = colour
    return clip


def shards(folder: Path, clips: list[np.ndarray], per_shard: int = 4) -> Path:
    with ShardWriter(folder, kind="raw", samples_per_shard=per_shard) as writer:
        for i, frames in enumerate(clips):
            suffix, fps = (".mp4", 8.0) if len(frames) > 1 else (".png", 0.0)
            payload = Video(frames, fps).encode(suffix, lossless=suffix == ".mp4")
            fields = {"caption": f"clip {i}", "fps": fps, "frames": len(frames), "height": 16, "width": 16}
            writer.write(f"clip-{i}", {suffix[1:]: payload, "json": fields})
    writer.manifest().save(folder)
    return folder


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shards(tmp_path_factory.mktemp("raw"), [moving_square(seed) for seed in range(12)])


def recipe(run: Path, raw: Path, **changes: object) -> list[str]:
    values = {"batch": 2, "steps": 6, "frames": 5, "height": 16, "width": 16, "evaluate_clips": 3, "log_every": 1}
    values |= {"save_every": 3, "run": run, "data": f"[{raw}]", **changes}
    path = run.with_suffix(".yaml")
    path.write_text("".join(f"{key}: {value}\n" for key, value in values.items()))
    return [str(path), TINY_MODEL]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, raw: Path) -> Path:
    """A run of six steps that nothing interrupted."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    done = subprocess.run(
        [sys.executable, ROOT / "tokenizers/train_video.py", *recipe(run, raw), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["hash"] == VideoTokenizer.load(run / "tokenizer").hash
    assert "seen/psnr" in result, "no held-out shards were given, and the name must say so"
    return run


def losses(run: Path) -> dict[int, float]:
    return {row["step"]: row["train/loss"] for row in read_metrics(run / "metrics.jsonl")}


def test_a_run_leaves_what_it_promises(trained: Path) -> None:
    assert sorted(losses(trained)) == [1, 2, 3, 4, 5, 6]
    assert [path.name for path in sorted((trained / "checkpoints").iterdir())] == ["step-3", "step-6"]
    assert (trained / "samples/step-6.png").is_file()
    assert config.load(trained / "resolved.yaml", VideoTokenizerRecipe).steps == 6


def test_a_run_stopped_by_sigterm_goes_on_bit_for_bit(
    trained: Path, tmp_path: Path, raw: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "stopped"
    update = TokenizerTraining.update

    def update_and_signal(training: TokenizerTraining, frames: np.ndarray, *, stop: bool) -> dict[str, float]:
        if training.step == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(training, frames, stop=stop)

    with monkeypatch.context() as patch:
        patch.setattr(TokenizerTraining, "update", update_and_signal)
        status, _, err = program("tokenizers/train_video.py", *recipe(run, raw))
    assert status == 143, err
    assert "stopped at step 2" in err
    assert not (run / "tokenizer").exists()
    status, _, err = program("tokenizers/train_video.py", *recipe(run, raw))
    assert status == 0, err
    assert "going on from step 2" in err
    assert losses(run) == losses(trained)
    assert VideoTokenizer.load(run / "tokenizer").hash == VideoTokenizer.load(trained / "tokenizer").hash


@pytest.mark.slow
def test_two_processes_write_one_run_and_find_it_again(tmp_path: Path, raw: Path, launched: Callable[..., Any]) -> None:
    """As a launcher starts them; the same command once more finds the run complete."""
    run = tmp_path / "shared"
    arguments = [*recipe(run, raw, steps=3, image_batch=2), "--json"]
    for again in (False, True):
        with socket.create_server(("127.0.0.1", 0)) as free:
            place = {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free.getsockname()[1]}
        both = [
            launched("tokenizers/train_video.py", *arguments, **place, RANK=rank, LOCAL_RANK=rank) for rank in range(2)
        ]
        assert [process.wait() for process in both] == [0, 0], both[0].err
        assert (json.loads(both[0].out.splitlines()[-1])["step"], both[1].out) == (3, "")
        assert sorted(losses(run)) == [1, 2, 3]
        assert ("going on from step 3" in both[0].err) == again
    assert VideoTokenizer.load(run / "tokenizer").hash


def test_a_run_folder_of_another_recipe_is_refused(trained: Path, raw: Path, program: Program) -> None:
    status, _, err = program("tokenizers/train_video.py", *recipe(trained, raw), "batch=3")
    assert status == 2
    assert "batch: 2, now 3" in err
    assert "run=OTHER_FOLDER" in err


def test_a_damaged_checkpoint_is_named(trained: Path, tmp_path: Path, raw: Path, program: Program) -> None:
    cut = tmp_path / "cut/checkpoints/step-3"
    shutil.copytree(trained / "checkpoints/step-3", cut)
    (cut / "model.safetensors").write_bytes(bytes((cut / "model.safetensors").stat().st_size))
    with warnings.catch_warnings():
        warnings.simplefilter("default", VpoetWarning)
        status, _, err = program("tokenizers/train_video.py", *recipe(tmp_path / "cut", raw))
    assert status == 2
    assert "step-3 left out, kept as step-3.damaged" in err
    assert "model.safetensors: not the bytes that were written" in err
    assert "no sound checkpoint there; start anew with another run=" in err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 6}, "nearest is 5 frames"),
        ({"dtype": "fp8"}, "dtype is 'fp8'; choose one of fp32, bf16"),
        ({"device": "abacus"}, "choose one of auto, cpu, cuda"),
        ({"batch": 0}, "batch = 0: must be 1 to 16384"),
        ({"ema": 1.0}, "ema = 1.0"),
        ({"loss": "{edge: 1}"}, "unknown key 'loss.edge'; did you mean loss.edges"),
        ({"data": "[nowhere]"}, "nowhere"),
    ],
)
def test_mistakes_are_told_in_a_line(
    tmp_path: Path, raw: Path, program: Program, change: dict[str, object], message: str
) -> None:
    status, _, err = program("tokenizers/train_video.py", *recipe(tmp_path / "bad", raw, **change))
    assert status == 2, err
    assert message in err
    assert err.startswith("error: ")


def test_divergence_stops_the_run_before_it_spoils_a_checkpoint(raw: Path, tmp_path: Path) -> None:
    cfg = config.load(Path(recipe(tmp_path / "x", raw)[0]), VideoTokenizerRecipe, [TINY_MODEL])
    training = TokenizerTraining(cfg)
    training.model.decoder.stem.weight.data[0, 0] = float("nan")
    before = training.model.encoder.stem.weight.clone()
    with pytest.raises(ValueError, match="diverged"):
        training.update(np.stack([moving_square(0), moving_square(1)]))
    assert torch.equal(training.model.encoder.stem.weight, before)


def test_training_learns(raw: Path, tmp_path: Path) -> None:
    """Eighty steps on two clips: the error falls to less than half."""
    cfg = config.load(
        Path(recipe(tmp_path / "x", raw, steps=80, optimizer="{warmup: 5}")[0]), VideoTokenizerRecipe, [TINY_MODEL]
    )
    training = TokenizerTraining(cfg)
    clips = np.stack([moving_square(0), moving_square(1)])
    errors = [training.update(clips)["l1"] for _ in range(80)]
    assert errors[-1] < 0.5 * errors[0]


def test_there_are_recipes() -> None:
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_builds_and_takes_a_step(path: Path, tmp_path: Path) -> None:
    cfg = config.load(path, VideoTokenizerRecipe, ["batch=1", "clips_of_video=1"])
    if cfg.begin:  # a stage that goes on from another: any weights of its shape will do
        VideoTokenizer(Autoencoder(cfg.model)).save(tmp_path)
        cfg.begin = str(tmp_path)
    training = TokenizerTraining(cfg)
    VideoTokenizer(training.average).grid(cfg.frames, cfg.height, cfg.width)
    trained = [parameter for parameter in training.model.parameters() if parameter.requires_grad]
    before = [parameter.clone() for parameter in trained]
    clip = np.random.default_rng(0).integers(0, 256, (1, cfg.frames, cfg.height, cfg.width, 3), dtype=np.uint8)
    assert np.isfinite(training.update(clip)["loss"])
    moved = [not torch.equal(a, b) for a, b in zip(before, trained, strict=True)]
    assert sum(moved) > len(moved) / 2


def encode(program: Program, raw: Path, tokenizer: Path, out: Path, *flags: str) -> dict[str, Any]:
    arguments = ["--tokenizer", tokenizer, "--out", out, "--json", *flags]
    status, stdout, err = program("tokenizers/encode_shards.py", raw, *arguments)
    assert status == 0, err
    result: dict[str, Any] = json.loads(stdout.splitlines()[-1])
    return result


def test_encoded_shards_hold_the_codes_and_the_raw_fields(
    trained: Path, tmp_path: Path, program: Program, raw: Path
) -> None:
    tokenizer = VideoTokenizer.load(trained / "tokenizer")
    result = encode(program, raw, trained / "tokenizer", tmp_path / "tokens")
    manifest = Manifest.load(tmp_path / "tokens")
    assert (manifest.kind, manifest.tokenizer, manifest.samples) == ("tokens", tokenizer.hash, 12)
    assert result["complete"] is True
    assert [shard.name for shard in manifest.shards] == [shard.name for shard in Manifest.load(raw).shards]
    problems = Problems()
    for shard in manifest.shards:
        pairs = zip(
            read_shard(raw / shard.name),
            read_shard(tmp_path / "tokens" / shard.name, required=("json", "codes.npy"), problems=problems),
            strict=True,
        )
        for before, after in pairs:
            codes = npy_to_codes(after.parts["codes.npy"])
            assert np.array_equal(codes, tokenizer.encode(Video.read(before.video)))
            assert after.json["grid"] == list(codes.shape) == [2, 2, 2]
            assert after.json["tokenizer"] == tokenizer.hash
            assert after.json["caption"] == before.json["caption"]
    assert not problems.total


def test_keyframes_are_each_cells_last_frame_encoded_alone(trained: Path, tmp_path: Path, program: Program) -> None:
    """Of videos and images; shards without them are made again, and shards with them serve who asks for none."""
    tokenizer = VideoTokenizer.load(trained / "tokenizer")
    raw = shards(tmp_path / "raw", [moving_square(0, 13), moving_square(1, 1)])
    out = tmp_path / "tokens"
    encode(program, raw, trained / "tokenizer", out)
    assert "keyframes.npy" not in next(read_shard(out / "raw-00000-00000.tar")).parts
    encode(program, raw, trained / "tokenizer", out, "--keyframes")
    pairs = zip(read_shard(raw / "raw-00000-00000.tar"), read_shard(out / "raw-00000-00000.tar"), strict=True)
    for before, after in pairs:
        frames = Video.read(before.video).frames
        keyframes = npy_to_codes(after.parts["keyframes.npy"])
        r = tokenizer.stride[0]
        alone = [tokenizer.encode(frames[i : i + 1])[0] for i in range(0, len(frames), r)]
        assert np.array_equal(keyframes, alone)
        assert np.array_equal(keyframes[0], npy_to_codes(after.parts["codes.npy"])[0])
    stamp = (out / "raw-00000-00000.tar").stat().st_mtime_ns
    encode(program, raw, trained / "tokenizer", out)
    encode(program, raw, trained / "tokenizer", out, "--keyframes")
    assert (out / "raw-00000-00000.tar").stat().st_mtime_ns == stamp


def test_images_are_one_cell_of_time_and_misfits_are_counted(trained: Path, tmp_path: Path, program: Program) -> None:
    odd = shards(tmp_path / "odd", [moving_square(0, 1), moving_square(1, 5), moving_square(2, 4)])
    result = encode(program, odd, trained / "tokenizer", tmp_path / "tokens")
    samples = list(read_shard(tmp_path / "tokens" / "raw-00000-00000.tar"))
    assert [sample.json["grid"] for sample in samples] == [[1, 2, 2], [2, 2, 2]]
    (reason,) = result["left_out"]["counts"]
    assert "the nearest is 5 frames" in reason
    none = shards(tmp_path / "none", [moving_square(0, 4)])
    arguments = ["--tokenizer", trained / "tokenizer", "--out", tmp_path / "nothing"]
    status, _, err = program("tokenizers/encode_shards.py", none, *arguments)
    assert status == 2
    assert "not one sample could be encoded" in err


def test_paintings_are_kept_beside_the_codes(trained: Path, tmp_path: Path, program: Program) -> None:
    """As `draw` makes them. Shards that have them serve whoever asks for fewer; for more, or by another seed, they are
    made again, and the codes are the same throughout."""
    tokenizer = VideoTokenizer.load(trained / "tokenizer")
    raw, out = shards(tmp_path / "raw", [moving_square(0), moving_square(1, 1)]), tmp_path / "tokens"
    name = "raw-00000-00000.tar"
    made: list[bytes] = []
    for count, seed in ((1, 0), (2, 0), (2, 1)):
        encode(program, raw, trained / "tokenizer", out, "--paintings", str(count), "--seed", str(seed))
        made.append((out / name).read_bytes())
        for before, after in zip(read_shard(raw / name), read_shard(out / name), strict=True):
            frames = Video.read(before.video).frames
            hidden = painting.draw(frames, tokenizer.stride, before.key, seed=seed, count=count)
            wanted = [one.painting(tokenizer.encode(one.frames)) for one in hidden]
            assert after.json["paintings"] == [one.task for one in wanted] == [*tasks.PAINTED] * count
            assert [after.parts[f"painting-{n}.npz"] for n in range(2 * count)] == list(map(painting.to_npz, wanted))
            assert np.array_equal(npy_to_codes(after.parts["codes.npy"]), tokenizer.encode(frames))
    assert len(set(made)) == 3
    for fewer in ([], ["--paintings", "1", "--seed", "1"]):
        encode(program, raw, trained / "tokenizer", out, *fewer)
        assert (out / name).read_bytes() == made[-1]


def test_two_processes_and_a_restart_give_the_same_shards(
    trained: Path, tmp_path: Path, program: Program, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode(program, raw, trained / "tokenizer", tmp_path / "one", "--paintings", "1")
    out = tmp_path / "two"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert encode(program, raw, trained / "tokenizer", out, "--paintings", "1")["complete"] is False
    assert not (out / "manifest.json").exists()
    monkeypatch.setenv("RANK", "0")
    assert encode(program, raw, trained / "tokenizer", out, "--paintings", "1")["complete"] is True
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert sorted(path.name for path in out.iterdir()) == names
    assert all((out / name).read_bytes() == (tmp_path / "one" / name).read_bytes() for name in names)

    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("RANK")
    kept, lost = out / "raw-00000-00000.tar", out / "raw-00000-00001.tar"
    stamp = kept.stat().st_mtime_ns
    lost.write_bytes(lost.read_bytes()[:1000])
    encode(program, raw, trained / "tokenizer", out, "--paintings", "1")
    assert kept.stat().st_mtime_ns == stamp, "a finished shard was made again"
    assert lost.read_bytes() == (tmp_path / "one" / lost.name).read_bytes()

    other = shards(tmp_path / "other", [moving_square(seed) for seed in (*range(8), 20, 21, 22, 23)])
    encode(program, other, trained / "tokenizer", out, "--paintings", "1")
    assert kept.stat().st_mtime_ns == stamp
    assert (out / "raw-00000-00002.tar").read_bytes() != (tmp_path / "one/raw-00000-00002.tar").read_bytes()


def test_tokens_of_another_tokenizer_are_not_mixed(trained: Path, tmp_path: Path, program: Program, raw: Path) -> None:
    encode(program, raw, trained / "tokenizer", tmp_path / "tokens")
    other = VideoTokenizer.load(trained / "tokenizer")
    other.model.decoder.stem.bias.data += 1
    VideoTokenizer(other.model).save(tmp_path / "other")
    arguments = ["--tokenizer", tmp_path / "other", "--out", tmp_path / "tokens"]
    status, _, err = program("tokenizers/encode_shards.py", raw, *arguments)
    assert status == 2
    assert other.hash in err
    assert VideoTokenizer(other.model).hash in err


def test_evaluation_states_scores_and_protocol(trained: Path, tmp_path: Path, program: Program, raw: Path) -> None:
    sheet = tmp_path / "sheet.png"
    arguments = [trained / "tokenizer", raw, "--clips", 8, "--sheet", sheet, "--bigrams", raw, "--json"]
    status, out, err = program("tokenizers/evaluate_tokenizer.py", *arguments)
    assert status == 0, err
    result = json.loads(out.splitlines()[-1])
    assert result["protocol"] | {"data": []} == {
        "data": [],
        "clips": 8,
        "frames": [5],
        "height": [16],
        "width": [16],
        "fps": [8.0],
        "colour": "RGB, uint8, full range 0 to 255",
        "averaging": "frames, then clips",
        "off_the_grid": "left out",
    }
    assert 3 < result["psnr"] < 60
    assert len(result["per_clip"]) == 8
    assert result["psnr"] == pytest.approx(np.mean([clip["psnr"] for clip in result["per_clip"]]))
    assert result["ssim"] == pytest.approx(np.mean([clip["ssim"] for clip in result["per_clip"]]))
    assert result["flicker"] > 0
    assert 0 < result["bits_per_pixel_entropy_coded"] < result["bits_per_pixel"]
    assert result["bits_per_pixel"] == pytest.approx(2 * 2 * 2 * np.log2(125) / (5 * 16 * 16))
    assert result["bigram_bits"] > 0
    assert sheet.is_file()


def test_evaluation_beside_codecs_and_another_tokenizer(trained: Path, tmp_path: Path, program: Program) -> None:
    clips = [moving_square(seed, size=64) for seed in range(2)] + [moving_square(2, frames=4, size=66)]
    raw = shards(tmp_path / "raw", clips)
    other = VideoTokenizer.load(trained / "tokenizer")
    other.model.decoder.stem.bias.data += 1
    VideoTokenizer(other.model).save(tmp_path / "other")
    plot = tmp_path / "plots" / "rates.png"
    arguments = [trained / "tokenizer", raw, "--also", tmp_path / "other", "--plot", plot, "--json"]
    status, out, err = program("tokenizers/evaluate_tokenizer.py", *arguments)
    assert status == 0, err
    assert "1 4 frames of 66x66 do not fit" in err
    result = json.loads(out.splitlines()[-1])
    assert result["protocol"]["clips"] == 2
    assert set(result["codecs"]) == {"H.264 medium", "H.264 veryslow tune=psnr", "H.265 medium"}
    assert result["codecs_at_bits_per_pixel"].keys() == result["codecs"].keys()
    assert len(result["codecs"]["H.264 medium"]) > 4
    (also,) = result["also"]
    assert (also["folder"], also["tokenizer"]) == (str(tmp_path / "other"), VideoTokenizer(other.model).hash)
    assert also["bits_per_pixel"] == result["bits_per_pixel"]
    assert also["psnr"] != result["psnr"]
    assert plot.is_file()

    status, out, err = program("tokenizers/evaluate_tokenizer.py", *arguments[:2], "--protocol", "vpoet-16,size=16")
    assert (status, "3 clips to score, and the --protocol takes 8" in err) == (2, True), err
    status, out, err = program("tokenizers/evaluate_tokenizer.py", *arguments[:2], "--pad", "--perceptual", "--json")
    assert status == 0, err
    padded = json.loads(out.splitlines()[-1])
    assert padded["protocol"]["clips"] == 3
    assert padded["protocol"]["off_the_grid"].startswith("padded")
    assert "not LPIPS" in padded["protocol"]["perceptual_distance"]
    assert 0 < padded["perceptual_distance"] < 4
    assert "codecs" not in padded


def test_evaluation_by_a_model_of_the_codes(
    tmp_path: Path, make_bundle: Callable[..., Path], trained: Path, program: Program
) -> None:
    bundle = make_bundle(tmp_path / "bundle", length=200)
    clips = [moving_square(seed, size=64) for seed in range(2)]
    raw = shards(tmp_path / "raw", [*clips, moving_square(2, frames=41, size=64)])
    arguments = [bundle / "video_tokenizer", raw, "--model", bundle, "--plot", tmp_path / "rates.png", "--json"]
    status, out, err = program("tokenizers/evaluate_tokenizer.py", *arguments)
    assert status == 0, err
    result = json.loads(out.splitlines()[-1])
    assert result["bits_per_pixel_by_model"] == pytest.approx(result["model_bits"] * 2 * 8 * 8 / (5 * 64 * 64))
    assert result["codecs_at_bits_per_pixel_by_model"].keys() == result["codecs"].keys()
    assert f"{result['model_bits']:.2f} by the model" in err
    assert result["protocol"]["clips"] == 2
    assert "1 the model takes no such clip: 11x8x8 cells take" in err

    status, _, err = program("tokenizers/evaluate_tokenizer.py", trained / "tokenizer", *arguments[1:])
    assert status == 2
    assert "give a bundle that was trained on this tokenizer's codes" in err


def test_reconstruct_writes_both_side_by_side(trained: Path, tmp_path: Path, program: Program) -> None:
    Video(moving_square(0, frames=7, size=20), 8.0).write(tmp_path / "clip.mp4", lossless=True)
    out = tmp_path / "both.mp4"
    command = [tmp_path / "clip.mp4", "--tokenizer", trained / "tokenizer", "--out", out, "--json"]
    status, stdout, err = program("sample/reconstruct.py", *command)
    assert status == 0, err
    result = json.loads(stdout.splitlines()[-1])
    assert (result["frames"], result["height"], result["width"], result["grid"]) == (5, 16, 16, [2, 2, 2])
    assert Video.read(out).frames.shape == (5, 16, 32, 3)
    status, stdout, err = program("sample/reconstruct.py", *command, "--pad")
    assert status == 0, err
    result = json.loads(stdout.splitlines()[-1])
    assert (result["frames"], result["height"], result["width"], result["grid"]) == (7, 20, 20, [3, 3, 3])
    assert Video.read(out).frames.shape == (7, 20, 40, 3)
    status, _, err = program("sample/reconstruct.py", *command, "--height", 4)
    assert status == 2
    assert "8 pixels" in err
