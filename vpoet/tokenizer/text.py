"""Text tokenizer: a sentencepiece BPE model with byte fallback.

Prompts are compared as people read them: NFKC, case folded, runs of white space as one blank. What the training
captions never showed is spelled in UTF-8 bytes, so every string has tokens and no string has an unknown one.

BPE and not the unigram model: unigram seeds its pieces with substrings that several distinct words share, so on
captions from a small set of words (a game, a robot's tasks) it stays near single letters: three times as many tokens,
measured.
"""

import hashlib
import io
import re
from collections.abc import Iterable
from pathlib import Path

import sentencepiece

from vpoet.errors import DataError, PromptError
from vpoet.files import write_atomic
from vpoet.outputs import expect_file

SMALLEST = 256 + 1
"""Pieces that every model has: the 256 bytes, and sentencepiece's obligatory <unk>, which byte fallback never emits."""


class TextTokenizer:
    """Text <-> ids in ``range(size)``, without begin, end or padding marks: those belong to the sequence vocabulary."""

    def __init__(self, model: bytes) -> None:
        """``model``: the content of a sentencepiece model file; RuntimeError if it is none."""
        if not model:  # which sentencepiece would take for a model without pieces
            raise RuntimeError("empty model")
        self._model = model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)

    @classmethod
    def train(cls, captions: Iterable[str], path: str | Path, size: int) -> "TextTokenizer":
        """Learn at most ``size`` pieces from captions, and save the model at ``path``.

        Equal captions in equal order give an equal model. A small corpus has fewer pieces to learn than asked for: look
        at ``.size``. DataError: no captions, or ``size`` too small for the bytes and the characters of the captions.
        """
        captions = [caption for caption in captions if caption.strip()]
        if not captions:
            raise DataError("no captions to train a text tokenizer on: the samples have none, or only empty ones")
        if size <= SMALLEST:
            raise DataError(f"a text tokenizer of {size} pieces: {SMALLEST} go to the bytes alone; use 300 or more")
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(captions),
                model_writer=model,
                model_type="bpe",
                vocab_size=size,
                hard_vocab_limit=False,
                byte_fallback=True,
                normalization_rule_name="nmt_nfkc_cf",
                max_sentence_length=max(
                    10, *(len(caption.encode()) for caption in captions)
                ),  # longer ones are dropped
                bos_id=-1,
                eos_id=-1,
                pad_id=-1,
                unk_id=0,
                num_threads=1,  # more make the result depend on their timing
                minloglevel=2,
            )
        except RuntimeError as error:
            needed = re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(error))
            remedy = f"their characters alone take {needed[1]} pieces; use more" if needed else str(error)
            raise DataError(f"a text tokenizer of {size} pieces from {len(captions)} captions: {remedy}") from None
        tokenizer = cls(model.getvalue())
        tokenizer.save(path)
        return tokenizer

    @classmethod
    def load(cls, path: str | Path) -> "TextTokenizer":
        """Read a model file; DataError if it is none."""
        try:
            if Path(path).exists() and not Path(path).is_file():
                raise DataError(f"{path}: a folder, pipe or device, not a text tokenizer")
            return cls(Path(path).read_bytes())
        except OSError as error:
            raise DataError(f"{path}: text tokenizer not readable: {error.strerror}") from None
        except RuntimeError:
            raise DataError(f"{path}: not a sentencepiece model; `vpoet train-text` makes one") from None

    @classmethod
    def check_vacant(cls, path: Path) -> None:
        """DataError, OutputError if a model can't be written there, as something else is, or nothing can be."""
        expect_file(path)
        try:
            if path.exists() and path.stat().st_size:
                cls.load(path)
        except DataError:
            raise DataError(
                f"{path}: exists and is no text tokenizer; choose another name, or remove it yourself"
            ) from None

    def save(self, path: str | Path) -> None:
        """Write the model file whole or not at all; folders on the way to it are made."""
        write_atomic(path, self._model)

    def encode(self, text: str) -> list[int]:
        """Ids of a prompt or caption; the empty text has none. PromptError: lone surrogates, which are no text."""
        try:
            return [int(piece) for piece in self._processor.encode(text.encode().decode())]
        except UnicodeEncodeError as error:
            raise PromptError(f"not valid Unicode text at position {error.start}: {text[:60]!r}") from None

    def decode(self, ids: Iterable[int]) -> str:
        """The normalised text of ids; bytes that are not UTF-8 become U+FFFD. PromptError: an id out of range."""
        ids = [int(piece) for piece in ids]
        if outside := [piece for piece in ids if not 0 <= piece < self.size]:
            raise PromptError(f"text ids {outside[:5]} are not in this tokenizer, which has 0 to {self.size - 1}")
        return str(self._processor.decode(ids))

    @property
    def size(self) -> int:
        """Number of ids."""
        return int(self._processor.get_piece_size())

    @property
    def hash(self) -> str:
        """First 16 hex digits of the model file's SHA-256: the identity that vocabularies and bundles carry."""
        return hashlib.sha256(self._model).hexdigest()[:16]
