"""Which networks a chain trains: recipes that ship, the transformer as large as the hours and the clips are worth."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil, prod
from pathlib import Path

import torch

from vpoet import config
from vpoet.evaluate import budget
from vpoet.evaluate.chain.trial import WORDS, Rates, words_of
from vpoet.files import programs_folder
from vpoet.nn.transformer import Transformer
from vpoet.sequence.tasks import WHOLE
from vpoet.tokenizer.video import SHIPPED
from vpoet.training.codec.recipe import VideoTokenizerRecipe
from vpoet.training.recipe import PretrainConfig

OWN = {"droid-64": 4, "30m": 16, "120m": 64}
"""Recipes of the transformer for clips of one's own, the smallest first, and packs of a step."""
WORLDS = {"demo": 2, "30m": 16, "120m": 64}
"""The same for clips of worlds."""
LENGTH = 512
"""Packs are a multiple of so many tokens."""
HEADER = 32
"""Tokens of a document, about, that are neither caption nor codes."""
TOKENS_A_PARAMETER = 20
"""Hoffmann et al., "Training Compute-Optimal Large Language Models" (arXiv:2203.15556), table 3."""
TOKENS_TO_LEARN = 0.5
"""Tokens of different clips that there are for each parameter of a transformer, but the smallest."""
MEMORY = 0.6
"""Of this machine's, that training takes at most."""


@dataclass(frozen=True)
class Sized:
    """A transformer that could be trained."""

    recipe: Path
    config: PretrainConfig
    """With what is changed in it."""
    changes: list[str]
    parameters: int
    step: float
    """Seconds."""

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.config.batch * self.config.data.length


def recipe(folder: str, name: str) -> Path:
    """A recipe that ships."""
    return shipped(f"{folder}/configs/{name}.yaml")


def shipped(name: str) -> Path:
    """A file of the programs' folders, by its shortest path from here."""
    path = programs_folder() / name
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def tokenizer(own: bool) -> tuple[Path, list[str]]:
    """The video tokenizer's recipe, and what is changed in it: for clips of one's own, the one that ships is trained
    on; for those of a world a small one begins anew."""
    if not own:
        return recipe("tokenizers", "tiny-platformer"), []
    changes = [f"begin={SHIPPED}", "augment=false", "image_batch=0", "batch=8", "export_dtype=fp32"]
    return recipe("tokenizers", "general"), [*changes, "optimizer.lr=1e-3", "optimizer.matrix_lr=1e-3"]


def tried_tokenizer(own: bool) -> VideoTokenizerRecipe:
    """The recipe that `tokenizer` names, with its changes."""
    path, changes = tokenizer(own)
    return config.load(path, VideoTokenizerRecipe, changes)


def tried_transformer(own: bool) -> PretrainConfig:
    """The smallest transformer: the one whose steps are timed."""
    name = next(iter(OWN if own else WORLDS))
    return config.load(recipe("train", name), PretrainConfig)


def transformer(own: bool, seconds: float, clips: float, rates: Rates, processes: int) -> Sized:
    """The largest that is worth its training of so many seconds, on so many different clips."""
    chosen = None
    for sized in _sizes(own, rates, processes):
        seen = seconds / sized.step * sized.tokens
        worth = seen >= TOKENS_A_PARAMETER * sized.parameters and clips * prod(rates.cells) >= (
            TOKENS_TO_LEARN * sized.parameters
        )
        if chosen is None or (worth and _fits(sized, rates, processes)):
            chosen = sized
        else:
            break
    assert chosen is not None
    return chosen


def document(rates: Rates) -> int:
    """Tokens of a captioned clip, about."""
    return prod(rates.cells) + WORDS + HEADER


def _sizes(own: bool, rates: Rates, processes: int) -> Iterator[Sized]:
    """All of them, with the time of their steps by their arithmetic beside that of the smallest, which was timed."""
    precision = min(rates.packs, key=lambda name: rates.packs[name])
    timed = tried_transformer(own)
    per_second = _flops(timed, rates) * timed.data.length / rates.packs[precision]
    for name, batch in (OWN if own else WORLDS).items():
        path, batch = recipe("train", name), max(batch, processes)
        plain = config.load(path, PretrainConfig)
        length = max(min(plain.data.length, 4 * LENGTH), LENGTH * ceil(1.2 * document(rates) / LENGTH))
        changes = [f"data.length={length}", f"batch={batch}", f"engine.dtype={precision}", "compile=false"]
        if not rates.causal:  # its codes know no images, nor clips that begin with one
            changes += [f"data.tasks.{task}=0" for task in plain.data.tasks if task not in WHOLE]
        found = config.load(path, PretrainConfig, changes)
        step = _flops(found, rates) * length * ceil(batch / processes) / per_second
        with torch.device("meta"):
            parameters = Transformer(found.model, words_of(found, rates.levels)).parameter_count
        yield Sized(path, found, changes, parameters, step)


def _flops(found: PretrainConfig, rates: Rates) -> float:
    """Of a token."""
    with torch.device("meta"):
        return budget.flops_per_token(found, Transformer(found.model, words_of(found, rates.levels)))


def _fits(sized: Sized, rates: Rates, processes: int) -> bool:
    cuda = torch.cuda.is_available()
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / processes
    limit = torch.cuda.get_device_properties(0).total_memory if cuda else whole
    engine = replace(sized.config.engine, name="deepspeed" if processes > 1 else "torch")
    found = replace(sized.config, engine=engine)
    need = budget.memory(found, words_of(found, rates.levels), world=processes, on_cpu=not cuda)
    return need.total < MEMORY * limit
