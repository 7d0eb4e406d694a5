"""`vpoet compare` as a user runs it: the same clips in three forms get equal scores, and every figure its protocol."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpoet.data.shards import ShardWriter
from vpoet.media.video import Video
from vpoet.worlds.platformer.world import Platformer

ROOT = Path(__file__).parents[2]
Program = Callable[..., tuple[int, str, str]]
SMALL = ("--frames", 3, "--size", 32, "--bootstrap", 10, "--device", "cpu", "--json")


def write(folder: Path, clips: dict[str, Video]) -> Path:
    folder.mkdir()
    for name, video in clips.items():
        video.write(folder / f"{name}.mp4", lossless=True)
    return folder


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 real clips, 8 others, and the latter blurred; as videos, and the others also as frames and as shards."""
    folder = tmp_path_factory.mktemp("sets")
    world = Platformer(32, 32, frames=4)
    clips = {f"c{seed}": Video(world.clip(seed)[0], 8.0) for seed in range(24)}
    names = list(clips)
    fake = {name: clips[name] for name in names[16:]}
    write(folder / "real", {name: clips[name] for name in names[:16]})
    write(folder / "fake", fake)
    (folder / "frames").mkdir()
    with ShardWriter(folder / "shards", kind="raw") as writer:
        for name, video in fake.items():
            (folder / "frames" / name).mkdir()
            for number, frame in enumerate(video.frames):
                Image.fromarray(frame).save(folder / "frames" / name / f"{number}.png")
            mp4 = (folder / "fake" / f"{name}.mp4").read_bytes()
            writer.write(name, {"mp4": mp4, "json": {"caption": "", "fps": 8, "source": name}})
    writer.manifest().save(folder / "shards")
    noise = np.random.default_rng(0)
    rough = {
        name: Video((video.frames ^ noise.integers(0, 64, video.frames.shape, np.uint8)), 8.0)
        for name, video in fake.items()
    }
    write(folder / "rough", rough)
    return folder


def test_features_that_are_kept_are_compared_without_torch(sets: Path, tmp_path: Path) -> None:
    words = ["compare.py", *map(str, (sets / "real", sets / "fake", *SMALL, "--out", tmp_path / "out"))]
    told = f"""
import runpy, sys
sys.argv = {words}
try:
    runpy.run_path({str(ROOT / "sample/compare.py")!r}, run_name="__main__")
except SystemExit as end:
    print(end.code, "torch" in sys.modules)
"""
    results = []
    for imported in ("True", "False"):
        run = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
        assert run.stdout.split()[-2:] == ["0", imported], run.stderr
        results.append(json.loads((tmp_path / "out/compare.json").read_text()))
    assert results[0] == results[1]


def test_videos_frames_and_shards_of_the_same_clips_get_equal_scores(
    sets: Path, tmp_path: Path, program: Program
) -> None:
    found = []
    for kind in ("fake", "frames", "shards"):
        status, out, err = program("sample/compare.py", sets / "real", sets / kind, *SMALL, "--out", tmp_path / kind)
        assert status == 0, err
        found.append(json.loads(out))
    rows = [result["rows"] for result in found]
    assert rows[0] == rows[1] == rows[2]
    assert found[0]["curve"] == found[1]["curve"] == found[2]["curve"]
    (identity,) = {row["protocol"] for row in rows[0]}
    assert identity == found[0]["protocol"]["id"]
    assert found[0]["protocol"]["count"] == 8
    text = (tmp_path / "fake" / "compare.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert len(table) == len(rows[0])
    assert all(line.endswith(f"| {identity} |") for line in table)
    assert f"Frechet distance (features {found[0]['protocol']['network'][:8]})" in text
    assert "FVD" not in text
    assert json.loads((tmp_path / "fake" / "compare.json").read_text())["rows"] == rows[0]
    assert Image.open(tmp_path / "fake" / "compare.png").width > 100


def test_noise_is_farther_than_the_floor_and_a_second_run_reads_all_features(
    sets: Path, tmp_path: Path, program: Program
) -> None:
    command = ("sample/compare.py", sets / "real", sets / "rough", *SMALL, "--out", tmp_path / "out")
    results = []
    for _ in range(2):
        status, out, err = program(*command, "--training", sets / "real")
        assert status == 0, err
        results.append(json.loads(out))
    assert [result["computed"] for result in results] == [24, 0]
    assert results[0]["rows"] == results[1]["rows"]
    distance, halved, floor, *others = results[0]["rows"]
    assert halved["value"] > 2 * floor["value"]
    assert distance["half"] > 0
    copies = {row["measure"]: row["value"] for row in others}
    assert copies["nearest training clip, median of real clips"] == pytest.approx(0, abs=1e-4)
    assert copies["nearest training clip, median of samples"] > 0.1
    assert copies["samples nearer than 5% of real clips"] == 0


def test_pairs_are_scored_by_name(sets: Path, tmp_path: Path, program: Program) -> None:
    words = (*SMALL, "--fit", "none", "--size", 0, "--paired")
    status, out, err = program("sample/compare.py", sets / "fake", sets / "rough", *words, "--out", tmp_path / "a")
    assert status == 0, err
    *_, dB, similarity, flicker = json.loads(out)["rows"]
    assert (dB["measure"], similarity["measure"], flicker["measure"]) == ("PSNR, dB", "SSIM", "flicker")
    assert 15 < dB["value"] < 25
    assert similarity["value"] < 0.9
    assert flicker["value"] > 5
    status, out, err = program("sample/compare.py", sets / "fake", sets / "frames", *words, "--out", tmp_path / "b")
    assert status == 0, err
    assert [row["value"] for row in json.loads(out)["rows"][-3:]] == [100, pytest.approx(1), 0]
    status, _, err = program("sample/compare.py", sets / "real", sets / "rough", *words, "--out", tmp_path / "c")
    assert (status, "no real clip is called" in err) == (2, True)


def test_a_bundle_in_place_of_clips_and_processes_share_out_all_of_it(
    sets: Path, tmp_path: Path, make_bundle: Callable[..., Path], program: Program, together: Callable[..., list[str]]
) -> None:
    bundle = make_bundle(tmp_path / "bundle", depth=1, length=120, frames=5, height=32, width=32)
    file = tmp_path / "prompts.txt"
    file.write_text("".join(f"a robot {i}\n" for i in range(8)))
    words = (sets / "real", bundle, "--prompts", file, "--bits", bundle, *SMALL)
    status, out, err = program("sample/compare.py", *words, "--out", tmp_path / "alone")
    assert status == 0, err
    result = json.loads(out)
    assert result["computed"] == 24
    measures = [row["measure"] for row in result["rows"]]
    assert measures[-4:-2] == ["flicker by itself, samples", "flicker by itself, real clips"]
    assert all(name.startswith("bits per token under bundle") for name in measures[-2:])
    assert len(list((tmp_path / "alone" / "samples").glob("*.mp4"))) == 8
    first, second = together("sample/compare.py", 2, *words, "--out", tmp_path / "shared")
    assert second == ""
    shared = json.loads(first)
    assert shared["computed"] == 24
    assert [row["measure"] for row in shared["rows"]] == measures
    assert [row["value"] for row in shared["rows"]] == pytest.approx([row["value"] for row in result["rows"]], rel=1e-4)
    status, out, err = program("sample/compare.py", *words, "--out", tmp_path / "shared")
    assert status == 0, err
    assert json.loads(out)["computed"] == 0
    assert json.loads(out)["rows"] == shared["rows"]


def test_what_cannot_be_compared_is_refused(sets: Path, tmp_path: Path, program: Program) -> None:
    for words, said in (
        (("--protocol", "fvd"), "no protocol 'fvd'"),
        (("--frames", 9), "4 frames, and the protocol takes 9"),
        (("--count", 9), "FAKE: 8 clips, and the protocol takes 9"),
        (("--network", sets / "fake" / "c16.mp4"), "no kind of feature network"),
        (("--paired", "--real-start", "random"), "both clips of a pair begin at their first frame"),
        (("--lpips", sets), "--lpips is of pairs"),
        (("--prompts", sets / "frames"), "they are for a bundle"),
        (("--network", sets / "shards" / "manifest.json"), "no kind of feature network"),
    ):
        arguments = (sets / "real", sets / "fake", *SMALL, *words, "--out", tmp_path / "out")
        status, _, err = program("sample/compare.py", *arguments)
        assert (status, said in err) == (2, True), err
    few = write(tmp_path / "few", {"a": Video(np.zeros((4, 32, 32, 3), np.uint8), 8.0)})
    status, _, err = program("sample/compare.py", sets / "real", few, *SMALL, "--out", tmp_path / "out")
    assert (status, "FAKE: 1 clips, and a distance says nothing for fewer than 8" in err) == (2, True), err
