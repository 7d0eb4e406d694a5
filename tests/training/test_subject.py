"""What a bundle is trained on so that a word comes to mean what a clip shows."""

from pathlib import Path

import numpy as np
import pytest

from vpoet.data.folder import read_samples
from vpoet.data.shards import ShardWriter
from vpoet.data.token_dataset import TokenDataset
from vpoet.errors import ConfigError, DataError
from vpoet.media.video import Video
from vpoet.sequence.vocabulary import Vocabulary
from vpoet.training.subject import names, read_prior, write_frames, write_prior

KNOWN = ["a", "robot", "walks"]


def write_clips(folder: Path, *captions: str | list[str], kind: str = "raw") -> Path:
    """Clips of three frames, each of another grey."""
    with ShardWriter(folder, kind=kind) as writer:  # type: ignore[arg-type]
        for number, caption in enumerate(captions):
            frames = np.full((3, 16, 16, 3), 40, np.uint8) * np.arange(1, 4, dtype=np.uint8)[:, None, None, None]
            told = {"caption": caption, "fps": 8, "frames": 3, "height": 16, "width": 16, "source": "me", "license": ""}
            writer.write(f"clip-{number}", {"mp4": Video(frames, 8).encode(".mp4", lossless=True), "json": told})
    writer.manifest().save(folder)
    return folder


def test_frames_are_images_of_their_own_with_the_captions_of_their_clip(tmp_path: Path) -> None:
    raw = write_clips(tmp_path / "raw", "a sks walks", ["Sks, there", "the sks"])
    write_frames(raw, tmp_path / "frames", "sks")
    made = list(read_samples(tmp_path / "frames"))
    assert [sample.captions for sample in made] == [["a sks walks"]] * 3 + [["Sks, there", "the sks"]] * 3
    assert [int(np.asarray(Video.read(sample.video))[0, 8, 8, 0]) for sample in made] == [40, 80, 120] * 2
    assert all((sample.json["fps"], sample.json["frames"]) == (0, 1) for sample in made)


@pytest.mark.parametrize(
    ("captions", "kind", "told"),
    [
        (["a sks walks", "a robot walks"], "raw", r"me: its caption \['a robot walks'\] does not name sks"),
        ([["a sks walks", "a sksy robot"]], "raw", "does not name sks"),
        ([""], "raw", r"its caption \[\] does not name sks"),
        (["a sks walks"], "tokens", "token shards have no frames to learn a subject from"),
    ],
)
def test_clips_that_do_not_show_the_subject_are_refused(
    tmp_path: Path, captions: list[str | list[str]], kind: str, told: str
) -> None:
    with pytest.raises(DataError, match=told):
        write_frames(write_clips(tmp_path / "raw", *captions, kind=kind), tmp_path / "frames", "sks")
    assert not (tmp_path / "frames/manifest.json").exists()


def test_prior_clips_are_token_shards_of_the_codes_that_were_drawn(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    drawn = [random.integers(0, 64000, (t, 2, 2), dtype=np.int32) for t in (2, 1)]
    write_prior(tmp_path, ["a robot", "a hero"], drawn, 8, "coder")
    dataset = TokenDataset(tmp_path, vocabulary=Vocabulary(300, (64000,), "text", "coder"))
    first, second = dataset.shard(0)
    assert [(one.captions, one.fps) for one in (first, second)] == [
        (("a robot",), 8),
        (("a hero",), 0),
    ]  # one cell is an image
    assert all(np.array_equal(one.codes, codes) for one, codes in zip((first, second), drawn, strict=True))


@pytest.mark.parametrize(
    ("text", "there"), [("a SKS, here", True), ("sks's", True), ("asks", False), ("sks_2", True), ("", False)]
)
def test_a_text_names_the_subject_by_a_whole_word(text: str, there: bool) -> None:
    assert names(text, "sks") == there


def test_prompts_of_the_prior_stand_one_on_each_line(tmp_path: Path) -> None:
    (tmp_path / "prior.txt").write_text("# all else\n\n a robot walks \na hero asks\n")
    assert read_prior(tmp_path / "prior.txt", "sks", KNOWN) == ["a robot walks", "a hero asks"]


@pytest.mark.parametrize(
    ("word", "text", "error", "told"),
    [
        ("two words", "a robot", ConfigError, "one word of letters and digits"),
        ("s-k", "a robot", ConfigError, "one word of letters and digits"),
        ("Robot", "a hero", ConfigError, "the bundle knows this word already"),
        ("sks", "a robot\nthe SKS", DataError, "of all but the subject, and a prompt names it: the SKS"),
        ("sks", "# nothing\n", DataError, "no prompt in it"),
        ("sks", None, DataError, "not readable as text"),
    ],
)
def test_a_word_or_a_prior_that_cannot_be_is_told(
    tmp_path: Path, word: str, text: str | None, error: type[Exception], told: str
) -> None:
    if text is not None:
        (tmp_path / "prior.txt").write_text(text)
    with pytest.raises(error, match=told):
        read_prior(tmp_path / "prior.txt", word, KNOWN)
