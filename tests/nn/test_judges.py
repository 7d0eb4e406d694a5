"""Judges and captioners of tiny random networks, as transformers saves them: they give what the library gives."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from vpoet.arrays import Frames
from vpoet.errors import BackendError, CheckpointError
from vpoet.nn.captioner import captioner, identity
from vpoet.nn.judges import ClipMatch, Embedding, Nsfw, Writing, judges

transformers = pytest.importorskip("transformers")
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
FRAMES: Frames = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)


def processor(made: str) -> object:
    return getattr(transformers, made)(size={"height": 16, "width": 16}, crop_size={"height": 16, "width": 16})


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    tokens = [f"{letter}{end}" for end in ("", "</w>") for letter in "abcdefghijklmnopqrstuvwxyz."]
    vocabulary = {token: i for i, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    ends = {"bos_token_id": len(vocabulary) - 2, "eos_token_id": len(vocabulary) - 1, "pad_token_id": 0}
    config = transformers.CLIPConfig(
        text_config={"vocab_size": len(vocabulary), "max_position_embeddings": 12, **SIZES, **ends},
        vision_config={"image_size": 16, "patch_size": 8, **SIZES},
        projection_dim=8,
    )
    transformers.CLIPModel(config).save_pretrained(folder)
    processor("CLIPImageProcessor").save_pretrained(folder)
    return folder


def classifier(folder: Path, *labels: str) -> Path:
    torch.manual_seed(0)
    names = dict(enumerate(labels))
    config = transformers.ViTConfig(**SIZES, image_size=16, patch_size=8, id2label=names)
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    processor("ViTImageProcessor").save_pretrained(folder)
    return folder


def blip(folder: Path) -> Path:
    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *["a", "robot", "walks", "on", "grass"]]
    (folder / "vocab.txt").write_text("\n".join(words))
    text = {
        "vocab_size": len(words),
        "encoder_hidden_size": 16,
        "bos_token_id": 5,
        "sep_token_id": 3,
        "pad_token_id": 0,
    }
    config = transformers.BlipConfig(
        text_config={**SIZES, **text, "max_position_embeddings": 80},
        vision_config={**SIZES, "image_size": 16, "patch_size": 8},
    )
    transformers.BlipForConditionalGeneration(config).save_pretrained(folder)
    tokenizer = transformers.BertTokenizer(str(folder / "vocab.txt"))
    transformers.BlipProcessor(processor("BlipImageProcessor"), tokenizer).save_pretrained(folder)
    return folder


def test_a_caption_is_matched_as_transformers_matches_it(clip: Path) -> None:
    judge = ClipMatch(clip)
    found = judge(FRAMES, ["a dog", "grass"])
    model = transformers.CLIPModel.from_pretrained(clip).eval()
    words = transformers.CLIPTokenizer.from_pretrained(clip)
    pixels = transformers.CLIPImageProcessor.from_pretrained(clip)(images=list(FRAMES), return_tensors="pt")
    with torch.inference_mode():
        told = model(**words(["a dog", "grass"], return_tensors="pt", padding=True), **pixels)
        poles = model(**words(["Good photo.", "Bad photo."], return_tensors="pt", padding=True), **pixels)
    assert found["match"] == pytest.approx(float((told.image_embeds @ told.text_embeds.T).mean(0).max()), abs=1e-5)
    assert found["aesthetic"] == pytest.approx(float(poles.logits_per_image.softmax(-1)[:, 0].mean()), abs=1e-5)
    assert judge(FRAMES, []).keys() == {"aesthetic"}
    with pytest.raises(CheckpointError, match=r"nowhere: not a folder with config\.json"):
        ClipMatch(clip / "nowhere")


def test_nsfw_is_all_that_is_not_safe(tmp_path: Path, clip: Path) -> None:
    folder = classifier(tmp_path / "net", "neutral", "porn", "sexy")
    found = Nsfw(folder)(FRAMES, [])
    model = transformers.ViTForImageClassification.from_pretrained(folder).eval()
    pixels = transformers.ViTImageProcessor.from_pretrained(folder)(images=list(FRAMES), return_tensors="pt")
    with torch.inference_mode():
        chances = model(**pixels).logits.softmax(-1)
    assert found == {"nsfw": pytest.approx(float(1 - chances[:, 0].min()), abs=1e-5)}
    with pytest.raises(CheckpointError, match=r"labels cat, dog: to tell what is not safe"):
        Nsfw(classifier(tmp_path / "pets", "cat", "dog"))
    with pytest.raises(BackendError, match="a model of type 'vit'"):
        ClipMatch(folder)
    assert Nsfw(folder).identity != ClipMatch(clip).identity


def test_writing_is_found_where_it_is() -> None:
    pytest.importorskip("rapidocr_onnxruntime")
    page = Image.new("RGB", (160, 96), (230, 230, 230))
    ImageDraw.Draw(page).text((10, 30), "HELLO 42", fill=(0, 0, 0), font_size=28)
    share = Writing()(np.asarray(page)[None], [])["text"]
    assert 0.1 < float(share) < 0.4
    plain = np.full((1, 96, 160, 3), 230, np.uint8)
    assert Writing()(plain, []) == {"text": 0.0}


def test_an_embedding_has_length_1_and_a_blank_is_unlike_noise() -> None:
    judge = Embedding()
    noise, again = judge(FRAMES, [])["embedding"], judge(FRAMES, [])["embedding"]
    blank = judge(np.zeros_like(FRAMES), [])["embedding"]
    assert isinstance(noise, np.ndarray)
    assert np.array_equal(noise, again)
    assert np.linalg.norm(noise) == pytest.approx(1, abs=1e-5)
    assert noise @ blank < 0.9


def test_a_captioner_writes_the_same_words_each_time(tmp_path: Path) -> None:
    folder = blip(tmp_path)
    words = captioner(folder)(FRAMES)
    assert words == captioner(folder)(FRAMES)
    assert set(words.split()) <= {"a", "robot", "walks", "on", "grass", "[UNK]", "[DEC]"}
    assert identity(folder).startswith("blip ")
    (folder / "config.json").write_text('{"model_type": "vit"}')
    captioner.cache_clear()
    with pytest.raises(CheckpointError):
        captioner(folder)


def test_judges_are_those_that_are_asked_for(clip: Path) -> None:
    threads = torch.get_num_threads()
    assert judges(False, False, None, None) == {}
    assert judges(True, False, clip, None).keys() == {"embedding", "clip"}
    torch.set_num_threads(threads)
