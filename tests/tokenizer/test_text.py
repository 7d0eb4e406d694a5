"""Text tokenizer: every string has tokens, equal corpora give equal models, and bad input is named."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpoet.errors import DataError, PromptError
from vpoet.tokenizer.text import SMALLEST, TextTokenizer

CAPTIONS = [
    f"A {colour} {animal} {motion} to the {side} over the {ground}"
    for colour in ("red", "green", "blue", "pink")
    for animal in ("fox", "frog", "robot", "slime")
    for motion in ("runs", "walks", "jumps")
    for side in ("left", "right")
    for ground in ("grass", "sand", "snow")
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return TextTokenizer.train(CAPTIONS, tmp_path_factory.mktemp("text") / "text.model", 400)


def test_caption_comes_back_case_folded(tokenizer):
    for caption in CAPTIONS:
        assert tokenizer.decode(tokenizer.encode(caption)) == caption.lower()
    assert tokenizer.encode("A RED fox") == tokenizer.encode("a red  fox ")


def test_a_familiar_word_is_one_token(tokenizer):
    """What unigram models fail at on few distinct words; see the module's docstring."""
    assert len(tokenizer.encode("a red fox runs to the left over the snow")) == 10


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_has_known_tokens_and_a_stable_normal_form(tokenizer, text):
    ids = tokenizer.encode(text)
    assert all(0 < piece < tokenizer.size for piece in ids)  # 0 is <unk>
    normal = tokenizer.decode(ids)
    assert tokenizer.decode(tokenizer.encode(normal)) == normal


@given(ids=st.lists(st.integers(0, SMALLEST - 1), max_size=20))
def test_any_ids_decode(tokenizer, ids):
    tokenizer.decode(ids).encode()


def test_unseen_letters_are_bytes(tokenizer):
    assert tokenizer.decode(tokenizer.encode("日本 🦊")) == "日本 🦊"
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""


def test_markup_in_a_prompt_is_text(tokenizer):
    assert tokenizer.decode(tokenizer.encode("<unk> <0x41> <s>")) == "<unk> <0x41> <s>"


def test_what_is_no_text_or_no_id_is_refused(tokenizer):
    with pytest.raises(PromptError, match="Unicode"):
        tokenizer.encode("fox \ud800")
    for ids in ([tokenizer.size], [-1]):
        with pytest.raises(PromptError, match="0 to"):
            tokenizer.decode(ids)


def test_equal_captions_give_an_equal_model(tokenizer, tmp_path):
    again = TextTokenizer.train(iter(CAPTIONS), tmp_path / "again.model", 400)
    assert again.hash == tokenizer.hash
    other = TextTokenizer.train([*CAPTIONS[:-1], "a wolf"], tmp_path / "other.model", 400)
    assert other.hash != tokenizer.hash


def test_saved_model_loads_with_the_same_hash(tokenizer, tmp_path):
    path = tmp_path / "folder" / "text.model"
    tokenizer.save(path)
    assert [file.name for file in path.parent.iterdir()] == ["text.model"]
    assert TextTokenizer.load(path).hash == tokenizer.hash
    assert tokenizer.hash == hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def test_size_is_a_limit_and_a_small_corpus_stays_below(tmp_path):
    assert TextTokenizer.train(CAPTIONS, tmp_path / "model", 300).size == 300
    small = TextTokenizer.train(["a", "b", " "], tmp_path / "model", 8192)
    assert SMALLEST < small.size < SMALLEST + 10


def test_long_captions_are_not_dropped(tmp_path):
    tokenizer = TextTokenizer.train(["fox"] * 10 + ["wolverine " * 2000], tmp_path / "model", 400)
    assert len(tokenizer.encode("wolverine")) == 1


def test_training_refuses_what_cannot_work(tmp_path):
    path = tmp_path / "model"
    with pytest.raises(DataError, match="no captions"):
        TextTokenizer.train(["", "  "], path, 400)
    with pytest.raises(DataError, match="use 300 or more"):
        TextTokenizer.train(CAPTIONS, path, SMALLEST)
    with pytest.raises(DataError, match=r"260 pieces from 288 captions: their characters alone take \d+ pieces"):
        TextTokenizer.train(CAPTIONS, path, 260)
    assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"not a model" * 10, None])
def test_files_that_are_no_model(tmp_path, content):
    path = tmp_path / "text.model"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"text\.model: "):
        TextTokenizer.load(path)
