"""Measures of each clip: kept by content, and equal to what they are made of."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import vpoet
from vpoet.errors import BackendError, CheckpointError, DataError
from vpoet.evaluate.compare.clips import Clip, frame_by_frame
from vpoet.evaluate.compare.each import CLIPScore, of_bits, of_flicker, of_prompts
from vpoet.evaluate.compare.features import Found
from vpoet.evaluate.compare.kept import Kept
from vpoet.evaluate.compare.protocol import Protocol
from vpoet.evaluate.intervals import mean_interval
from vpoet.evaluate.pixels import unsteadiness
from vpoet.media.video import Video

CPU = torch.device("cpu")
RULES = Protocol(frames=3, fit="none", size=0)


def clip(seed: int, prompt: str, frames: int = 5, fps: float = 8.0) -> Clip:
    video = Video(np.random.default_rng(seed).integers(0, 256, (frames, 16, 16, 3), np.uint8), fps)
    return Clip(f"c{seed}", str(seed), lambda fps: frame_by_frame(video, 0), prompt)


def test_what_was_computed_is_kept_by_content_and_what_is_damaged_computed_again(tmp_path: Path) -> None:
    done: list[int] = []

    def square(i: int) -> list[float]:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(i)
        return [i * i, -i]

    kept = Kept(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        kept.of("squares", "abc", square)
    assert done == [0, 1]
    assert kept.of("squares", "ab", square) == [[0, 0], [1, -1]]
    done.clear()
    assert kept.of("squares", "cab", square) == [[0, 0], [0, 0], [1, -1]]  # by content: c was number 0 now
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:-3])
    done.clear()
    assert kept.of("squares", "cb", square) == [[0, 0], [1, -1]]
    assert done == [0, 1]
    done.clear()
    kept.of("other", "b", square)
    assert done == [0]


@pytest.fixture(scope="module")
def whole_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLIP of random weights with a vocabulary of letters, as transformers saves it."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    tokens = [f"{letter}{end}" for end in ("", "</w>") for letter in "abcdefghijklmnopqrstuvwxyz"]
    vocabulary = {token: i for i, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    ends = {"bos_token_id": len(vocabulary) - 2, "eos_token_id": len(vocabulary) - 1, "pad_token_id": 0}
    config = transformers.CLIPConfig(
        text_config={"vocab_size": len(vocabulary), "max_position_embeddings": 12, **sizes, **ends},
        vision_config={"image_size": 16, "patch_size": 8, **sizes},
        projection_dim=8,
    )
    transformers.CLIPModel(config).save_pretrained(folder)
    return folder


def test_the_clip_score_is_transformers_cosine_averaged_over_frames(whole_clip: Path, tmp_path: Path) -> None:
    import transformers

    score = CLIPScore(whole_clip, CPU)
    frames = clip(0, "").read(0).frames
    mean, deviation = (torch.tensor(each) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    pixels = ((torch.from_numpy(frames).float() / 255 - mean) / deviation).permute(0, 3, 1, 2)
    model = transformers.CLIPModel.from_pretrained(whole_clip).eval()
    tokens = transformers.CLIPTokenizer.from_pretrained(whole_clip)(["a robot"], return_tensors="pt")
    with torch.inference_mode():
        told = model(pixel_values=pixels, **tokens)
    expected = 100 * (told.image_embeds @ told.text_embeds.T).mean()
    assert score(frames, "a robot") == pytest.approx(float(expected), rel=1e-4)
    assert score(frames, "a very long prompt that is cut") == score(frames, "a very long prompt that is")

    first, second = ([clip(seed, "a robot") for seed in seeds] for seeds in ((0, 1), (2, 3)))
    rows = of_prompts(score, RULES, {"samples": first, "real clips": second}, Kept(tmp_path))
    assert [row.measure.rpartition(", ")[2] for row in rows] == ["samples", "real clips"]
    values = [score(each.read(0).frames[:3], "a robot") for each in first]
    assert (rows[0].value, rows[0].half) == pytest.approx(mean_interval(values))
    bare = [replace(each, prompt="") for each in second]
    assert len(of_prompts(score, RULES, {"samples": first, "real clips": bare}, Kept(tmp_path))) == 1
    with pytest.raises(DataError, match="no prompt is known of 2 of 2 clips, such as 'c2'"):
        of_prompts(score, RULES, {"samples": bare}, Kept(tmp_path))


def test_a_folder_without_texts_has_no_clip_score(whole_clip: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((whole_clip / name).read_bytes())
    with pytest.raises(CheckpointError, match="no tokenizer of CLIP"):
        CLIPScore(tmp_path, CPU)
    config = json.loads((whole_clip / "config.json").read_text()) | {"model_type": "bert"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BackendError, match="a model of type 'bert'"):
        CLIPScore(tmp_path, CPU)


def test_bits_are_those_of_the_model_given_the_prompts(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle", depth=1, length=120, frames=5, height=16, width=16)
    model = vpoet.load(folder, device="cpu")
    clips = [clip(0, "a robot"), clip(1, "a robot walks"), clip(2, "a robot", fps=0)]
    (row,) = of_bits(model, RULES, {"samples": clips}, Kept(tmp_path / "kept"))
    rated = [Video(each.read(0).frames, 8.0) for each in clips]
    bits = [model.score(video, each.prompt).per_token.bits for video, each in zip(rated, clips, strict=True)]
    assert (row.value, row.half) == pytest.approx(mean_interval(bits))
    assert row.measure == f"bits per token under bundle {model.bundle.hash[:8]}, samples"


def test_flicker_by_itself_by_hand() -> None:
    frames = np.zeros((4, 2, 2, 3), np.uint8)
    frames[1::2] = 6
    assert unsteadiness(frames) == pytest.approx(12)
    ramp = np.arange(0, 200, 50, dtype=np.uint8)[:, None, None, None]
    assert unsteadiness(np.broadcast_to(ramp, (4, 2, 2, 3))) == 0
    noise = np.random.default_rng(0).normal(128, 10, (200, 16, 16, 3)).round().astype(np.uint8)
    assert unsteadiness(noise) == pytest.approx(10 * np.sqrt(12 / np.pi), rel=0.02)
    assert np.isnan(unsteadiness(frames[:2]))
    found = [Found(np.zeros(1), (2, 2), 8.0, value) for value in (1.0, 3.0)]
    (row,) = of_flicker(RULES, {"samples": found, "real clips": [replace(found[0], flicker=np.nan)]})
    assert (row.measure, row.value) == ("flicker by itself, samples", 2.0)
