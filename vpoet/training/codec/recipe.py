"""Training of the video tokenizer: its recipe, its loss, one optimiser step, and checkpoints that resume exactly."""

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vpoet import config
from vpoet.arrays import Frames
from vpoet.errors import CheckpointError, ConfigError, OutputError, VpoetError
from vpoet.files import aside, make_folder, writing
from vpoet.nn.features import EfficientNetLite0, FeatureNetwork
from vpoet.processes import Processes, own_device
from vpoet.tokenizer.autoencoder import Autoencoder, AutoencoderConfig
from vpoet.tokenizer.video import VideoTokenizer, to_float
from vpoet.training.codec.adversarial import AdversarialConfig, Adversary
from vpoet.training.codec.loss import LossConfig, reconstruction_loss
from vpoet.training.optim import OptimizerConfig, adamw, learning_rate, muon
from vpoet.training.precision import DTYPES, IN_FILES

TRAINED_IN = ("fp32", "bf16")
TRAINED = ("all", "decoder")

LARGEST = 16_384
"""Frames of a clip, pixels of a side, and clips that are scored."""
KEPT = 2
"""Checkpoints of a run that stay."""

FREE_TO_CHANGE = (
    *("run", "data", "images", "held_out", "device", "export_dtype"),
    *("log_every", "evaluate_every", "evaluate_clips", "save_every"),
)
"""Recipe keys that a resumed run may change: they have no part in what is learned."""


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
    """Train on random views (`vpoet.data.augment`): windows instead of resized frames, mirrored, backwards."""
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
    """Decay a step of the averaged weights, which are what is evaluated and exported."""
    dtype: str = "bf16"
    """fp32, or bf16: matrix products in bfloat16 (autocast), weights and optimiser in fp32 either way."""
    export_dtype: str = "fp32"
    """fp32, or fp16: weights of the exported tokenizer rounded, in half the space."""
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
        for name in ("batch", "steps", "log_every", "evaluate_every", "evaluate_clips", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be at least 1")
        for name in ("frames", "height", "width", "evaluate_clips"):
            if not 1 <= getattr(self, name) <= LARGEST:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be 1 to {LARGEST}")
        if self.image_batch < 0:
            raise ConfigError(f"image_batch = {self.image_batch}: must be 0 or more")
        if self.dtype not in TRAINED_IN:
            raise ConfigError(f"dtype is {self.dtype!r}; choose one of {', '.join(TRAINED_IN)}")
        if self.export_dtype not in IN_FILES:
            raise ConfigError(f"export_dtype is {self.export_dtype!r}; choose one of {', '.join(IN_FILES)}")
        if self.train not in TRAINED:
            raise ConfigError(f"train is {self.train!r}; choose one of {', '.join(TRAINED)}")
        if self.loss.evenness and self.model.quantiser.kind != "fsq":
            raise ConfigError(f"loss.evenness is FSQ's; for {self.model.quantiser.kind} set model.quantiser.entropy")
        if self.adversarial.weight and self.adversarial.start >= self.steps:
            raise ConfigError(
                f"adversarial.start = {self.adversarial.start}: the run ends before, at {self.steps} steps"
            )
        if self.train == "decoder" and not self.begin:
            raise ConfigError("train = decoder keeps the encoder as it is: give begin=FOLDER, a trained tokenizer")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"ema = {self.ema}: must be at least 0 and below 1")


class TokenizerTraining:
    """All that training changes: the model, its average, the optimizers, the adversary and the step count.

    ``features`` is what ``loss.perceptual`` compares by, in place of EfficientNet-Lite0.
    """

    def __init__(self, recipe: VideoTokenizerRecipe, features: FeatureNetwork | None = None) -> None:
        self.device = own_device(recipe.device)
        self.processes = Processes.join(self.device)
        for name in ("batch", "image_batch"):
            if getattr(recipe, name) % self.processes.world:
                raise ConfigError(f"{name} = {getattr(recipe, name)}: {self.processes.world} processes share it evenly")
        self.recipe = recipe
        self.step = 0
        self.dtype = DTYPES[recipe.dtype]
        torch.manual_seed(recipe.seed)
        self.model = Autoencoder(recipe.model, evenness=recipe.loss.evenness).to(self.device)
        if recipe.begin:
            self._begin_with(Path(recipe.begin))
        if recipe.train == "decoder":
            self.model.requires_grad_(False)
            self.model.quantiser.eval()
            self.model.decoder.requires_grad_(True)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.optimizers = optimizers(self.model, recipe.optimizer)
        self.features = features
        if recipe.loss.perceptual and features is None:
            self.features = EfficientNetLite0().to(self.device)
        self.adversary = None
        if recipe.adversarial.weight:
            self.adversary = Adversary(recipe.adversarial, self.device, self.dtype, self.processes.average_gradients)

    def update(self, clips: Frames, images: Frames | None = None) -> dict[str, float]:
        """One optimiser step on clips uint8 [B, T, H, W, 3] and images [I, 1, H, W, 3], this process's share of both.

        Returns the clips' loss, its parts, and what else a log wants.
        """
        settings = self.recipe.optimizer
        scale = learning_rate(settings, self.step, self.recipe.steps) / settings.lr
        for optimizer, peak in zip(self.optimizers, (settings.lr, settings.matrix_lr), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = scale * peak
        self.model.zero_grad(set_to_none=True)
        batches = [clips] if images is None else [images, clips]
        for frames in batches:
            video = to_float(frames, self.device)
            drawn, losses = self._losses(video)
            share = len(frames) / sum(map(len, batches))
            (share * losses["loss"]).backward()  # type: ignore[no-untyped-call]
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.processes.average_gradients(trained)
        norm = torch.nn.utils.clip_grad_norm_(trained, settings.clip)
        if not bool(norm.isfinite()):
            raise VpoetError(
                f"step {self.step}: the gradient is {norm.item()}; training has diverged. Start again from the last "
                "checkpoint's weights with a lower optimizer.lr and optimizer.matrix_lr, or with dtype=fp32"
            )
        for optimizer in self.optimizers:
            optimizer.step()
        judged = {}
        if self.adversary and self.adversary.active(self.step):
            judged = self.adversary.update(video, drawn.detach())
        self.step += 1
        self._average_weights()
        values = torch.stack([value.detach().float() for value in losses.values()])
        self.processes.average(values)
        named = dict(zip(losses, values.tolist(), strict=True))
        return named | judged | {"lr": scale * settings.lr, "gradient": norm.item()}

    def _losses(self, video: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What the model draws, and the parts of the loss with their sum under "loss"."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            drawn, quantised = self.model(video)
        losses = reconstruction_loss(drawn, video, self.recipe.loss, self.features)
        if self.adversary and self.adversary.active(self.step):
            last_layer = self.model.decoder.out.linear.weight
            losses["adversarial"] = self.adversary.generator_loss(drawn, losses["loss"], last_layer)
            losses["loss"] = losses["loss"] + losses["adversarial"]
        if self.recipe.loss.changes and quantised.points.shape[1] > 1:
            losses["changes"] = quantised.points.float().diff(dim=1).abs().mean()
            losses["loss"] = losses["loss"] + self.recipe.loss.changes * losses["changes"]
        losses["loss"] = losses["loss"] + quantised.loss
        return drawn, losses | {"code_use": quantised.use}

    def exported(self) -> VideoTokenizer:
        """The averaged weights as a tokenizer of its own, rounded to ``export_dtype``; its codes are those of the one
        that it began with where all but the decoder is, bit for bit."""
        model = copy.deepcopy(self.average).to(DTYPES[self.recipe.export_dtype])
        if not self.recipe.begin:
            return VideoTokenizer(model)
        begun = VideoTokenizer.load(self.recipe.begin)
        theirs = begun.model.state_dict()
        kept = all(
            torch.equal(value.cpu().to(theirs[name].dtype), theirs[name])
            for name, value in model.state_dict().items()
            if not name.startswith("decoder.")
        )
        return VideoTokenizer(model, begun.codes if kept else "")

    @torch.no_grad()
    def _average_weights(self) -> None:
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)
        for mean, buffer in zip(self.average.buffers(), self.model.buffers(), strict=True):
            mean.copy_(buffer)  # a codebook is an average already

    def _begin_with(self, folder: Path) -> None:
        tokenizer = VideoTokenizer.load(folder)
        if tokenizer.model.config != self.recipe.model:
            different = differences(config.to_dict(tokenizer.model.config), config.to_dict(self.recipe.model), "model.")
            raise ConfigError(f"begin: {folder} has another network ({'; '.join(different)}); set model to match it")
        self.model.load_state_dict(tokenizer.model.state_dict())

    def save(self, run: Path, streams: list[dict[str, Any]]) -> None:
        """Write RUN/checkpoints/step-N.pt with this process's data streams, whole or not at all; keep the newest two.

        Every process must call; the first one writes, and none goes on (to its end, perhaps) before it has.
        """
        positions = self.processes.gather({"streams": streams, "random": torch.get_rng_state()})
        if self.processes.rank == 0:
            self._write(run, positions)
        self.processes.gather(None)

    def _write(self, run: Path, positions: list[dict[str, Any]]) -> None:
        content = {
            "recipe": config.to_dict(self.recipe),
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "adversary": self.adversary.state_dict() if self.adversary else None,
            "positions": positions,
        }
        path = run / "checkpoints" / f"step-{self.step}.pt"
        make_folder(path.parent)
        try:
            with aside(path) as fresh, fresh.open("wb") as file:
                torch.save(content, file)
        except RuntimeError as error:  # torch's own, of a disk that refuses in the middle
            raise OutputError(f"{path}: cannot be written: {error}; make room there and go on") from None
        with writing(path.parent):
            for old in checkpoints(run)[:-KEPT]:
                old.unlink()

    def restore(self, run: Path) -> list[dict[str, Any]] | None:
        """Go on from the run folder's newest checkpoint; returns the data streams' states, None if there is none.

        ConfigError when its recipe differs in anything that is learned from; CheckpointError when the file is damaged.
        """
        found = checkpoints(run)
        if not found:
            return None
        path = found[-1]
        try:
            saved = torch.load(path, map_location=self.device, weights_only=True)
            kinds = {"recipe": dict, "step": int, "model": dict, "average": dict, "optimizers": list, "positions": list}
            if wrong := [name for name, kind in kinds.items() if not isinstance(saved[name], kind)]:
                raise TypeError(f"no {', '.join(wrong)} in it")
        except Exception as error:  # a damaged file has no error type of its own in torch.load
            raise CheckpointError(f"{path}: damaged ({error!r}); delete it to go on from the one before") from None
        different = differences(saved["recipe"], config.to_dict(self.recipe))
        if different:
            raise ConfigError(
                f"{path}: a run of another recipe ({'; '.join(different)}); "
                "give run=OTHER_FOLDER to start anew, or delete the folder"
            )
        if len(saved["positions"]) != self.processes.world:
            raise ConfigError(
                f"{path}: written by {len(saved['positions'])} processes, which each have a place in the data; "
                f"go on with as many, not {self.processes.world}"
            )
        self.step = saved["step"]
        self.model.load_state_dict(saved["model"])
        self.average.load_state_dict(saved["average"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        if self.adversary:
            self.adversary.load_state_dict(saved["adversary"])
        position = saved["positions"][self.processes.rank]
        torch.set_rng_state(position["random"].cpu())
        streams: list[dict[str, Any]] = position["streams"]
        return streams


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    steps = {path: path.stem.removeprefix("step-") for path in (run / "checkpoints").glob("step-*.pt")}
    return sorted((path for path, step in steps.items() if step.isdecimal()), key=lambda path: int(steps[path]))


def optimizers(model: Autoencoder, settings: TokenizerOptimizerConfig) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon for every matrix but the first and last of encoder and decoder, at pixels and codes."""
    ends = (model.encoder.stem, model.encoder.out, model.decoder.stem, model.decoder.out)
    at_ends = {id(parameter) for end in ends for parameter in end.parameters()}
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim == 2 and id(p) not in at_ends]
    return [adamw(model, settings, but=matrices), muon(matrices, settings.matrix_lr, settings)]


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Keys whose values differ, as "key: old, now new"; keys that are free to change are left out."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        if not prefix and key in FREE_TO_CHANGE:
            continue
        before, now = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            found += differences(before, now, f"{prefix}{key}.")
        elif before != now:
            found.append(f"{prefix}{key}: {before}, now {now}")
    return found
