"""The recipe of a pretraining run: what one YAML file in train/configs holds."""

from dataclasses import dataclass, field

import torch

from vpoet.config import REQUIRED
from vpoet.data.token_dataset import played_space
from vpoet.data.token_documents import REMEDIES
from vpoet.data.token_stream import Source, StreamConfig
from vpoet.errors import ConfigError, DataError
from vpoet.nn.attention import backend
from vpoet.nn.lora import LoraConfig
from vpoet.nn.transformer import TransformerConfig
from vpoet.nn.visibility import Backend
from vpoet.sequence.actions import ActionSpace
from vpoet.sequence.tasks import TABLE, WHOLE
from vpoet.sequence.vocabulary import Vocabulary
from vpoet.tokenizer.contract import Tokenizer
from vpoet.tokenizer.text import TextTokenizer
from vpoet.training.engine.base import EngineConfig
from vpoet.training.engine.ulysses import Share, shared_attention
from vpoet.training.guard import GuardConfig
from vpoet.training.optim import OptimizerConfig
from vpoet.training.precision import DTYPES

LARGEST = 1 << 20
"""Packs of a step, and of an evaluation."""


@dataclass(kw_only=True)
class SampleConfig:
    """Clips sampled on the way, to look at."""

    every: int = 0
    """Steps between samplings; 0 never. They are made beside training, from a checkpoint that is written then."""
    prompts: list[str] = field(default_factory=list)
    frames: int = 17
    height: int = 64
    width: int = 64
    fps: int = 8
    temperature: float = 1.0
    guidance: float = 2.0

    def due(self, step: int, steps: int) -> bool:
        """Whether clips are sampled after ``step`` of a run of ``steps``."""
        return bool(self.every and self.prompts) and (step % self.every == 0 or step == steps)


@dataclass(kw_only=True)
class PretrainConfig:
    """A run of pretraining."""

    run: str = REQUIRED
    """Run folder: checkpoints, metrics, samples."""
    seed: int = 0
    text: str = REQUIRED
    """sentencepiece model."""
    video: str = REQUIRED
    """Video tokenizer's folder; the token shards were made with it."""
    actions: ActionSpace | None = None
    """What the model can be told to do in a world: names of actions, or bounds of vectors. Play, inverse and policy
    need it; none: what the manifests of the token shards say."""
    data: StreamConfig
    heldout: list[Source] = field(default_factory=list)
    """Token shards never trained on."""
    model: TransformerConfig = field(default_factory=TransformerConfig)
    begin: str = ""
    """Bundle whose weights the run starts from; empty: random ones. Tokenizers and sizes are the bundle's."""
    lora: LoraConfig | None = None
    """Train updates of low rank beside the weights of ``begin``, which stay as they are; none: train all weights."""
    train: str = "all"
    """all, or controls: what reads model.controls is trained, beside ``begin``, which is frozen, and without controls
    stays what it is bit for bit (ControlNet, Zhang et al., ICCV 2023, section 3.1)."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    attention: str = "auto"
    """Attention backend: auto, sdpa, products, flex, varlen, flash or flash3."""
    deterministic: bool = True
    """On GPUs, attention's backward pass adds up in a fixed order, for some memory and time: without it a resumed run
    continues to rounding, and not bit for bit."""
    compile: bool = False
    """Fuse what stands between attentions with torch.compile: half a minute at the start, then faster steps."""
    checkpoint_blocks: bool = False
    """Compute every block again in the backward pass, from its input: a third more arithmetic for a fraction of the
    activations (`vpoet inspect RECIPE --device` prints both)."""
    z_loss: float = 0.0
    """Weight of log(Z)^2 of each softmax in the gradient (PaLM, section 5, uses 1e-4); reported losses are without."""
    batch: int = 8
    """Packs between optimiser steps, over all processes; the number of processes (of groups of them, with
    engine.sequence_parallel) divides it."""
    steps: int = 1000
    log_every: int = 10
    evaluate_every: int = 200
    """Steps between evaluations on held-out packs."""
    evaluate_packs: int = 16
    save_every: int = 200
    keep: int = 2
    """Newest checkpoints kept."""
    keep_every: int = 0
    """Checkpoints of steps that are a multiple of it are kept for good; 0 none."""
    samples: SampleConfig = field(default_factory=SampleConfig)
    project: str = "vpoet"
    """wandb project."""

    def __post_init__(self) -> None:
        for name in ("batch", "steps", "log_every", "evaluate_every", "save_every", "keep"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be at least 1")
        for name in ("batch", "evaluate_packs"):
            if getattr(self, name) > LARGEST:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be at most {LARGEST}")
        if self.lora is not None and not self.begin:
            raise ConfigError("lora: changes a trained model, and none is given; add begin=BUNDLE")
        if self.train not in ("all", "controls"):
            raise ConfigError(f"train: {self.train!r} is neither all nor controls")
        if self.train == "controls" and not (self.begin and self.data.controls and self.lora is None):
            raise ConfigError(
                "train=controls: teaches a trained model to read controls; add begin=BUNDLE, model.controls and "
                "data.controls, and leave out lora"
            )
        if unread := [kind for kind in self.data.controls if kind not in self.model.controls]:
            raise ConfigError(
                f"data.controls.{unread[0]}: the network does not read it; add model.controls=[{unread[0]}]"
            )
        if self.z_loss < 0:
            raise ConfigError(f"z_loss = {self.z_loss}: must be at least 0")
        if self.keep_every < 0:
            raise ConfigError(f"keep_every = {self.keep_every}: must be at least 0")
        pieces, model = self.engine.sequence_parallel, self.model
        shared = {"data.length": self.data.length, "model.heads": model.heads, "model.kv_heads": model.kv_heads}
        for name, number in shared.items():
            if number % pieces:
                raise ConfigError(f"engine.sequence_parallel = {pieces} must divide {name} = {number}")

    def vocabulary(self, text: TextTokenizer, video: Tokenizer) -> Vocabulary:
        """Of the model; where it is to play, ``actions`` say from then on what the token shards do.

        DataError: no shards tell what can be done, or they tell different things. ConfigError: a task needs codes of
        images, or of clips that begin with one, and a tokenizer that is not causal has none.
        """
        partial = [task for task, weight in self.data.tasks.items() if weight > 0 and task not in WHOLE]
        if partial and not video.causal:
            raise ConfigError(
                f"data.tasks.{partial[0]}: {self.video} is not causal: its first cell is {video.first} frames, as all "
                f"are, so that no image has codes; it goes with {' and '.join(WHOLE)}"
            )
        plain = video.vocabulary(text, self.model.visual_groups)
        playing = [task for task, weight in self.data.tasks.items() if weight > 0 and TABLE[task].needs == "actions"]
        if not playing:
            return plain
        folders = list(dict.fromkeys(source.path for source in (*self.data.sources, *self.heldout)))
        told = played_space(folders)
        if self.actions is None and told is None:
            raise DataError(f"{', '.join(playing)}: no actions in {', '.join(folders)}; {REMEDIES['actions']}")
        if None not in (self.actions, told) and self.actions != told:
            raise DataError(f"actions: the recipe says {self.actions}, the token shards {told}")
        self.actions = self.actions or told
        assert self.actions is not None
        return self.actions.vocabulary(plain)

    def attends(self, device: torch.device) -> Backend:
        """How packs are attended, checked for the device; BackendError says what is lacking."""
        whole = backend(
            self.attention,
            device,
            DTYPES[self.engine.dtype],
            head=self.model.head,
            deterministic=self.deterministic,
            windows=self.data.window > 0,
        )
        return shared_attention(whole, self.engine.sequence_parallel)

    def packs_per_process(self, world: int) -> int:
        share = Share(0, world, self.engine.sequence_parallel)
        if self.batch % share.groups:
            who = "processes" if share.pieces == 1 else f"groups of {share.pieces} processes"
            raise ConfigError(f"batch = {self.batch} packs cannot be shared evenly by {share.groups} {who}")
        return self.batch // share.groups
