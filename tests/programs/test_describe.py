"""`vpoet inspect`: every kind of thing is recognised and counted, and drawings show its own documents."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vpoet import bundle, config
from vpoet.data.shards import Manifest, ShardWriter
from vpoet.data.token_stream import Source, StreamConfig, heldout_packs
from vpoet.errors import CheckpointError, ConfigError, DataError
from vpoet.evaluate.describe import describe
from vpoet.evaluate.scaling import predict
from vpoet.evaluate.sequences import draw_recipe, draw_shards
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.sequence.packing import Pack
from vpoet.sequence.vocabulary import Vocabulary, grouped
from vpoet.tokenizer.autoencoder import Autoencoder, AutoencoderConfig
from vpoet.tokenizer.quantiser import QuantiserConfig
from vpoet.tokenizer.text import TextTokenizer
from vpoet.tokenizer.video import VideoTokenizer
from vpoet.training.recipe import PretrainConfig

MODEL = TransformerConfig(width=16, depth=1, heads=2, kv_heads=1, hidden=24, visual_groups=2)
AUTOENCODER = AutoencoderConfig(
    quantiser=QuantiserConfig(levels=[4, 3]), widths=[4, 4, 4], encoder_blocks=[0, 0, 1], decoder_blocks=[0, 0, 1]
)


@dataclass(frozen=True)
class Things:
    folder: Path
    text: TextTokenizer
    video: VideoTokenizer
    recipe: PretrainConfig


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Things:
    """One of each: text.model, video/, tokens/, raw/, recipe.yaml, bundle/, run/."""
    folder = tmp_path_factory.mktemp("things")
    text = TextTokenizer.train(["a red ball rolls", "a blue ball falls"], folder / "text.model", 300)
    torch.manual_seed(0)
    video = VideoTokenizer(Autoencoder(AUTOENCODER))
    video.save(folder / "video")
    with ShardWriter(folder / "tokens", kind="tokens", samples_per_shard=4, tokenizer=video.hash) as writer:
        for i in range(7):
            about = {
                "caption": ["a red ball rolls"] * 2,
                "fps": 8,
                "frames": 9,
                "tokenizer": video.hash,
                "license": "CC0",
            }
            writer.write(f"s{i}", {"codes.npy": np.full((3, 2, 2), i, dtype=np.int32), "json": about})
    writer.manifest().save(folder / "tokens")
    with ShardWriter(folder / "raw", kind="raw") as writer:
        for i in range(3):
            about = {"caption": "", "fps": 8, "frames": 16, "height": 64, "width": 48}
            writer.write(f"s{i}", {"mp4": b"...", "json": about})
    writer.manifest().save(folder / "raw")
    recipe = PretrainConfig(
        run=str(folder / "run"), text=str(folder / "text.model"), video=str(folder / "video"), model=MODEL, batch=2,
        data=StreamConfig(sources=[Source(path=str(folder / "tokens"))], tasks={"t2v": 1.0, "i2v": 1.0}, length=128),
        steps=10,
    )  # fmt: skip
    config.save(recipe, folder / "recipe.yaml")
    vocabulary = Vocabulary(text.size, grouped(video.levels, 2), text.hash, video.hash)
    about = bundle.BundleConfig(model=MODEL, text_tokenizer=text.hash, video_tokenizer=video.hash, length=128)
    bundle.save(folder / "bundle", Transformer(MODEL, vocabulary), about, text, video, "# card\n")
    (folder / "run").mkdir()
    config.save(recipe, folder / "run" / "resolved.yaml")
    (folder / "run" / "metrics.jsonl").write_text('{"step": 1, "train/loss": 3.0}\n{"step": 2, "train/loss": 2.5}\n')
    return Things(folder, text, video, recipe)


def test_pretraining_recipe_is_counted_with_its_tokenizers_and_data(things: Things) -> None:
    facts = describe(things.folder / "recipe.yaml")
    vocabulary = Vocabulary(things.text.size, (4, 3), things.text.hash, things.video.hash)
    transformer = Transformer(MODEL, vocabulary)
    assert facts["is"] == "pretraining recipe"
    assert facts["parameters"] == sum(parameter.numel() for parameter in transformer.parameters())
    assert facts["bytes of weights, gradients and AdamW in fp32"] == 16 * facts["parameters"]
    assert facts["vocabulary"] == vocabulary.hash
    assert facts["visual codes"].startswith("12 = 4 * 3")
    assert (facts["tokens a step"], facts["tokens in all"]) == (256, 2560)
    assert facts[str(things.folder / "tokens")] == "7 samples"
    (name,) = (name for name in facts if name.startswith("of the data"))
    assert 0 < facts[name]["FLOPs per token"] < facts["FLOPs per token at most"]
    assert facts[name]["documents a pack"] >= 2
    assert 0 < facts[name]["share predicted"] < 1 - facts[name]["share of padding"]


def test_pretraining_recipe_without_tokenizers_counts_its_blocks(tmp_path: Path, things: Things) -> None:
    recipe = things.recipe
    away = PretrainConfig(run="r", text="gone.model", video="gone", model=MODEL, data=recipe.data)
    config.save(away, tmp_path / "away.yaml")
    facts = describe(tmp_path / "away.yaml")
    assert "parameters" not in facts
    assert facts["parameters in blocks"] == describe(things.folder / "recipe.yaml")["of these in blocks"]


def test_video_tokenizer_and_its_configs_are_counted(things: Things, tmp_path: Path) -> None:
    facts = describe(things.folder / "video")
    model = things.video.model
    assert (facts["is"], facts["hash"], facts["stride"]) == ("video tokenizer", things.video.hash, "4x8x8")
    assert facts["codebook"] == "12 = 4 * 3"
    assert facts["parameters"]["encoder"] == sum(parameter.numel() for parameter in model.encoder.parameters())
    assert min(facts["FLOPs per code"].values()) > 0
    alone = describe(things.folder / "video" / "config.yaml")
    assert alone.pop("is") == "video tokenizer's config"
    assert {name: facts[name] for name in alone} == alone

    (tmp_path / "recipe.yaml").write_text("run: r\ndata: [d]\nsteps: 5\nbatch: 3\nframes: 9\nheight: 32\nwidth: 16\n")
    recipe = describe(tmp_path / "recipe.yaml")
    assert recipe["is"] == "video tokenizer recipe"
    assert recipe["codes of a clip"] == "24 = 3x4x2"
    assert recipe["bits a pixel"] == pytest.approx(24 * np.log2(64000) / (9 * 32 * 16))
    assert recipe["clips in all"] == 15


def test_text_tokenizer(things: Things) -> None:
    facts = describe(things.folder / "text.model")
    assert facts == {"is": "text tokenizer", "pieces": things.text.size, "hash": things.text.hash}


def test_folder_of_token_shards_and_its_first_shard(things: Things) -> None:
    facts = describe(things.folder / "tokens")
    assert (facts["is"], facts["shards"], facts["samples"]) == ("folder of token shards", 2, 7)
    assert facts["tokenizer"] == things.video.hash
    (name,) = (name for name in facts if name.startswith("first shard"))
    shard = facts[name]
    assert shard == describe(things.folder / "tokens" / name.removeprefix("first shard, "))
    assert (shard["is"], shard["samples"], shard["captions"], shard["seconds of video"]) == ("token shard", 4, 8, 4.5)
    assert (shard["grids (cells)"], shard["license"]) == ({"3x2x2": 4}, {"CC0": 4})
    assert (shard["different codes"], shard["largest code"]) == (4, 3)


def test_folder_of_raw_shards(things: Things) -> None:
    facts = describe(things.folder / "raw")
    assert facts["is"] == "folder of raw shards"
    (shard,) = (value for name, value in facts.items() if name.startswith("first shard"))
    assert (shard["is"], shard["with captions"], shard["seconds of video"]) == ("raw shard", 0, 6.0)
    assert shard["sizes (frames, pixels)"] == {"16x64x48": 3}


def test_missing_cut_and_damaged_shards_are_told(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, kind="tokens", samples_per_shard=2, tokenizer="t") as writer:
        for i in range(6):
            codes: Any = b"no array" if i == 1 else np.zeros((1, 2, 2), dtype=np.int32)
            writer.write(f"s{i}", {"codes.npy": codes, "json": {"fps": "eight", "caption": None}})
    writer.manifest().save(tmp_path)
    first, second, third = (shard.name for shard in Manifest.load(tmp_path).shards)
    (tmp_path / first).write_bytes((tmp_path / first).read_bytes().replace(b"NUMPY", b"NIMPY", 1))
    (tmp_path / second).unlink()
    (tmp_path / third).write_bytes(b"")
    facts = describe(tmp_path)
    assert facts["missing shards"] == [second]
    assert facts["shards of another size than listed"] == [third]
    shard = facts[f"first shard, {first}"]
    assert shard["samples"] == 0
    assert "1 wrong checksum" in shard["skipped"]
    assert "1 broken codes" in shard["skipped"]


def test_a_sample_of_unclear_actions_is_told_and_the_others_are_counted(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, kind="raw") as writer:
        for i, space in enumerate([5, {"names": ["left"]}]):
            writer.write(f"s{i}", {"mp4": b"...", "json": {"actions": [0], "action_space": space}})
    writer.manifest().save(tmp_path)
    (shard,) = (value for name, value in describe(tmp_path).items() if name.startswith("first shard"))
    assert shard["with actions"] == 1
    assert "1 action_space is" in shard["skipped"]


def test_bundle(things: Things) -> None:
    facts = describe(things.folder / "bundle")
    assert (facts["is"], facts["tasks"], facts["tokens at most"]) == ("bundle", ["t2v"], 128)
    assert facts["parameters"] == describe(things.folder / "recipe.yaml")["parameters"]
    assert facts["video tokenizer"]["codebook"] == "12 = 4 * 3"
    assert list(facts["with `vpoet sample`"]) == ["t2v", "size, length, aspect", "frame rate"]


def test_run_folder_with_its_recipe_and_last_measurements(things: Things) -> None:
    facts = describe(things.folder / "run")
    assert facts["is"] == "run folder of a pretraining recipe"
    assert facts["whole checkpoints"] == []
    assert facts["last measurements"] == {"step": 2, "train/loss": 2.5}
    assert facts["recipe"] == describe(things.folder / "recipe.yaml")


def test_what_is_nothing_or_broken_is_refused(tmp_path: Path, things: Things) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        describe(tmp_path / "nothing")
    with pytest.raises(DataError, match="nothing that vpoet knows"):
        describe(tmp_path)
    with ShardWriter(tmp_path / "raw" / "train", kind="raw") as writer:
        pass
    writer.manifest().save(tmp_path / "raw" / "train")
    with pytest.raises(DataError, match=r"look at one of them: .*raw/train"):
        describe(tmp_path / "raw")
    refused = {"cats: 3\n": "keys are those of no config", "": "keys are those of no config"}
    for text, why in (refused | {"- 3\n": "a config is a mapping of keys", "3\n": "a.yaml: .*int"}).items():
        (tmp_path / "a.yaml").write_text(text)
        with pytest.raises(ConfigError, match=why):
            describe(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("run: [\n")
    with pytest.raises(ConfigError, match="not readable as YAML"):
        describe(tmp_path / "b.yaml")
    (tmp_path / "c.yaml").write_text((things.folder / "recipe.yaml").read_text() + "stepz: 3\n")
    with pytest.raises(ConfigError, match="unknown key 'stepz'; did you mean steps"):
        describe(tmp_path / "c.yaml")
    (tmp_path / "text.model").write_bytes((things.folder / "text.model").read_bytes())
    with pytest.raises(CheckpointError, match="lacks config"):
        describe(tmp_path)


def test_drawings_of_a_recipe_are_of_its_tasks_and_a_pack(things: Things) -> None:
    pictures = draw_recipe(things.recipe)
    assert list(pictures) == ["t2v", "i2v", "pack"]
    assert "<task:i2v>" in pictures["i2v"]
    assert "text:" in pictures["t2v"], "captions are shown"
    assert pictures["pack"].startswith("128 tokens, ")


def test_drawings_of_shards_say_which_tasks_they_cannot_serve(things: Things, tmp_path: Path) -> None:
    with ShardWriter(tmp_path, kind="tokens", tokenizer="t") as writer:
        writer.write("s", {"codes.npy": np.full((1, 2, 2), 70_000, dtype=np.int32), "json": {}})
    writer.manifest().save(tmp_path)
    pictures = draw_shards(tmp_path, things.text, length=64)
    assert "code:70000" in pictures["t2i"]
    assert pictures["t2v"].startswith("none: ")
    assert "too short" in pictures["t2v"]
    assert pictures["pack"].startswith("64 tokens, 1 documents")


def test_drawings_say_that_no_document_fits(things: Things, monkeypatch: pytest.MonkeyPatch) -> None:
    def packs(data: StreamConfig, **_: object) -> list[Pack]:
        return real(data, **_) if len(data.tasks) == 1 else []  # type: ignore[arg-type]

    real = heldout_packs
    monkeypatch.setattr("vpoet.evaluate.sequences.heldout_packs", packs)
    pictures = draw_recipe(things.recipe)
    assert "<task:i2v>" in pictures["i2v"]
    assert pictures["pack"] == "none: no document fits a pack of 128 tokens"


Program = Callable[..., tuple[int, str, str]]


def test_program_prints_for_people_and_for_machines(things: Things, program: Program) -> None:
    folder = things.folder
    status, out, err = program("train/describe.py", folder / "tokens", "--draw", "--text", folder / "text.model")
    assert status == 0, err
    assert out.startswith(f"{folder / 'tokens'}: folder of token shards\n")
    assert "\ncontinuation\n" in out
    parsed: Any = json.loads(program("train/describe.py", folder / "recipe.yaml", "--json")[1])
    assert parsed == describe(folder / "recipe.yaml")
    status, out, err = program("train/describe.py", folder / "tokens", "--draw")
    assert (status, out) == (2, "")
    assert "add --text" in err


def test_a_recipe_is_predicted_from_the_ends_of_shorter_runs(things: Things, tmp_path: Path, program: Program) -> None:
    heldout = [Source(path=str(things.folder / "tokens"))]
    recipes = {steps: replace(things.recipe, steps=steps, heldout=heldout) for steps in (10, 20, 40, 80, 640)}
    for steps, recipe in recipes.items():
        run = tmp_path / f"r{steps}"
        run.mkdir()
        config.save(recipe, run / "resolved.yaml")
        bits = 1.5 + 4 * steps**-0.5
        rows = [{"step": steps // 2, "heldout/bits": 9.0}, {"step": steps, "heldout/bits": bits}]
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    runs = [tmp_path / f"r{steps}" for steps in (10, 20, 40, 80)]
    given = [part for run in runs for part in ("--fit", run)]
    wanted = (tmp_path / "r640/resolved.yaml", *given, "--plot", tmp_path / "law.png", "--json")
    status, out, err = program("train/describe.py", *wanted)
    assert status == 0, err
    found = json.loads(out)["prediction"]
    assert found["held-out bits"] == pytest.approx(1.5 + 4 * 640**-0.5, rel=0.005)
    assert found["times the largest run"] == pytest.approx(8)
    assert found["FLOPs"] == describe(tmp_path / "r640/resolved.yaml")["of the data"]["FLOPs in all"]
    assert (tmp_path / "law.png").stat().st_size > 1000

    rows = (runs[0] / "metrics.jsonl").read_text().splitlines()
    (runs[0] / "metrics.jsonl").write_text(rows[0] + "\n")
    with pytest.raises(DataError, match="r10: not finished"):
        predict(tmp_path / "r640", runs)
    config.save(replace(recipes[10], evaluate_packs=3), runs[0] / "resolved.yaml")
    with pytest.raises(DataError, match="r10: evaluate_packs: not those of"):
        predict(tmp_path / "r640", runs)
