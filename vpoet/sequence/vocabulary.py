"""One id space for everything that the model reads and writes.

    0            64         320              320 + text              320 + text + visual
    | special    | numbers  | text pieces    | visual codes          |
    | <bos> ...  | 0 .. 255 | sentencepiece  | FSQ indices           |

Special tokens and numbers are fixed; the other two ranges come from the two tokenizers. Later ranges (control,
action) are appended, so that an id never changes its meaning.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from vpoet.errors import ShapeError

Ints = npt.NDArray[np.int32]


class Modality(StrEnum):
    """What a span holds."""

    TEXT = "text"
    IMAGE = "image"
    VIDEO = "video"


_NAMES = (
    "<pad>",
    "<bos>",
    "<eos>",
    *(f"<{role}:{modality}>" for modality in Modality for role in ("context", "target")),
    *(f"<close:{modality}>" for modality in Modality),
    *(f"<task:{task}>" for task in ("unconditional", "t2i", "t2v", "i2v", "continuation")),
    *(f"<task:{task}>" for task in ("backward", "interpolation", "inpainting", "outpainting")),
    "<hidden>",
)
"""A name's place is its id: new ones go to the end."""

TASKS = tuple(name.removeprefix("<task:").removesuffix(">") for name in _NAMES if name.startswith("<task:"))
"""Names of the tasks that have a token, in the order of their ids; `vpoet.sequence.tasks` says what each one does."""

_SPECIAL = {name: i for i, name in enumerate(_NAMES)}
_RESERVED = 64  # room for names to come: adding one must not move the ids that trained models know
_NUMBERS = 256


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The sizes of the ranges, and the content hashes of the tokenizers that fill them."""

    text: int
    """Number of text pieces."""
    visual: tuple[int, ...]
    """A visual code is an integer in mixed radix, least significant digit first; these are the radices. One number is a
    flat codebook; several are groups of FSQ digits that the model predicts one after another."""
    text_hash: str
    visual_hash: str

    def __post_init__(self) -> None:
        assert self.text > 0, self
        assert self.visual, self
        assert all(n > 1 for n in self.visual), self

    @property
    def codes(self) -> int:
        """Size of the visual codebook."""
        return math.prod(self.visual)

    @property
    def language(self) -> int:
        """Number of ids below the visual range: special tokens, numbers and text pieces."""
        return _RESERVED + _NUMBERS + self.text

    @property
    def size(self) -> int:
        return self.language + self.codes

    @property
    def hash(self) -> str:
        """16 hex digits that change whenever any id changes its meaning."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def special(self, name: str) -> int:
        """Id of a special token by its name, for instance ``<bos>``."""
        return _SPECIAL[name]

    def number(self, value: int, what: str) -> int:
        """Id of a number in a span's header."""
        if not 0 <= value < _NUMBERS:
            raise ShapeError(f"{what} = {value} does not fit the header of a span: it holds 0 to {_NUMBERS - 1}")
        return _RESERVED + value

    def text_ids(self, pieces: npt.ArrayLike) -> Ints:
        """Ids of sentencepiece pieces."""
        pieces = np.asarray(pieces, dtype=np.int32)
        assert pieces.size == 0 or (pieces.min() >= 0 and pieces.max() < self.text)
        return pieces + np.int32(_RESERVED + _NUMBERS)

    def visual_ids(self, codes: npt.ArrayLike) -> Ints:
        """Ids of visual codes."""
        codes = np.asarray(codes, dtype=np.int32)
        assert codes.size == 0 or (codes.min() >= 0 and codes.max() < self.codes)
        return codes + np.int32(self.language)

    def to_number(self, token: int) -> int:
        """Inverse of `number`."""
        if not _RESERVED <= token < _RESERVED + _NUMBERS:
            raise ShapeError(f"expected a number in the header of a span, found {self.name(token)}")
        return token - _RESERVED

    def to_text(self, ids: npt.ArrayLike) -> Ints:
        """Inverse of `text_ids`."""
        return self._range(ids, _RESERVED + _NUMBERS, self.text, "text")

    def to_codes(self, ids: npt.ArrayLike) -> Ints:
        """Inverse of `visual_ids`."""
        return self._range(ids, self.language, self.codes, "visual")

    def _range(self, ids: npt.ArrayLike, start: int, size: int, what: str) -> Ints:
        values: Ints = np.asarray(ids, dtype=np.int32) - np.int32(start)
        if values.size and not (values.min() >= 0 and values.max() < size):
            bad = int(np.asarray(ids).ravel()[((values < 0) | (values >= size)).ravel().argmax()])
            raise ShapeError(f"expected {what} tokens, found {self.name(bad)}")
        return values

    def name(self, token: int) -> str:
        """How a drawing or an error message calls a token."""
        if 0 <= token < len(_NAMES):
            return _NAMES[token]
        if token < _RESERVED:
            return f"<reserved:{token}>"
        if token < _RESERVED + _NUMBERS:
            return str(token - _RESERVED)
        if token < self.language:
            return f"text:{token - _RESERVED - _NUMBERS}"
        return f"code:{token - self.language}"


def grouped(levels: tuple[int, ...], groups: int) -> tuple[int, ...]:
    """Merge FSQ levels into ``groups`` radices of nearly equal size, in order: (8,8,8,5,5,5), 2 -> (512, 125).

    The product of the radices, and so the meaning of every code, stays the same. One group is a flat codebook.
    """
    if not 1 <= groups <= len(levels):
        raise ShapeError(f"{groups} visual groups: the tokenizer's codes have 1 to {len(levels)} digits to group")
    best: tuple[int, ...] | None = None

    def cut(rest: tuple[int, ...], left: int, done: tuple[int, ...]) -> None:
        nonlocal best
        if left == 1:
            radices = (*done, math.prod(rest))
            if best is None or max(radices) < max(best):
                best = radices
            return
        for n in range(1, len(rest) - left + 2):
            cut(rest[n:], left - 1, (*done, math.prod(rest[:n])))

    cut(levels, groups, ())
    assert best is not None
    return best
