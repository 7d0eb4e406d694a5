"""The recipe of a video tokenizer's training: what one YAML file in tokenizers/configs holds."""

from dataclasses import dataclass, field

from vpoet import config
from vpoet.errors import ConfigError
from vpoet.tokenizer.autoencoder import AutoencoderConfig
from vpoet.training.codec.adversarial import AdversarialConfig
from vpoet.training.codec.loss import LossConfig
from vpoet.training.optim import OptimizerConfig
from vpoet.training.precision import IN_FILES

TRAINED_IN = ("fp32", "bf16", "auto")
TRAINED = ("all", "decoder")

LARGEST = 16_384
"""Frames of a clip, pixels of a side, clips of a batch, and clips that are scored."""

FREE_TO_CHANGE = (
    *("run", "data", "images", "held_out", "device", "export_dtype", "decoders"),
    *("steps", "log_every", "evaluate_every", "evaluate_clips", "save_every"),
)
"""Recipe keys that a resumed run may change: they have no part in what is learned, but for the steps, to whose end the
rates fall from then on."""


@dataclass(kw_only=True)
class TokenizerOptimizerConfig(OptimizerConfig):
    """Muon for the matrices inside the network, AdamW for all else; one warm-up and cosine decay for both.

    Muon moves a matrix by the orthogonalised average of its gradients.
    """

    lr: float = 3e-3
    """AdamW's peak learning rate."""
    matrix_lr: float = 2.5e-3
    """Muon's peak learning rate."""
    final_lr: float = 0.02
    warmup: int = 50
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.matrix_lr > 0:
            raise ConfigError("optimizer.matrix_lr must be above 0")


@dataclass(kw_only=True)
class VideoTokenizerRecipe:
    """One training run of a video tokenizer."""

    run: str = config.REQUIRED
    """Folder that the run writes: checkpoints, metrics, samples, and at the end ``tokenizer/``."""
    data: list[str] = config.REQUIRED
    """Folders of raw shards."""
    held_out: list[str] = field(default_factory=list)
    """Folders of raw shards for evaluation alone; without any, training clips are scored, under another name."""
    images: list[str] = field(default_factory=list)
    """Folders of raw shards that images are drawn from, one frame of a video among them; none for ``data``."""
    frames: int = 17
    """Frames of a training clip: 1 + a multiple of the model's time stride."""
    height: int = 64
    """Pixels; clips of another size are scaled to cover this and cut."""
    width: int = 64
    augment: bool = False
    """Train on random views (`clip_stream.random_view`): windows instead of resized frames, mirrored, backwards."""
    window: int = 0
    """Pixels of a side of the squares of these clips that are trained on, a multiple of 16, most of them around what
    moves (`clip_stream.moving_window`); 0: whole clips. Whole ones are evaluated either way."""
    clips_of_video: int = 1
    """Clips that a step takes of each video that is read: more of them are less work to decode, and less different."""
    model: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    begin: str = ""
    """A video tokenizer's folder whose weights the run begins with, instead of random ones."""
    train: str = "all"
    """all, or decoder: the encoder stays, and so do the codes. A second stage at a higher resolution needs no more."""
    loss: LossConfig = field(default_factory=LossConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    optimizer: TokenizerOptimizerConfig = field(default_factory=TokenizerOptimizerConfig)
    batch: int = 4
    """Clips in an optimiser step, all processes together."""
    image_batch: int = 0
    """Images in an optimiser step, beside the clips; an image counts as much as a clip."""
    steps: int = config.REQUIRED
    """Optimiser steps of the whole run."""
    ema: float = 0.998
    """Decay of the averaged weights per step; they are what is evaluated and exported."""
    dtype: str = "bf16"
    """fp32; bf16: matrix products in bfloat16 (autocast), weights and optimiser in fp32 either way; or auto: bf16 where
    the device multiplies it itself, fp32 elsewhere. A run's checkpoints hold which it was."""
    export_dtype: str = "fp32"
    """fp32, or fp16: weights of the exported tokenizer rounded, in half the space."""
    compile: bool = False
    """Fuse the network's layers, and the loss's, with torch.compile: a minute or so at the start, then faster steps."""
    decoders: int = 4
    """Threads that decode clips in each process; the clips are the same for any number."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda where there is one."""
    seed: int = 0
    log_every: int = 20
    """Steps between lines on the console and in metrics.jsonl."""
    evaluate_every: int = 500
    """Steps between evaluations; the last step is always evaluated."""
    evaluate_clips: int = 64
    save_every: int = 250
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        for name in ("steps", "decoders", "log_every", "evaluate_every", "evaluate_clips", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be at least 1")
        for name in ("batch", "frames", "height", "width", "evaluate_clips"):
            if not 1 <= getattr(self, name) <= LARGEST:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be 1 to {LARGEST}")
        for name, most in (("image_batch", LARGEST), ("seed", 2**63 - 1)):
            if not 0 <= getattr(self, name) <= most:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be 0 to {most}")
        if self.clips_of_video < 1 or self.batch % self.clips_of_video:
            raise ConfigError(f"clips_of_video = {self.clips_of_video}: batch = {self.batch} must be a multiple of it")
        if self.window % 16 or not 0 <= self.window <= min(self.height, self.width):
            raise ConfigError(
                f"window = {self.window}: a multiple of 16 up to height and width ({self.height}, {self.width}), or 0"
            )
        if self.dtype not in TRAINED_IN:
            raise ConfigError(f"dtype is {self.dtype!r}; choose one of {', '.join(TRAINED_IN)}")
        if self.export_dtype not in IN_FILES:
            raise ConfigError(f"export_dtype is {self.export_dtype!r}; choose one of {', '.join(IN_FILES)}")
        if self.train not in TRAINED:
            raise ConfigError(f"train is {self.train!r}; choose one of {', '.join(TRAINED)}")
        if self.loss.evenness and self.model.quantiser.kind != "fsq":
            raise ConfigError(f"loss.evenness is FSQ's; for {self.model.quantiser.kind} set model.quantiser.entropy")
        if self.loss.still and self.model.quantiser.kind != "fsq":
            raise ConfigError(f"loss.still is FSQ's; for {self.model.quantiser.kind} set loss.changes")
        if self.adversarial.weight and self.adversarial.start >= self.steps:
            raise ConfigError(
                f"adversarial.start = {self.adversarial.start}: the run ends before, at {self.steps} steps"
            )
        if self.train == "decoder" and not self.begin:
            raise ConfigError("train = decoder keeps the encoder as it is: give begin=FOLDER, a trained tokenizer")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"ema = {self.ema}: must be at least 0 and below 1")
