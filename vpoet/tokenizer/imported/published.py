"""The tokenizers that others have published and that can be imported, by the names of their families."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from vpoet.tokenizer.imported import cosmos, cosmos_files, emu3, emu3_files, vidtok, vidtok_files
from vpoet.tokenizer.imported.places import Reading


class Family(NamedTuple):
    """How one is read, and what goes with it."""

    option: str
    """Of the command: which one of the family it is, where the file's name does not say; empty: there is but one."""
    read: Callable[[Path, str | None], Reading]
    """From a path, and what the option says."""
    card: Callable[[Any, str, str], str]
    """From the network, the name of what was read, and the tokenizer's hash: what to know of it, as Markdown."""
    license: str
    """Of the weights."""


FAMILIES = {
    cosmos.FAMILY: Family("strides", cosmos_files.read, cosmos_files.card, cosmos.LICENSE),
    vidtok.FAMILY: Family("preset", vidtok_files.read, vidtok_files.card, vidtok.LICENSE),
    emu3.FAMILY: Family("", emu3_files.read, emu3_files.card, emu3.LICENSE),
}
