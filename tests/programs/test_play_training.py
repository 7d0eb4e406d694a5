"""A model that plays, from a user's list of recordings to a bundle that knows its actions, by the programs."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vpoet
from vpoet import bundle, config
from vpoet.data.lanes import Lane
from vpoet.data.token_documents import Documents
from vpoet.data.token_stream import heldout_packs
from vpoet.media.video import Video
from vpoet.sequence.actions import ActionSpace
from vpoet.tokenizer.autoencoder import Autoencoder, AutoencoderConfig
from vpoet.tokenizer.quantiser import QuantiserConfig
from vpoet.tokenizer.text import TextTokenizer
from vpoet.tokenizer.video import VideoTokenizer
from vpoet.training.recipe import PretrainConfig

Program = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.filterwarnings("ignore:a text was not ended:vpoet.errors.VpoetWarning")
KEYS = ActionSpace(names=["noop", "left", "right"])
RECIPE = """
run: {0}/run
text: {0}/text.model
video: {0}/video
data:
  sources: [{{path: {0}/tokens}}]
  tasks: {{play: 2, policy: 1, inverse: 1, timeline: 1, interleaved: 1}}
  length: 160
  lookahead: 4
  window: 3
  misread: 0.1
heldout: [{{path: {0}/tokens}}]
model: {{width: 32, depth: 1, heads: 2, kv_heads: 1, hidden: 48}}
batch: 4
steps: 2
evaluate_every: 2
evaluate_packs: 2
samples: {{frames: 9}}
"""


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """Three recordings whose prompt changes, a story, a tokenizer of a frame a cell, and a recipe."""
    random = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for number in range(3):
        frames = random.integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)
        Video(frames, 10.0).write(tmp_path / f"{number}.mp4", lossless=True)
        row = {"path": f"{number}.mp4", "actions": random.integers(0, 3, 8).tolist(), "action_space": KEYS.told()}
        captions = [{"from": 0, "to": 5, "text": "walk"}, {"from": 5, "to": 9, "text": "jump"}]
        rows.append(row | {"outcomes": {"reward": [0.0] * 8, "end": [False] * 8}, "captions": captions})
    Video(frames[:1], 0.0).write(tmp_path / "first.png")
    mixed = [{"text": "walk"}, {"image": "first.png"}, {"video": "0.mp4"}, {"text": "jump"}]
    rows.append({"segments": mixed})
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    torch.manual_seed(0)
    blocks = {"encoder_blocks": [0, 1], "decoder_blocks": [0, 1]}
    small = AutoencoderConfig(time_stride=1, widths=[8, 8], quantiser=QuantiserConfig(levels=[4, 4, 3]), **blocks)
    VideoTokenizer(Autoencoder(small)).save(tmp_path / "video")
    TextTokenizer.train(["walk over the sand", "jump over the water"], tmp_path / "text.model", 300)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(tmp_path))
    return tmp_path


def reads_wrongly_in_training_alone(recipe: Path) -> None:
    cfg = config.load(recipe, PretrainConfig)
    text = TextTokenizer.load(cfg.text)
    vocabulary = replace(cfg, actions=KEYS).vocabulary(text, VideoTokenizer.load(cfg.video))
    lane = Lane(Documents(cfg.data, vocabulary=vocabulary, text=text.encode, seed=0), 0, 1)
    assert any(row.read is not None for row, _ in (next(lane), next(lane)))
    rows = heldout_packs(cfg.data, vocabulary=vocabulary, text=text.encode, count=2)
    assert all(row.read is None for row in rows)


def test_from_a_list_of_recordings_to_a_bundle_that_knows_its_actions(chain: Path, program: Program) -> None:
    def run(*arguments: object) -> str:
        status, out, err = program(*arguments)  # type: ignore[arg-type]
        assert status == 0, err
        return out

    size = ("--frames", 9, "--height", 16, "--width", 16, "--fps", 10)
    report = json.loads(run("train/ingest.py", chain / "list.jsonl", "--out", chain / "raw", *size, "--json"))
    assert report["sides"]["all"]["skipped"]["counts"] == {}
    run("tokenizers/encode_shards.py", chain / "raw", "--tokenizer", chain / "video", "--out", chain / "tokens")
    told = run("train/describe.py", chain / "tokens", "--draw", "--text", chain / "text.model")
    for words in ("noop, left, right", "with actions", "with captions in time", "of segments", "<task:inverse>"):
        assert words in told, words
    run("train/pretrain.py", chain / "recipe.yaml")
    rows = [json.loads(line) for line in (chain / "run/metrics.jsonl").read_text().splitlines()]
    assert {f"heldout/{kind}_bits" for kind in ("play", "action", "outcome", "video")} <= {*rows[-1]}
    assert "heldout/wrong_key_bits" in rows[-1]
    assert config.load(chain / "run/resolved.yaml", PretrainConfig).actions == KEYS
    reads_wrongly_in_training_alone(chain / "recipe.yaml")
    run("train/pretrain.py", chain / "recipe.yaml", "steps=3", "--resume")
    status, _, err = program("train/export.py", chain / "run", "--out", chain / "bundle")
    assert status == 0, err
    assert "it plays 16x16 at 10 fps, as the recordings that it was trained on" in err
    whole = bundle.load(chain / "bundle")
    assert (whole.config.fps, whole.config.height, whole.config.width) == (10, 16, 16)  # the recipe says 8 and 64x64
    assert whole.config.actions == KEYS
    assert dict(whole.transformer.vocabulary.appended) == {"actions": 4, "outcomes": 8}
    told = run("train/describe.py", chain / "bundle")
    assert "noop, left, right" in told
    assert "a window of 3 frames" in told
    # what it was trained on is sampled back in order, and its world is played for longer than it ever saw
    asked = [{"text": "walk"}, {"image": None}, {"video": None}, {"text": None}]
    (chain / "asked.json").write_text(json.dumps(asked))
    arguments = (chain / "asked.json", "--model", chain / "bundle", "--out", chain / "made", "--longest", 5)
    run("sample/complete.py", *arguments)
    made = json.loads((chain / "made/segments.json").read_text())
    assert [next(iter(each)) for each in made] == ["text", "image", "video", "text"]
    assert len(Video.read(chain / "made" / made[2]["video"])) == 9
    world = vpoet.load(chain / "bundle", device="cpu").play("walk", seed=1)
    for step in range(40):
        world.outcome = "unknown"  # after three steps of training it says at random that this is the end
        assert world.step(step % 3)[0].shape == (16, 16, 3)
