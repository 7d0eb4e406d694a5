"""What a machine and clips are found to be, before a chain is planned."""

from pathlib import Path

import numpy as np
import pytest

from vpoet import config
from vpoet.data.clips import ClipSettings
from vpoet.data.ingest import ingest
from vpoet.data.sources import gather
from vpoet.errors import BackendError, DataError
from vpoet.evaluate.chain import prompts, sizes
from vpoet.evaluate.chain.reading import measuring, read
from vpoet.evaluate.chain.stages import Stage, alone, run
from vpoet.evaluate.chain.trial import Trial, tried
from vpoet.evaluate.page.demo import PROMPTS, prompt_of
from vpoet.media.video import Video
from vpoet.training.codec.recipe import VideoTokenizerRecipe
from vpoet.training.recipe import PretrainConfig
from vpoet.training.run.stop import Stop

SETTINGS = ClipSettings(frames=9, fps=8, height=32, width=32, stride=4, cuts="vpoet", min_shot=9)


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    ground = np.add.outer(np.arange(32), np.arange(48)).astype(np.uint8)[..., None] + np.zeros(3, np.uint8)
    for number, length in enumerate((5, 9, 20, 33)):
        Video(np.stack([ground + frame for frame in range(length)]), 8).write(folder / f"{number}.mp4")
    (folder / "damaged.mp4").write_bytes(b"no video")
    return folder


def test_clips_are_counted_as_ingest_makes_them(films: Path, tmp_path: Path) -> None:
    items = gather([str(films)])
    reading = read(items, SETTINGS)
    made = ingest({"": items}, tmp_path / "raw", SETTINGS)[""]
    assert reading.clips == made.clips == 1 + 3 + 7
    assert reading.seconds > 0
    assert {clip.shape for clip in reading.found} == {(9, 32, 32, 3)}
    assert reading.guessed == 0
    whole, hashes = measuring(reading.found, 8)
    assert whole > 0
    assert hashes > 0


def test_sources_without_a_clip_are_refused(films: Path) -> None:
    with pytest.raises(DataError, match=r"gives a clip of 1\.1 seconds"):
        read(gather([str(films / "0.mp4"), str(films / "damaged.mp4")]), SETTINGS)


def test_worlds_are_counted_and_drawn() -> None:
    reading = read(gather(["world:playground"], clips=7), ClipSettings(frames=5, height=32, width=32))
    assert reading.clips == 7
    assert reading.found[0].shape == (5, 32, 32, 3)


def test_steps_are_real_ones() -> None:
    small = ["run=x", "data=[x]", "steps=1", "model.widths=[8,8,8]", "model.quantiser.codebook=256"]
    small += ["model.encoder_blocks=[0,0,0]", "model.decoder_blocks=[0,0,0]"]
    video = config.load(sizes.recipe("tokenizers", "tiny-platformer"), VideoTokenizerRecipe, small)
    tiny = [
        "model.width=32",
        "model.depth=1",
        "model.heads=2",
        "model.kv_heads=2",
        "model.hidden=48",
        "data.length=256",
    ]
    transformer = config.load(sizes.recipe("train", "demo"), PretrainConfig, tiny)
    clips = np.zeros((2, 9, 16, 16, 3), np.uint8)
    rates = tried(Trial(video, "", transformer, clips, 1), lambda jobs, parts: None)
    assert rates.cells == (3, 2, 2)
    assert np.prod(rates.levels) >= 240
    assert rates.causal
    assert "fp32" in rates.packs
    assert rates.packs.keys() == rates.video.keys()
    assert min(rates.encode, *rates.packs.values(), *rates.video.values()) > 0


def test_prompts_are_captions_of_both_sides(films: Path, tmp_path: Path) -> None:
    items = {"train": [*gather([str(films / "2.mp4")])], "heldout": [*gather([str(films / "3.mp4")])]}
    for side, caption in (("train", "a dog"), ("heldout", "a cat")):
        items[side][0].fields["caption"] = caption
    ingest(items, tmp_path / "raw", SETTINGS)
    prompts.write(tmp_path, [])
    lines = (tmp_path / PROMPTS).read_text().splitlines()
    assert [prompt_of(line) for line in lines] == ["a cat", "a dog"] * 2
    assert len(set(lines)) == 4
    prompts.write(tmp_path, ["x", "y", "z"])
    assert [prompt_of(line) for line in (tmp_path / PROMPTS).read_text().splitlines()] == ["x", "y", "z"]


def test_a_command_that_is_not_there_is_told(tmp_path: Path) -> None:
    stage = Stage("video", "", "", ["no-such-launcher", "x"], 1)
    with alone(tmp_path, print) as handle, pytest.raises(BackendError, match="no-such-launcher is not installed"):
        run(stage, Stop.__new__(Stop), handle, 1)
