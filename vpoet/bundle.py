"""The bundle: one folder with all that sampling needs, and nothing that is unpickled.

config.yaml                   BundleConfig: the network's sizes, what it was trained for, its tokenizers' hashes
model.safetensors             weights; its header names the vocabulary that they were trained on
text.model                    sentencepiece
video_tokenizer/              config.yaml, model.safetensors
card.md                       what this model is, for people
"""

import hashlib
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from vpoet import config as configs
from vpoet import hub
from vpoet.adapter import Adapter
from vpoet.errors import CheckpointError, ConfigError, DataError, HashMismatch
from vpoet.files import CONFIG as CONFIG
from vpoet.files import WEIGHTS as WEIGHTS
from vpoet.files import folder_aside
from vpoet.nn.initial import Weightless, Weights, completed
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.outputs import expect_folder
from vpoet.sequence.actions import ActionSpace
from vpoet.sequence.conditions import Learnt, complete
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Vocabulary
from vpoet.tokenizer import video as video_tokenizer
from vpoet.tokenizer.contract import Tokenizer
from vpoet.tokenizer.text import TextTokenizer
from vpoet.tokenizer.video import VideoTokenizer

TEXT = "text.model"
VIDEO = "video_tokenizer"
CARD = "card.md"
SHIPPED = Path(__file__).parent / "weights" / "platformer-64"
"""The bundle that comes with the package."""
PARTS = (CONFIG, WEIGHTS, TEXT, VIDEO, CARD)
FILES = (CONFIG, WEIGHTS, TEXT, CARD, *(f"{VIDEO}/{name}" for name in video_tokenizer.FILES))
"""All that a bundle is, file by file."""


@dataclass(kw_only=True)
class BundleConfig:
    """What a bundle says of itself."""

    model: TransformerConfig
    text_tokenizer: str = ""
    video_tokenizer: str = ""
    """Content hashes of the tokenizers, 16 hex digits; `save` fills them in."""
    bidirectional: bool = False
    """The model reads what comes before its target both ways (prefix-LM)."""
    window: int = 0
    """Frames for which it saw a frame in training, and so in sampling (`vpoet.sequence.windows`); 0: to the end."""
    length: int = 2048
    """Tokens of the packs it was trained on, and so of the longest document that it can serve."""
    tasks: list[str] = field(default_factory=lambda: ["t2v"])
    """What it was trained to do: names of `vpoet.sequence.tasks.TABLE`."""
    actions: ActionSpace | None = None
    """What it can be told to do in a world: names of actions, or bounds of vectors; none: it does not play."""
    frames: int = 17
    """Length, size (pixels) and rate (frames per second) of a clip unless others are asked for: the training data's."""
    height: int = 64
    width: int = 64
    fps: int = 8
    guidance: float = 1.0
    """Guidance and temperature unless others are asked for: those that suit the model."""
    temperature: float = 1.0
    conditions: dict[str, Learnt] = field(default_factory=dict)
    """What else than words and pictures it can be asked for, by the names of `vpoet.sequence.conditions.TABLE`."""
    words: list[str] = field(default_factory=list)
    """Every word of the captions that it was trained on, where they are few; empty: too many to tell."""

    def __post_init__(self) -> None:
        for name in ("length", "frames", "height", "width", "fps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be at least 1")
        if self.window < 0:
            raise ConfigError(f"window = {self.window}: must be 0 or more")
        for name in ("guidance", "temperature"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be 0 or more")
        complete(self.conditions)
        if not self.tasks:
            raise ConfigError("tasks: there must be one at least")
        if unknown := set(self.tasks) - set(TABLE):
            raise ConfigError(f"tasks: no {', '.join(sorted(unknown))}; there are {', '.join(TABLE)}")
        if self.actions is None and (playing := [task for task in self.tasks if TABLE[task].needs == "actions"]):
            raise ConfigError(f"tasks: {', '.join(playing)}: say in `actions` what the model can be told to do")


@dataclass(frozen=True, eq=False, slots=True)
class Bundle:
    """A bundle in memory, ready to sample: no gradients, dropout off."""

    transformer: Transformer
    text: TextTokenizer
    video: Tokenizer
    config: BundleConfig
    hash: str
    """16 hex digits of the weights, an adapter's update included, and the vocabulary, as they were when saved."""


def save(
    folder: str | Path,
    transformer: Transformer,
    config: BundleConfig,
    text: TextTokenizer,
    video: Tokenizer,
    card: str,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write the folder whole or not at all, in place of a bundle that is there already; the weights in ``dtype``.

    CheckpointError if the folder holds something else, or a weight is not finite; HashMismatch if parts don't belong
    together; OutputError if the disk refuses.
    """
    folder = Path(folder)
    check_vacant(folder)
    assert config.model == transformer.config, (config.model, transformer.config)
    config = replace(config, text_tokenizer=text.hash, video_tokenizer=video.hash)
    _check_vocabulary(folder, transformer.vocabulary.hash, _vocabulary(config, text, video))
    weights = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in transformer.state_dict().items()}
    if broken := [name for name, tensor in weights.items() if not bool(tensor.isfinite().all())]:
        raise CheckpointError(f"{folder}: {len(broken)} tensors hold NaN or infinity ({broken[0]} first); not saved")
    header = {"vocabulary": transformer.vocabulary.hash, "hash": _hash(transformer.vocabulary, weights)}

    with folder_aside(folder) as fresh:
        configs.save(config, fresh / CONFIG)
        try:
            save_file(weights, fresh / WEIGHTS, metadata=header)
        except SafetensorError as error:
            refused = re.search(r"os error (\d+)", str(error))
            number = int(refused[1]) if refused else 0
            raise OSError(number, os.strerror(number) if number else str(error)) from None
        text.save(fresh / TEXT)
        video.save(fresh / VIDEO)
        (fresh / CARD).write_text(card, "utf-8")


def check_vacant(folder: Path) -> None:
    """CheckpointError, OutputError if a bundle can't be written there, as something else is, or nothing can be.

    What is there is removed with all that lies in it: only a bundle, with nothing beside its parts, is given up.
    """
    expect_folder(folder)
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    whole = {CONFIG, WEIGHTS} <= found and bool(found & {TEXT, VIDEO})  # a tokenizer's folder has the first two alone
    if more := sorted(found - {*PARTS} if whole else found):
        told = f"holds {more[0]} beside a bundle" if whole else "exists and is no bundle"
        raise CheckpointError(f"{folder}: {told}; choose another name, or remove it yourself")


def load(
    folder: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    adapter: str | Path | None = None,
) -> Bundle:
    """Read a bundle, of a folder or of a hub (``hf://user/name@revision``), and add an adapter's update to its weights.

    The weights are hashed as they are read, whatever ``device`` and ``dtype``: 5 ms for the bundle that ships, half a
    second per gigabyte, which is less than a disk takes to read it; nothing switches it off, as samples of damaged
    weights look like samples. CheckpointError: a part is missing or damaged, or a weight is not finite; HashMismatch:
    two parts, or the adapter, don't belong together.
    """
    folder, device = hub.local(folder, FILES), torch.device(device)
    config, text, video = _parts(folder)
    vocabulary = _vocabulary(config, text, video.to(device))
    with _reading(folder):
        on_disk = _OnDisk(folder, vocabulary)
        weights = dict(on_disk)
        with Weightless():
            transformer = Transformer(config.model, vocabulary)
        transformer.load_state_dict(weights, assign=True)
        own_hash = _hash(vocabulary, weights)
        _check_weights(folder / WEIGHTS, weights, own_hash, on_disk.saved)
        if adapter:
            learned = Adapter.load(Path(adapter))
            # in fp32 on the CPU, so that the sum and its hash are the same for every device and dtype
            whole = {name: weight.float() for name, weight in weights.items()}
            weights = learned.applied(whole, own_hash, str(adapter))
            own_hash = _hash(vocabulary, weights)
            config = replace(config, words=join_words(config.words, learned.words))
            transformer.load_state_dict(weights, assign=True)
        del weights  # each is freed when the next line has moved it
        transformer.to(device, dtype)
    return Bundle(transformer.eval().requires_grad_(False), text, video, config, own_hash)


def _parts(folder: Path) -> tuple[BundleConfig, TextTokenizer, Tokenizer]:
    """A bundle but for its weights."""
    if missing := [
        part for part in PARTS if not ((folder / part).is_file() or (part == VIDEO and (folder / part).is_dir()))
    ]:
        what = "no such folder" if not folder.is_dir() else f"not a whole bundle, it lacks {', '.join(missing)}"
        raise CheckpointError(f"{folder}: {what}; `vpoet export` makes bundles")
    try:
        config = configs.load(folder / CONFIG, BundleConfig)
        text = TextTokenizer.load(folder / TEXT)
    except (ConfigError, DataError) as error:
        raise CheckpointError(f"{error}; copy the bundle again, or export it again") from None
    video = VideoTokenizer.load(folder / VIDEO)
    _check_hashes(folder, config, text, video)
    return config, text, video


class _OnDisk(Mapping[str, torch.Tensor]):
    """The weights of a bundle, each read when it is asked for."""

    def __init__(self, folder: Path, vocabulary: Vocabulary) -> None:
        self._file = cast(Any, safe_open(folder / WEIGHTS, framework="pt"))
        header = self._file.metadata() or {}
        _check_vocabulary(folder, header.get("vocabulary", "(none)"), vocabulary)
        self.saved: str = header.get("hash", "(none)")
        self._names: list[str] = list(self._file.keys())

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._file.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Whatever is wrong with the file of weights is a CheckpointError."""
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{folder / WEIGHTS}: not readable: {error}; copy the bundle again") from None
    except RuntimeError as error:
        raise CheckpointError(f"{folder}: {WEIGHTS} does not fit {CONFIG}: {' '.join(str(error).split())}") from None


def join_words(*each: list[str]) -> list[str]:
    """All words of several `BundleConfig.words`; empty if any is: too many to tell."""
    return sorted({word for words in each for word in words}) if all(each) else []


def begin(transformer: Transformer, folder: str | Path) -> tuple[str, Weights]:
    """The hash of a bundle, of a folder or of a hub, and its weights for this transformer, read one at a time; only its
    dropout may be another, and the controls that it reads: weights of new ones are drawn, of others left out.

    HashMismatch: the bundle has another vocabulary, so other tokenizers; ConfigError: its network has other sizes;
    CheckpointError as in `load`.
    """
    folder = hub.local(folder, FILES)
    config, text, video = _parts(folder)
    vocabulary = _vocabulary(config, text, video)
    wanted, found = transformer.vocabulary.hash, vocabulary.hash
    if wanted != found:
        raise HashMismatch(
            f"begin = {folder}: its vocabulary is {found}, the recipe's tokenizers make {wanted}; take the bundle's "
            f"own, text = {folder}/{TEXT} and video = {folder}/{VIDEO}"
        )
    sizes = replace(config.model, dropout=transformer.config.dropout, controls=transformer.config.controls)
    if sizes != transformer.config:
        raise ConfigError(f"begin = {folder}: its network is {sizes}, the recipe's model is {transformer.config}")
    own_hash, on_disk = _verified(folder, config, vocabulary)
    return own_hash, completed(transformer, on_disk)


def verify(folder: Path) -> tuple[str, str]:
    """What a folder holds, "bundle" or "video tokenizer", and its hash, found right; errors as in `load`."""
    if not ((folder / TEXT).exists() or (folder / VIDEO).exists()):
        return "video tokenizer", VideoTokenizer.load(folder).hash
    config, text, video = _parts(folder)
    return "bundle", _verified(folder, config, _vocabulary(config, text, video))[0]


def files_of(folder: Path) -> list[str]:
    """The files that belong to a bundle or a video tokenizer, of those in its folder."""
    return [name for name in FILES if (folder / name).is_file()]


def _verified(folder: Path, config: BundleConfig, vocabulary: Vocabulary) -> tuple[str, _OnDisk]:
    with _reading(folder):
        on_disk = _OnDisk(folder, vocabulary)
        with Weightless():
            found = {name: value.to("meta") for name, value in on_disk.items()}
            Transformer(config.model, vocabulary).load_state_dict(found)
        own_hash = _hash(vocabulary, on_disk)
        _check_weights(folder / WEIGHTS, on_disk, own_hash, on_disk.saved)
    return own_hash, on_disk


def _hash(vocabulary: Vocabulary, weights: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(vocabulary.hash.encode())
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _check_weights(path: Path, weights: Mapping[str, torch.Tensor], found: str, saved: str) -> None:
    if broken := [name for name, tensor in weights.items() if not bool(tensor.isfinite().all())]:
        raise CheckpointError(
            f"{path}: {len(broken)} tensors hold NaN or infinity ({broken[0]} first); copy the bundle again, or export "
            "an earlier checkpoint"
        )
    if found != saved:
        raise CheckpointError(
            f"{path}: saved with hash {saved}, but its content now has {found}: it was changed or damaged. Copy the "
            "bundle again, or export it again"
        )


def _check_hashes(folder: Path, config: BundleConfig, text: TextTokenizer, video: Tokenizer) -> None:
    for part, wanted, found in (
        (TEXT, config.text_tokenizer, text.hash),
        (VIDEO, config.video_tokenizer, video.hash),
    ):
        if wanted != found:
            raise HashMismatch(
                f"{folder}: the model was trained with the tokenizer {wanted}, but {part} is {found}: its codes mean "
                "something else. Take the tokenizer that encoded the training data"
            )


def _vocabulary(config: BundleConfig, text: TextTokenizer, video: Tokenizer) -> Vocabulary:
    plain = video.vocabulary(text, config.model.visual_groups)
    return plain if config.actions is None else config.actions.vocabulary(plain)


def _check_vocabulary(folder: Path, trained: str, vocabulary: Vocabulary) -> None:
    if trained != vocabulary.hash:
        raise HashMismatch(
            f"{folder}: the weights were trained on the vocabulary {trained}, but {CONFIG} and the tokenizers make "
            f"{vocabulary.hash}; {WEIGHTS} comes from another model"
        )
