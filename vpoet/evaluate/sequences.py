"""Drawings of the sequences and packs that training would read, task by task."""

from dataclasses import replace
from pathlib import Path

from vpoet.data.shards import Manifest
from vpoet.data.token_stream import Source, StreamConfig, heldout_packs
from vpoet.errors import DataError
from vpoet.evaluate.describe import tokenizers
from vpoet.sequence.drawing import draw_pack, draw_sequence
from vpoet.sequence.packing import unpack
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Vocabulary
from vpoet.tokenizer.text import TextTokenizer
from vpoet.training.recipe import PretrainConfig


def draw(data: StreamConfig, vocabulary: Vocabulary, text: TextTokenizer) -> dict[str, str]:
    """A picture of one sequence for each of the config's tasks, and one of a pack of all of them."""
    data = replace(data, drop_caption=0.0, drop_condition=0.0)
    pictures: dict[str, str] = {}
    alone = {task: replace(data, tasks={task: 1.0}, lookahead=1) for task in data.tasks}
    for name, drawn in (alone | {"": data}).items():
        if not name and all(picture.startswith("none: ") for picture in pictures.values()):
            break
        try:
            rows = heldout_packs(drawn, vocabulary=vocabulary, text=text.encode, count=1)
            if not rows:
                raise DataError(f"no document fits a pack of {data.length} tokens")
            pictures[name or "pack"] = draw_sequence(unpack(rows[0])[0], vocabulary) if name else draw_pack(rows[0])
        except DataError as error:
            pictures[name or "pack"] = f"none: {error}"
    return pictures


def draw_recipe(recipe: PretrainConfig) -> dict[str, str]:
    """`draw` of a pretraining recipe's own data."""
    text, vocabulary = tokenizers(recipe)
    return draw(recipe.data, vocabulary, text)


def draw_shards(folder: Path, text: TextTokenizer, length: int) -> dict[str, str]:
    """`draw` of a folder of token shards, with every task there is; the tokenizer's levels have no part in it."""
    manifest = Manifest.load(folder)
    vocabulary = Vocabulary(text.size, (2**30,), text.hash, manifest.tokenizer or "")
    if manifest.actions:
        vocabulary = manifest.actions.vocabulary(vocabulary)
    data = StreamConfig(sources=[Source(path=str(folder))], tasks=dict.fromkeys(TABLE, 1.0), length=length)
    return draw(data, vocabulary, text)
