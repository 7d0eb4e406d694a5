"""One id space for everything that the model reads and writes.

    0            64         320              320 + text              320 + text + codes
    | special    | numbers  | text pieces    | visual codes          | appended ranges, if there are any
    | <bos> ...  | 0 .. 255 | sentencepiece  | FSQ indices           |

Special tokens and numbers are fixed; the next two ranges come from the two tokenizers. Later ranges are appended, so
that an id never changes its meaning; which range a position may hold follows from the grammar
(`vpoet.sequence.document`).
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vpoet.arrays import Ints
from vpoet.errors import ShapeError


class Modality(StrEnum):
    """What a span holds."""

    TEXT = "text"
    IMAGE = "image"
    VIDEO = "video"
    PLAY = "play"


_NAMES = [
    "<pad>",
    "<bos>",
    "<eos>",
    "<context:text>",
    "<target:text>",
    "<context:image>",
    "<target:image>",
    "<context:video>",
    "<target:video>",
    "<close:text>",
    "<close:image>",
    "<close:video>",
    "<task:unconditional>",
    "<task:t2i>",
    "<task:t2v>",
    "<task:i2v>",
    "<task:continuation>",
    "<task:backward>",
    "<task:interpolation>",
    "<task:inpainting>",
    "<task:outpainting>",
    "<hidden>",
    "<context:play>",
    "<target:play>",
    "<close:play>",
]
"""A name's place is its id: new ones go to the end."""
_CONDITIONS = ["<condition:motion>", "<condition:quality>"]
"""These count down from the last id of the room, so that neither tasks nor conditions stand in the other's way."""
_RESERVED = 64  # room for names to come: adding one must not move the ids that trained models know
_NUMBERS = 256


def add_task(name: str, token: int) -> None:
    """Give a task its token: the first id that is free, which a model trained for it will know it by."""
    if (full := f"<task:{name}>") not in _NAMES:
        free = len(_NAMES)
        assert token == free < _RESERVED - len(_CONDITIONS), f"{full}: the next free token is {free}, not {token}"
        _NAMES.append(full)
    assert _NAMES.index(full) == token, f"{full} is token {_NAMES.index(full)}, not {token}"


def task_names() -> list[str]:
    """Names of the tasks that have a token, in the order of their ids; `vpoet.sequence.tasks` says what each does."""
    return [name.removeprefix("<task:").removesuffix(">") for name in _NAMES if name.startswith("<task:")]


def condition_names() -> list[str]:
    """Names of the conditions; `vpoet.sequence.conditions` says what each is."""
    return [name.removeprefix("<condition:").removesuffix(">") for name in _CONDITIONS]


class Range(NamedTuple):
    """Ids from ``start`` up to, not with, ``stop``."""

    start: int
    stop: int


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
    appended: tuple[tuple[str, int], ...] = ()
    """Further ranges, name and size, in the order in which they follow the visual codes."""
    levels: tuple[int, ...] = field(default=(), compare=False)
    """Levels of each digit of a visual code, of which `visual` are groups; (): not known. It follows from the
    tokenizer, and is in no hash."""

    def __post_init__(self) -> None:
        assert self.text > 0, self
        assert self.visual, self
        assert all(n > 1 for n in self.visual), self
        assert len(self.ranges) == 4 + len(self.appended), self

    @property
    def codes(self) -> int:
        """Size of the visual codebook."""
        return math.prod(self.visual)

    @property
    def ranges(self) -> dict[str, Range]:
        """All ranges by name, in the order of their ids."""
        sizes = (("special", _RESERVED), ("numbers", _NUMBERS), ("text", self.text), ("codes", self.codes))
        found, start = {}, 0
        for name, size in (*sizes, *self.appended):
            found[name] = Range(start, start + size)
            start += size
        return found

    @property
    def language(self) -> int:
        """Number of ids below the visual range: special tokens, numbers and text pieces."""
        return self.ranges["codes"].start

    @property
    def size(self) -> int:
        return max(stop for _, stop in self.ranges.values())

    @property
    def hash(self) -> str:
        """16 hex digits that change whenever any id changes its meaning; ranges that are not there leave it alone."""
        facts = {name: value for name, value in asdict(self).items() if name != "appended" or value}
        del facts["levels"]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    def special(self, name: str) -> int:
        """Id of a special token by its name, for instance ``<bos>``."""
        return _NAMES.index(name) if name in _NAMES else _RESERVED - 1 - _CONDITIONS.index(name)

    def number(self, value: int, what: str) -> int:
        """Id of a number in a span's header."""
        if not 0 <= value < _NUMBERS:
            raise ShapeError(f"{what} = {value} does not fit the header of a span: it holds 0 to {_NUMBERS - 1}")
        return _RESERVED + value

    def to_number(self, token: int) -> int:
        """Inverse of `number`."""
        if not _RESERVED <= token < _RESERVED + _NUMBERS:
            raise ShapeError(f"expected a number in the header of a span, found {self.name(token)}")
        return token - _RESERVED

    def ids(self, values: npt.ArrayLike, name: str) -> Ints:
        """Ids of values of the range ``name``: of text pieces, or of visual codes. ShapeError: it has none."""
        values, (start, stop) = np.asarray(values, dtype=np.int32), self._range(name)
        assert values.size == 0 or (values.min() >= 0 and values.max() < stop - start), (name, stop - start)
        return values + np.int32(start)

    def values(self, ids: npt.ArrayLike, name: str) -> Ints:
        """Inverse of `ids`; ShapeError names the first that is not of the range."""
        (start, stop), found = self._range(name), np.asarray(ids, dtype=np.int32)
        outside = (found < start) | (found >= stop)
        if outside.any():
            what = {"codes": "visual"}.get(name, name)
            raise ShapeError(f"expected {what} tokens, found {self.name(int(found[outside][0]))}")
        return found - np.int32(start)

    def _range(self, name: str) -> Range:
        if name not in self.ranges:
            raise ShapeError(f"the vocabulary has no {name}: its model was not trained for play")
        return self.ranges[name]

    def name(self, token: int) -> str:
        """How a drawing or an error message calls a token."""
        where, start = [(name, start) for name, (start, _) in self.ranges.items() if start <= max(token, 0)][-1]
        if where == "special":
            special = dict(enumerate(_NAMES)) | {_RESERVED - 1 - i: name for i, name in enumerate(_CONDITIONS)}
            return special.get(token, f"<reserved:{token}>")
        label = {"numbers": "", "codes": "code:"}.get(where, f"{where}:")
        return f"{label}{token - start}"


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
