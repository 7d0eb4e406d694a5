"""Training of the video tokenizer: its recipe, its loss, one optimiser step, and checkpoints that resume exactly."""

import copy
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vpoet import config
from vpoet.errors import CheckpointError, ConfigError, VpoetError
from vpoet.tokenizer.autoencoder import Autoencoder, AutoencoderConfig
from vpoet.tokenizer.video import Frames, to_float
from vpoet.training.optim import OptimizerConfig, learning_rate, parameter_groups

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
DEVICES = ("auto", "cpu", "cuda")

KEPT = 2
"""Checkpoints of a run that stay."""

FREE_TO_CHANGE = ("run", "data", "held_out", "device", "log_every", "evaluate_every", "evaluate_clips", "save_every")
"""Recipe keys that a resumed run may change: they have no part in what is learned."""


@dataclass(kw_only=True)
class LossConfig:
    """Weights of the parts of the loss; all compare pixels in [-1, 1]."""

    l1: float = 0.5
    """Mean absolute difference."""
    l2: float = 10.0
    """Mean squared difference: what PSNR measures."""
    edges: float = 0.05
    """Mean absolute difference of the videos' gradients in time and space, over three scales: keeps contours."""
    motion: float = 0.0
    """Extra weight, in l1 and l2, of what moves: a pixel counts 1 + motion * its distance from its mean over time."""


@dataclass(kw_only=True)
class TokenizerOptimizerConfig(OptimizerConfig):
    """Muon for the matrices inside the network, AdamW for all else; one warm-up and cosine decay for both.

    Muon (Jordan et al., 2024; the scale of Liu et al., arXiv:2502.16982) moves a matrix by the orthogonalised average
    of its gradients.
    """

    lr: float = 3e-3
    """AdamW's peak learning rate."""
    matrix_lr: float = 1e-2
    """Muon's peak learning rate."""
    final_lr: float = 0.02
    warmup: int = 50
    weight_decay: float = 0.01


@dataclass(kw_only=True)
class VideoTokenizerRecipe:
    """One training run of a video tokenizer."""

    run: str = config.REQUIRED
    """Folder that the run writes: checkpoints, metrics, samples, and at the end ``tokenizer/``."""
    data: list[str] = config.REQUIRED
    """Folders of raw shards."""
    held_out: list[str] = field(default_factory=list)
    """Folders of raw shards for evaluation alone; without any, training clips are scored, under another name."""
    frames: int = 17
    """Frames of a training clip: 1 + a multiple of the model's time stride."""
    height: int = 64
    """Pixels; clips of another size are scaled to cover this and cut."""
    width: int = 64
    model: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: TokenizerOptimizerConfig = field(default_factory=TokenizerOptimizerConfig)
    batch: int = 4
    """Clips in an optimiser step."""
    steps: int = config.REQUIRED
    """Optimiser steps of the whole run."""
    ema: float = 0.998
    """Decay a step of the averaged weights, which are what is evaluated and exported."""
    dtype: str = "bf16"
    """fp32, or bf16: matrix products in bfloat16 (autocast), weights and optimiser in fp32 either way."""
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
        if not 0 <= self.ema < 1:
            raise ConfigError(f"ema = {self.ema}: must be at least 0 and below 1")


def reconstruction_loss(drawn: Tensor, video: Tensor, weights: LossConfig) -> dict[str, Tensor]:
    """The parts of the loss, unweighted, and their weighted sum under "loss"; both videos [B, 3, T, H, W]."""
    error = drawn.float() - video
    moving = 1 + weights.motion * (video - video.mean(2, keepdim=True)).abs().amax(1, keepdim=True)
    parts = {
        "l1": (moving * error.abs()).mean() / moving.mean(),
        "l2": (moving * error.square()).mean() / moving.mean(),
        "edges": edge_error(error),
    }
    return {"loss": sum(getattr(weights, name) * part for name, part in parts.items())} | parts


def edge_error(error: Tensor, scales: int = 3) -> Tensor:
    """Mean absolute first differences of ``error`` over time, height and width, summed over scales of half the size.

    As the error is linear in the videos, these are the differences between the videos' own gradients.
    """
    total = error.new_zeros(())
    for scale in range(scales):
        if scale:
            error = F.avg_pool3d(error, (1, 2, 2))
        total = total + sum(error.diff(dim=axis).abs().mean() for axis in (2, 3, 4) if error.shape[axis] > 1)
    return total


class TokenizerTraining:
    """All that training changes: the model, its average, the optimizers and the step count."""

    def __init__(self, recipe: VideoTokenizerRecipe) -> None:
        if recipe.dtype not in DTYPES:
            raise ConfigError(f"dtype is {recipe.dtype!r}; choose one of {', '.join(DTYPES)}")
        if recipe.device not in DEVICES:
            raise ConfigError(f"device is {recipe.device!r}; choose one of {', '.join(DEVICES)}")
        chosen = "cuda" if recipe.device == "auto" and torch.cuda.is_available() else recipe.device
        self.device = torch.device("cpu" if chosen == "auto" else chosen)
        self.recipe = recipe
        self.step = 0
        torch.manual_seed(recipe.seed)
        self.model = Autoencoder(recipe.model).to(self.device)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.optimizers = optimizers(self.model, recipe.optimizer)

    def update(self, frames: Frames) -> dict[str, float]:
        """One optimiser step on clips uint8 [B, T, H, W, 3]; returns the loss, its parts, and what a log wants."""
        video = to_float(frames, self.device)
        settings = self.recipe.optimizer
        scale = learning_rate(settings, self.step, self.recipe.steps) / settings.lr
        for optimizer, peak in zip(self.optimizers, (settings.lr, settings.matrix_lr), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = scale * peak
        dtype = DTYPES[self.recipe.dtype]
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            drawn, codes = self.model(video)
        losses = reconstruction_loss(drawn, video, self.recipe.loss)
        self.model.zero_grad(set_to_none=True)
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip)
        if not bool(norm.isfinite()):
            raise VpoetError(
                f"step {self.step}: the gradient is {norm.item()}; training has diverged. Start again from the last "
                "checkpoint's weights with a lower optimizer.lr and optimizer.matrix_lr, or with dtype=fp32"
            )
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)
        values = {name: value.item() for name, value in losses.items()}
        codes_in_batch = float(len(codes.unique()))
        return values | {"lr": scale * settings.lr, "gradient": norm.item(), "codes_in_batch": codes_in_batch}

    def save(self, run: Path, stream: dict[str, Any]) -> None:
        """Write RUN/checkpoints/step-N.pt with the data stream's state, whole or not at all; keep the newest two."""
        content = {
            "recipe": config.to_dict(self.recipe),
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "stream": stream,
            "random": torch.get_rng_state(),
        }
        path = run / "checkpoints" / f"step-{self.step}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".tmp")
        with aside.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        for old in checkpoints(run)[:-KEPT]:
            old.unlink()

    def restore(self, run: Path) -> dict[str, Any] | None:
        """Go on from the run folder's newest checkpoint; returns the data stream's state, None if there is none.

        ConfigError when its recipe differs in anything that is learned from; CheckpointError when the file is damaged.
        """
        found = checkpoints(run)
        if not found:
            return None
        path = found[-1]
        try:
            saved = torch.load(path, map_location=self.device, weights_only=True)
        except Exception as error:  # a damaged file has no error type of its own in torch.load
            raise CheckpointError(f"{path}: damaged ({error}); delete it to go on from the one before") from None
        different = differences(saved["recipe"], config.to_dict(self.recipe))
        if different:
            raise ConfigError(
                f"{path}: a run of another recipe ({'; '.join(different)}); "
                "give run=OTHER_FOLDER to start anew, or delete the folder"
            )
        self.step = saved["step"]
        self.model.load_state_dict(saved["model"])
        self.average.load_state_dict(saved["average"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        torch.set_rng_state(saved["random"].cpu())
        stream: dict[str, Any] = saved["stream"]
        return stream


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted((run / "checkpoints").glob("step-*.pt"), key=lambda path: int(path.stem.removeprefix("step-")))


def optimizers(model: Autoencoder, settings: TokenizerOptimizerConfig) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon for every matrix but the first and last of encoder and decoder, at pixels and codes."""
    ends = (model.encoder.stem, model.encoder.out, model.decoder.stem, model.decoder.out)
    at_ends = {id(parameter) for end in ends for parameter in end.parameters()}
    matrices = [p for p in model.parameters() if p.ndim == 2 and id(p) not in at_ends]
    inside = {id(parameter) for parameter in matrices}
    groups = parameter_groups(model, settings)
    for group in groups:
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in inside]
    adamw = torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.beta1, settings.beta2), fused=True)
    muon = torch.optim.Muon(
        matrices, lr=settings.matrix_lr, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    return [adamw, muon]


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
