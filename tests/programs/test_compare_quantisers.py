"""The comparison of quantisers, run as a user runs it: rows, resuming, the table, the picture, and mistakes."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpoet import cli
from vpoet.data.shards import ShardWriter
from vpoet.media.video import Video

PROGRAM = Path(__file__).parents[2] / "tokenizers/compare_quantisers.py"


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Eight clips of 9 frames of 32x32: blocks of random colours that move."""
    folder = tmp_path_factory.mktemp("raw")
    random = np.random.default_rng(0)
    with ShardWriter(folder, kind="raw", samples_per_shard=4) as writer:
        for i in range(8):
            blocks = random.integers(0, 256, (8, 8, 3), np.uint8).repeat(4, axis=0).repeat(4, axis=1)
            frames = np.stack([np.roll(blocks, t * (i % 3), axis=1) for t in range(9)])
            fields = {"caption": f"clip {i}", "fps": 8.0, "frames": 9, "height": 32, "width": 32}
            writer.write(f"clip-{i}", {"mp4": Video(frames, 8.0).encode(".mp4", lossless=True), "json": fields})
    writer.manifest().save(folder)
    return folder


@pytest.fixture
def compare(raw, capsys):
    """Run the program on these clips: exit status, the JSON result if there is one, stderr."""

    def start(out, *arguments):
        main = runpy.run_path(str(PROGRAM), run_name="program")["main"]
        given = [raw, "--held-out", raw, "--out", out, "--windows", 6, "--steps", 2, "--json", *arguments]
        with pytest.raises(SystemExit) as stop:
            cli.run(main, arguments=[str(argument) for argument in given])
        shown, told = capsys.readouterr()
        return stop.value.code or 0, json.loads(shown) if shown else None, told

    return start


def rows(out):
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_every_run_is_a_row_once_and_seeds_become_one_line(compare, tmp_path):
    small = ("--codebooks", 256, "--variants", "fsq,vq")
    status, _, told = compare(tmp_path, *small, "--seeds", "0")
    assert status == 0, told
    first = rows(tmp_path)
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write(json.dumps(first[0] | {"setup": {"windows": 7}, "psnr": 99.0}) + "\n")  # of another comparison
    status, result, told = compare(tmp_path, *small, "--seeds", "0,1")
    assert status == 0, told
    every = [row for row in rows(tmp_path) if row["setup"] == first[0]["setup"]]
    assert every[:2] == first, "a second call runs what is not there yet, and no more"
    assert [(row["variant"], row["seed"]) for row in every] == [("fsq", 0), ("vq", 0), ("fsq", 1), ("vq", 1)]
    assert [row["codes"] for row in every] == [240, 256, 240, 256]
    assert {row["held_out_codes"] for row in every} == {6 * 3 * 4 * 4}
    assert all(1 <= row["used"] <= row["codes"] and row["psnr"] > 5 and row["cpu_seconds"] > 0 for row in every)
    fsq, vq = result["table"]
    assert (fsq["variant"], fsq["seeds"], vq["variant"], vq["seeds"]) == ("fsq", 2, "vq", 2)
    values = [row["psnr"] for row in every if row["variant"] == "fsq"]
    assert fsq["psnr"] == pytest.approx(sum(values) / 2)
    assert fsq["psnr_interval"] == pytest.approx(12.706 * abs(values[0] - values[1]) / 2)
    assert "| fsq | 240 | 2 |" in told
    assert "±" in told
    assert Image.open(result["picture"]).width > 600

    before = (tmp_path / "results.jsonl").read_bytes()
    status, again, _ = compare(tmp_path, *small, "--seeds", "0,1")
    assert status == 0
    assert again == result
    assert (tmp_path / "results.jsonl").read_bytes() == before


def test_variants_differ_in_what_their_names_say(compare, tmp_path):
    names = "fsq,lfq,lfq-without-entropy,vq,fsq-with-images,fsq-even"
    status, result, told = compare(tmp_path, "--codebooks", 256, "--variants", names, "--seeds", "3")
    assert status == 0, told
    found = {row["variant"]: row for row in rows(tmp_path)}
    assert ",".join(found) == names
    assert found["lfq"]["loss"] != found["lfq-without-entropy"]["loss"]
    assert len({found[name]["loss"] for name in ("fsq", "fsq-with-images", "fsq-even")}) == 3
    assert {line["psnr_interval"] for line in result["table"]} == {None}, "one seed has no interval"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--variants", "fsq,rvq"), "no rvq; choose from fsq, lfq"),
        (("--codebooks", "300"), "codebook is 300; choose a power of two"),
        (("--codebooks", "2^8"), "--codebooks 2^8: give whole numbers with commas"),
        (("--seeds", ""), "--seeds : give whole numbers"),
    ],
)
def test_a_mistake_is_told_in_a_line_before_anything_is_written(compare, tmp_path, arguments, said):
    status, _, told = compare(tmp_path / "out", *arguments)
    assert status == 2
    assert said in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()
