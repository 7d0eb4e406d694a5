"""`sample/evaluate.py` as a user runs it, on a bundle of random weights and clips of the world."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import vpoet
from vpoet import bundle
from vpoet.bundle import BundleConfig
from vpoet.data.shards import ShardWriter
from vpoet.evaluate.adherence import prompts
from vpoet.media.video import Video
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Vocabulary, grouped
from vpoet.tokenizer.autoencoder import Autoencoder, AutoencoderConfig
from vpoet.tokenizer.quantiser import QuantiserConfig
from vpoet.tokenizer.text import TextTokenizer
from vpoet.tokenizer.video import VideoTokenizer

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def random_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    torch.manual_seed(0)
    quantiser = QuantiserConfig(levels=[4, 3, 3])
    small = AutoencoderConfig(widths=[8, 8, 8], encoder_blocks=[0, 0, 1], decoder_blocks=[0, 0, 1], quantiser=quantiser)
    video = VideoTokenizer(Autoencoder(small))
    text = TextTokenizer.train(["a robot walks right on grass", "a hero jumps on sand"], folder / "text.model", 300)
    sizes = TransformerConfig(width=32, depth=1, heads=2, kv_heads=1, hidden=48)
    vocabulary = Vocabulary(text.size, grouped(video.levels, 2), text.hash, video.hash)
    tasks = [name for name, task in TABLE.items() if not task.needs]
    config = BundleConfig(model=sizes, length=200, tasks=tasks, frames=5, height=32, width=32, fps=8)
    bundle.save(folder / "bundle", Transformer(sizes, vocabulary), config, text, video, "")
    return folder / "bundle"


def test_a_bundle_is_judged_beside_its_ceilings_and_an_interrupted_evaluation_goes_on(
    program: Run, together: Callable[..., list[str]], random_bundle: Path, tmp_path: Path
) -> None:
    raw = tmp_path / "raw"
    size = ("--frames", 5, "--height", 32, "--width", 32)
    parts = ("--holdout", 0.4, "--unseen", "sky=night")
    status, _, err = program("train/ingest.py", "world:platformer", "--clips", 60, *size, *parts, "--out", raw)
    assert status == 0, err
    out = tmp_path / "judged"
    arguments = ["--model", random_bundle, "--prompts", raw / "heldout", "--prompts", raw / "unseen", "--out", out]
    arguments += ["--count", 3, "--cfg", 1, "--cfg", 2, "--train", raw / "train", "--distance", "--json"]
    arguments += ["--apart", "sky=night"]  # two prompts: the first of three phrasings says nothing of the sky
    status, page, err = program("sample/evaluate.py", *arguments)
    assert status == 0, err
    result = json.loads(page.splitlines()[-1])
    rows = result["sets"]
    settings = [f"cfg {scale}, temperature 1, top-p 1" for scale in (1, 2)]
    assert list(rows) == ["real clips", "real clips, through the tokenizer", *settings]
    for row in rows.values():
        counts = {label: following["jointly"]["count"] for label, following in row["following"].items()}
        assert counts == {"heldout": 3, "unseen": 3, "sky=night": 2}
        assert row["following"]["sky=night"]["sky"] == row["following"]["unseen"]["sky"]
        for following in row["following"].values():
            assert following["who"]["count"] == following["jointly"]["count"]
            low, high = following["jointly"]["interval"]
            assert 0 <= low <= following["jointly"]["share"] <= high + 1e-9
    truths = rows["real clips"]["following"]
    assert truths["unseen"]["sky"]["share"] == truths["heldout"]["ground"]["share"] == 1
    assert rows[settings[0]]["following"]["heldout"]["jointly"]["right"] == 0
    assert rows[settings[0]]["distance"]["frames"] > rows["real clips"]["distance"]["frames"] > 0
    assert rows[settings[0]]["nearest"]["median"] > 0
    assert set(result["bits_per_token"]) == {"heldout", "unseen", "sky=night"}
    asked = prompts(raw / "heldout", 3) + prompts(raw / "unseen", 3)
    model = vpoet.load(random_bundle)
    costs = [
        [model.score(Video(asked[i].real, asked[i].fps), asked[j].text).total.bits for j in (i - 1, i)]
        for i in (3, 4, 5)
    ]
    mean, half = result["other_prompt"]["unseen"]
    assert mean == pytest.approx(np.mean([foreign - own for foreign, own in costs]), abs=1e-3)
    assert half > 0
    assert (out / "heldout,-cfg-2,-temperature-1,-top-p-1.png").is_file()
    assert "| jointly |" in (out / "results.md").read_text()

    kept = (out / "samples.jsonl").read_text()
    lines = [line for line in kept.splitlines() if line]
    assert len(lines) == 2 * 6
    (out / "samples.jsonl").write_text(kept[: len(kept) // 2])  # in the middle of a line
    status, page, err = program("sample/evaluate.py", *arguments)
    assert status == 0, err
    assert json.loads(page.splitlines()[-1]) == result
    again = [line for line in (out / "samples.jsonl").read_text().splitlines() if line]
    assert set(lines) <= set(again)
    assert len(again) <= len(lines) + 1  # the line that was cut is there too

    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "samples.jsonl").write_text(kept[: len(kept) // 2])  # what processes of a launcher share out is the rest
    first, second = together("sample/evaluate.py", 2, *arguments, "--out", shared)
    assert json.loads(first.splitlines()[-1]) == result | {"out": str(shared)}
    assert second == ""
    found = [set((shared / name).read_text().splitlines()) for name in ("samples.jsonl", "samples-1.jsonl")]
    assert set(lines) <= found[0] | found[1]
    assert not found[0] & found[1]
    assert (shared / "results.md").read_text() == (out / "results.md").read_text()

    status, _, err = program("sample/evaluate.py", *arguments, "--prompts", tmp_path / "nowhere")
    assert status == 2
    assert "nowhere" in err
    for given, told in (("sky=dawn", "0 prompts of 6"), ("night", "not 'night'")):
        status, _, err = program("sample/evaluate.py", *arguments, "--apart", given)
        assert status == 2
        assert "--apart" in err
        assert told in err


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw shards of clips that no world drew, of two classes."""
    folder = tmp_path_factory.mktemp("filmed") / "filmed"
    with ShardWriter(folder, kind="raw") as writer:
        for i in range(18):
            frames = np.random.default_rng(i).integers(0, 100, (6, 36, 40, 3), np.uint8)
            frames[..., i % 2] += 100
            payload = Video(frames, 8.0).encode(".mp4", lossless=True)
            fields = {"caption": f"clip {i}", "label": ("red", "green")[i % 2], "fps": 8, "source": f"film-{i}"}
            writer.write(f"clip-{i:02}", {"mp4": payload, "json": fields})
    writer.manifest().save(folder)
    return folder


def test_clips_that_no_world_drew_are_compared_with_samples_by_class_and_by_first_frames(
    program: Run, together: Callable[..., list[str]], random_bundle: Path, filmed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "judged"
    arguments = ["--model", random_bundle, "--prompts", filmed, "--count", 9, "--protocol", "vpoet-16,frames=5,size=32"]
    arguments += ["--classes", "label", "--given-frames", 1, "--json"]
    status, page, err = program("sample/evaluate.py", *arguments, "--out", out)
    assert status == 0, err
    result = json.loads(page.splitlines()[-1])
    ceiling, setting = result["sets"]
    assert ceiling == "real clips, through the tokenizer"
    found = result["sets"][setting]["compared"]["filmed"]
    assert found["protocol"]["count"] == 9
    rows = {row["measure"]: row for row in found["rows"]}
    assert {row["protocol"] for row in rows.values()} == {found["protocol"]["id"]}
    real = rows["nearest real clip is of the same class, real clips"]
    assert (real["value"], real["clips"]) == (1, "9 of 2 classes")
    assert 0 <= rows["nearest real clip is of the same class, samples"]["value"] <= 1
    assert 3 < rows["PSNR, dB, of predicted frames"]["value"] < 40
    assert "SSIM of predicted frames" in rows
    beside = result["sets"][ceiling]["compared"]["filmed"]["rows"]
    assert "SSIM of predicted frames" not in {row["measure"] for row in beside}
    assert result["bits_per_token"]["filmed"] > 0
    text = (out / "results.md").read_text()
    assert f"filmed, protocol {found['protocol']['id']}, 9 clips" in text
    assert "jointly" not in text
    pages = list((out / "compared").glob("*/compare.html"))
    assert len(pages) == 2
    assert len(list((out / "given").iterdir())) == 9

    first, second = together("sample/evaluate.py", 2, *arguments, "--out", tmp_path / "shared")
    shared = json.loads(first.splitlines()[-1])
    assert second == ""
    for name in (ceiling, setting):
        one, two = (each["sets"][name]["compared"]["filmed"]["rows"] for each in (result, shared))
        assert [row["measure"] for row in one] == [row["measure"] for row in two]
        assert [row["value"] for row in one] == pytest.approx([row["value"] for row in two], rel=1e-4)

    for words, said in (
        (("--distance",), "--distance is for the clips of a world"),
        (("--apart", "who=robot"), "only the clips of a world"),
        (("--classes", "colour"), "clip-00 has no field 'colour'"),
        (("--protocol", "vpoet-16"), "frames, and the protocol takes 16"),
        (("--protocol", "vpoet-16,frames=1,size=32"), "more frames than that"),
        (("--count", 4), "4 clips, and a distance says nothing for fewer than 8"),
    ):
        status, _, err = program("sample/evaluate.py", *arguments, *words, "--out", tmp_path / "refused")
        assert (status, said in err) == (2, True), err
