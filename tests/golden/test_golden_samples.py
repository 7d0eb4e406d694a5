"""What ships, by its public face: the bundle's codes, likelihoods and hashes, and both video tokenizers.

A bundle or tokenizer that ships no more moves into this folder, and `PLATFORMER` or `GENERAL` with it.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vpoet
from vpoet import Video, VideoTokenizer, config
from vpoet.generate.model import Model
from vpoet.generate.request import Request

Golden = Callable[..., None]
PLATFORMER = Path(vpoet.__file__).parent / "weights" / "platformer-64"
GENERAL = Path(vpoet.__file__).parent / "weights" / "video-4x8x8"
PROMPT = "a robot walks right on grass at night"

WORLD = Video.read(Path(__file__).parent / "data" / "world.mp4")
"""17 frames of 64x64, without loss: a heroine jumps up and down on grass at night while a green worm crawls left."""
FIRST, LAST = (Video(WORLD.frames[i : i + 1], 0) for i in (0, 8))
HALF = Video(WORLD.frames[:9], WORLD.fps)
HOLE = Video(np.zeros((1, 64, 64, 3), np.uint8), 0)
HOLE.frames[0, 20:44, 4:36] = 255

REQUESTS: dict[str, dict[str, Any]] = {
    "t2v": {"prompt": PROMPT, "frames": 9},
    "t2i": {"prompt": "a zombie stands still on snow by day", "frames": 1, "seed": 1},
    "i2v": {"prompt": "a heroine jumps up and down on grass", "image": FIRST, "frames": 9, "seed": 2},
    "continuation": {"prompt": "a heroine stands still", "video": WORLD, "given_frames": 5, "frames": 9, "seed": 3},
    "backward to an image": {"prompt": PROMPT, "last": LAST, "frames": 5, "seed": 4},
    "backward to a video": {"video": WORLD, "task": "backward", "given_frames": 5, "frames": 9, "seed": 5},
    "interpolation of images": {"prompt": "a heroine falls", "image": FIRST, "last": LAST, "frames": 9, "seed": 6},
    "interpolation of a video": {"video": WORLD, "task": "interpolation", "frames": 9, "seed": 7},
    "inpainting": {"prompt": "a hero climbs up a ladder on grass", "video": HALF, "mask": HOLE, "seed": 8},
    "outpainting": {"prompt": "a man stands still on sand", "image": FIRST, "outpaint": (16, 0, 8, 0), "seed": 9},
    "unconditional": {"frames": 5, "seed": 10},
    "story": {"prompt": PROMPT, "story": ((4, "a robot stands still"),), "frames": 9, "window": 9, "seed": 11},
    "long": {"prompt": PROMPT, "frames": 13, "window": 9, "overlap": 5, "height": 32, "width": 32, "seed": 12},
    "via an image": {"prompt": "a woman walks left on sand", "via_image": True, "frames": 5, "seed": 13},
    "another size and rate": {"prompt": PROMPT, "frames": 9, "height": 32, "width": 48, "fps": 16, "seed": 14},
}
PLAIN = ("t2v", "i2v", "inpainting")
"""Those that are also made without guidance, at temperature 1."""
FILTERED = {"cfg": 2.0, "temperature": 0.9, "top_k": 40, "top_p": 0.9, "min_p": 0.02}


def load(guesses: int = 0) -> Model:
    return vpoet.load(PLATFORMER, device="cpu", precision="fp32", guesses=guesses)


@pytest.fixture(scope="module")
def model() -> Model:
    return load()


@pytest.fixture(scope="module")
def guessing() -> Model:
    return load(guesses=8)


def made(model: Model, names: Sequence[str], **sampling: float) -> dict[str, Any]:
    """The codes, nats and frames of some requests made together, a list of each, as some are several documents."""
    rollouts = [model.rollout(Request(**REQUESTS[name])) for name in names]
    found: dict[str, Any] = {name: {"codes": [], "nats": [], "frames": []} for name in names}
    while live := [(name, rollout) for name, rollout in zip(names, rollouts, strict=True) if rollout.document]:
        documents = [rollout.document for _, rollout in live]
        seeds = [rollout.seed for _, rollout in live]
        decoded = model.decode(documents, seeds, model.sampling(**sampling))
        for (name, rollout), result in zip(live, decoded, strict=True):
            frames = np.concatenate(list(rollout.take(result.document)))
            for part, value in (
                ("codes", result.document.codes()),
                ("nats", result.nats),
                ("frames", frames),
            ):
                found[name][part].append(value)
    return found


@pytest.mark.parametrize("name", REQUESTS)
def test_each_request_alone(model: Model, golden: Golden, name: str) -> None:
    golden(f"sample {name}", made(model, [name])[name], "alone")


@pytest.mark.parametrize("name", REQUESTS)
def test_each_request_with_guesses(guessing: Model, golden: Golden, name: str) -> None:
    golden(f"sample {name}", made(guessing, [name])[name], "guesses")


def test_all_requests_in_one_batch(model: Model, golden: Golden) -> None:
    for name, value in made(model, list(REQUESTS)).items():
        golden(f"sample {name}", value, "batch")


def test_requests_without_guidance(model: Model, guessing: Model, golden: Golden) -> None:
    for name, value in made(model, PLAIN, cfg=1.0, temperature=1.0).items():
        golden(f"sample {name} without guidance", value, "batch")
    for name in PLAIN:
        golden(f"sample {name} without guidance", made(guessing, [name], cfg=1.0, temperature=1.0)[name], "guesses")


def test_requests_with_filters(model: Model, guessing: Model, golden: Golden) -> None:
    for way, sampler in (("alone", model), ("guesses", guessing)):
        golden("sample t2v with filters", made(sampler, ["t2v"], **FILTERED)["t2v"], way)
    golden("sample t2i at temperature 0", made(model, ["t2i"], temperature=0)["t2i"])


def test_a_clip_of_the_size_that_the_bundle_knows(guessing: Model, golden: Golden) -> None:
    golden("frames t2v", guessing.sample(PROMPT).frames)


def test_the_command_writes_the_clip_and_its_record(program: Any, golden: Golden, tmp_path: Path) -> None:
    asked = REQUESTS["t2i"]
    arguments = ["--prompt", asked["prompt"], "--frames", asked["frames"], "--seed", asked["seed"]]
    status, _, err = program(
        "sample/generate.py", "--model", PLATFORMER, *arguments, "--device", "cpu", "--out", tmp_path / "clip.png"
    )
    assert status == 0, err
    golden("frames t2i", Video.read(tmp_path / "clip.png").frames)
    (record,) = tmp_path.glob("*.json")
    golden("record t2i", json.loads(record.read_text()))


@pytest.mark.parametrize(
    ("clip", "prompt", "given_frames"),
    [
        ("world", "", 0),
        ("world", "a heroine jumps up and down on grass at night", 0),
        ("half", PROMPT, 5),
        ("first", PROMPT, 0),
    ],
)
def test_likelihoods(model: Model, golden: Golden, clip: str, prompt: str, given_frames: int) -> None:
    video = {"world": WORLD, "half": HALF, "first": FIRST}[clip]
    score = model.score(video, prompt, given_frames=given_frames)
    predicted = score.cells[~np.isnan(score.cells)]
    golden(
        f"score {clip}, {prompt!r}, {given_frames}",
        {"task": score.task, "nats": score.total.nats, "bits a token": score.per_token.bits, "cells": predicted},
    )


def test_the_bundle_is_what_it_was(model: Model, golden: Golden) -> None:
    bundle = model.bundle
    weights = bundle.transformer.state_dict()
    golden(
        "bundle",
        {
            "hash": bundle.hash,
            "vocabulary": bundle.transformer.vocabulary.hash,
            "text": bundle.text.hash,
            "pieces": bundle.text.encode(PROMPT),
            "config": config.to_dict(bundle.config),
            "weights": {name: list(weight.shape) for name, weight in weights.items()},
        },
    )


def moving() -> Video:
    """Nine frames of 48x64, in whole numbers: a disc over slanted stripes."""
    t, y, x = np.ogrid[:9, :48, :64]
    stripes = (3 * x + 5 * y + 7 * t) % 200
    disc = (x - 12 - 4 * t) ** 2 + (y - 24) ** 2 < 144
    frames = np.stack([np.where(disc, 230, stripes), stripes + np.where(disc, 20, 40), 255 - stripes], axis=-1)
    return Video(frames.astype(np.uint8), 8)


@pytest.mark.parametrize("name", ["platformer", "general"])
def test_video_tokenizers(golden: Golden, name: str) -> None:
    folder = {"platformer": PLATFORMER / "video_tokenizer", "general": GENERAL}[name]
    tokenizer = VideoTokenizer.load(folder)
    codes = {clip: tokenizer.encode(video) for clip, video in (("moving", moving()), ("world", HALF))}
    golden(
        f"tokenizer {name}",
        {
            "hash": tokenizer.hash,
            "hash of its codes": tokenizer.codes,
            "stride": tokenizer.stride,
            "levels": tokenizer.levels,
            "config": config.to_dict(tokenizer.model.config),
            "weights": {key: list(weight.shape) for key, weight in tokenizer.model.state_dict().items()},
            "codes": codes,
            "keyframes": tokenizer.encode_batch(HALF.frames[::4, None])[:, 0],
            "frames": {clip: tokenizer.decode(made) for clip, made in codes.items()},
        },
    )
