"""What a chain is made from: its sources with a caption for each, as arguments of `vpoet ingest`."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vpoet.data.fields import captions, words
from vpoet.data.lists import LISTS, read_list, row_name
from vpoet.data.naming import NOTHING, named
from vpoet.data.remote import address
from vpoet.data.sources import MADE, Item, divide, gather
from vpoet.errors import DataError
from vpoet.files import write_atomic
from vpoet.tokenizer.text import SMALLEST
from vpoet.worlds import ENV

LIST = "sources.jsonl"
"""The list that a chain writes where captions are missing, or sources are too many for the hours."""
PIECES = 512
"""Of text, unless the captions have many characters."""
CLIPS = 3000
"""Clips that a world makes unless it is said otherwise, and the hours allow them."""
_TOLD = {
    "text": "from a .txt beside the file",
    "name": "from the file's name",
    "folder": "from the folder's name",
    "nothing": f"{NOTHING!r}, as neither file nor folder has a name that says anything",
}


@dataclass(frozen=True)
class Sources:
    """The items of a chain, with what `vpoet ingest` has to be given for them."""

    arguments: list[str]
    """Sources as the user gave them, of which all is known."""
    listed: list[Item]
    """Items that go through `LIST`."""
    kept: Sequence[Item]
    """The others, in order."""
    notes: list[str]
    """What to tell the user of the captions."""
    clips: int | None = None
    """Of a world: how many to make."""

    @property
    def items(self) -> list[Item]:
        return [*self.kept, *self.listed]

    @property
    def pieces(self) -> int:
        """Of a text tokenizer for the captions: each of their characters needs one, beside the 256 bytes."""
        characters = {letter for item in self.items for text in words(item.fields) for letter in text.casefold()}
        return max(PIECES, SMALLEST + 4 * len(characters))

    def fewer(self, count: int) -> "Sources":
        """About ``count`` of the items, taken evenly; what cannot be put in a list (tars, several files) stays."""
        if self.clips is not None:
            made = gather(self.arguments, clips=max(2, count))
            return Sources(self.arguments, [], made, self.notes, max(2, count))
        left = [item for item in self.items if item.path and not item.is_tar]
        whole = [item for item in self.items if not item.path or item.is_tar]
        step = max(1.0, len(left) / max(2, count - len(whole)))
        chosen = [left[int(at * step)] for at in range(int(len(left) / step))]
        arguments = [item.path for item in whole if item.path]
        return Sources(arguments, chosen, [item for item in whole if item.path], self.notes)

    def given(self, out: Path) -> list[str]:
        """The arguments of `vpoet ingest`."""
        return [*self.arguments, *([str(out / LIST)] if self.listed else [])]

    def write(self, out: Path) -> None:
        """Write the list that is one of these, if there is one."""
        if self.listed:
            rows = [{**item.fields, "path": _from(out, item.path)} for item in self.listed]
            write_atomic(out / LIST, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def holdout(self, out: Path) -> float:
        """The smallest share of the sources that `vpoet ingest --holdout` can take with both sides filled; 0: none."""
        # by their names, which are others in the list
        items = [*self.kept, *(replace(item, name=row_name(out, _from(out, item.path))) for item in self.listed)]
        for share in (0.1, 0.2, 0.3, 0.5):
            try:
                divide(items, holdout=share)
            except DataError:
                continue
            return share
        return 0.0


def find(sources: Sequence[str], clips: int | None) -> Sources:
    """All sources, with captions for those that have none. DataError: one is not there, or of no known kind."""
    worlds = [source for source in sources if source.startswith(MADE)]
    if worlds and len(worlds) < len(sources):
        raise DataError(f"{worlds[0]}: a world's clips are made, not read: give worlds alone, or files alone")
    if played := [world for world in worlds if world.startswith(ENV)]:
        raise DataError(
            f"{played[0]}: its clips have no captions, which a chain needs; train/README.md says how else to use them"
        )
    if worlds:
        made = clips or CLIPS
        return Sources(list(worlds), [], gather(worlds, clips=made), [f"captions: those of {', '.join(worlds)}"], made)
    if clips is not None:
        raise DataError("--clips says how many clips of a world:NAME to make, and there is none among the sources")
    arguments: list[str] = []
    kept: list[Item] = []
    listed: list[Item] = []
    notes: list[str] = []
    told: Counter[str] = Counter()
    for source in sources:
        inside = _list_in(Path(source))
        given = source if inside is None else str(inside)
        items = gather([given])
        without = [item for item in items if _needs_caption(item)]
        if not without or any(not item.path and not item.problem for item in items):
            arguments.append(given)
            kept += items
            if Path(given).suffix.lower() in LISTS:
                notes.append(f"captions: those of {given}")
            continue
        for item in items:
            if item.problem:
                continue
            if _needs_caption(item):
                found = named(item.path, item.name)
                told[found.source] += 1
                item = Item(item.name, item.path, {**item.fields, "caption": found.caption})
            listed.append(item)
        if len(without) < len(items):
            notes.append(f"captions: those of {given}, where it has some")
    notes += [f"captions of {count} of {sum(told.values())} files: {_TOLD[how]}" for how, count in told.most_common()]
    return Sources(arguments, listed, kept, notes)


def _needs_caption(item: Item) -> bool:
    timed = item.fields.get("captions")
    return bool(item.path) and not (item.problem or item.is_tar or captions(item.fields) or timed)


def _list_in(folder: Path) -> Path | None:
    """The one list in a folder that names files which are there; DataError if there are several."""
    if not folder.is_dir():
        return None
    found = []
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in LISTS and path.is_file()):
        try:
            if any(row.url or (row.path and row.path.is_file()) for row in read_list(path)):
                found.append(path)
        except DataError:  # another list than one of clips
            continue
    if len(found) > 1:
        raise DataError(f"{folder}: {' and '.join(path.name for path in found)} list clips; name one of them")
    return found[0] if found else None


def _from(out: Path, path: str) -> str:
    """A file as the list in ``out`` names it, so that it is called the same wherever both are moved together."""
    return path if address(path) else os.path.relpath(path, out)
