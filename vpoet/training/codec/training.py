"""Training of the video tokenizer: the model, its loss, one optimiser step, and going on from a checkpoint exactly."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vpoet import config
from vpoet.arrays import Frames
from vpoet.errors import ConfigError, VpoetError
from vpoet.nn.features import EfficientNetLite0, FeatureNetwork
from vpoet.processes import Processes, own_device
from vpoet.tokenizer.autoencoder import Autoencoder
from vpoet.tokenizer.pixels import to_float
from vpoet.tokenizer.quantiser import Quantised
from vpoet.tokenizer.video import VideoTokenizer
from vpoet.training.codec import checkpoint
from vpoet.training.codec.adversarial import Adversary
from vpoet.training.codec.checkpoint import Networks, Optimizers, load_tensors, tensors_of
from vpoet.training.codec.loss import reconstruction_loss, still_error
from vpoet.training.codec.recipe import FREE_TO_CHANGE, TokenizerOptimizerConfig, VideoTokenizerRecipe
from vpoet.training.optim import adamw, learning_rate, muon
from vpoet.training.precision import DTYPES, fastest


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
        if recipe.dtype == "auto":
            recipe = replace(recipe, dtype=fastest(self.device))
        self.recipe = recipe
        self.step = 0
        self.stopping = False
        """Whether, as of the last update, any process was to stop."""
        self.dtype = DTYPES[recipe.dtype]
        torch.manual_seed(recipe.seed)
        self.model = Autoencoder(recipe.model, evenness=recipe.loss.evenness).to(self.device)
        self.hashes: dict[str, str] = {}
        """Of what the run stands on, as its checkpoints name it."""
        if recipe.begin:
            self._begin_with(Path(recipe.begin))
        if recipe.train == "decoder":
            self.model.requires_grad_(False)
            self.model.quantiser.eval()
            self.model.decoder.requires_grad_(True)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self._draw: Callable[[Tensor], tuple[Tensor, Quantised]] = self.model
        self._compare = reconstruction_loss
        if recipe.compile:  # one graph for clips and one for images, if there are any
            self._draw = torch.compile(self.model, dynamic=False)
            self._compare = torch.compile(reconstruction_loss, dynamic=False)
        self.optimizers = optimizers(self.model, recipe.optimizer)
        self.features = features
        if recipe.loss.perceptual and features is None:
            self.features = EfficientNetLite0().to(self.device)
        self.adversary = None
        if recipe.adversarial.weight:
            self.adversary = Adversary(recipe.adversarial, self.device, self.dtype, self.processes.average_gradients)

    def update(self, clips: Frames, images: Frames | None = None, *, stop: bool = False) -> dict[str, float]:
        """One optimiser step on clips uint8 [B, T, H, W, 3] and images [I, 1, H, W, 3], this process's share of both.

        Returns the clips' loss, its parts, and what else a log wants. ``stop`` says that this process is to end;
        `stopping` then tells all of them. Both come with the gradient's norm in one message and one look at the device,
        the only one in a step, and a second if there is an adversary: a GPU that is looked at stands still meanwhile.
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
            reconstructed, losses = self._losses(video)
            share = len(frames) / sum(map(len, batches))
            (share * losses["loss"]).backward()  # type: ignore[no-untyped-call]
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.processes.average_gradients(trained)
        norm = torch.nn.utils.clip_grad_norm_(trained, settings.clip)
        row = torch.stack(
            [value.detach().float() for value in (*losses.values(), norm, norm.new_full((), float(stop)))]
        )
        self.processes.average(row)
        *values, gradient, stopping = row.tolist()
        self.stopping = stopping > 0
        if not math.isfinite(gradient):
            raise VpoetError(
                f"step {self.step}: the gradient is {gradient}; training has diverged. Start again from the last "
                "checkpoint's weights with a lower optimizer.lr and optimizer.matrix_lr, or with dtype=fp32"
            )
        for optimizer in self.optimizers:
            optimizer.step()
        logged = {}
        if self.adversary and self.adversary.active(self.step):
            logged = self.adversary.update(video, reconstructed.detach())
        self.step += 1
        self._average_weights()
        return dict(zip(losses, values, strict=True)) | logged | {"lr": scale * settings.lr, "gradient": gradient}

    def _losses(self, video: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The reconstruction, and the parts of the loss with their sum under "loss"."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            reconstructed, quantised = self._draw(video)
        losses = self._compare(reconstructed, video, self.recipe.loss, self.features)
        if self.adversary and self.adversary.active(self.step):
            last_layer = self.model.decoder.out.linear.weight
            losses["adversarial"] = self.adversary.generator_loss(reconstructed, losses["loss"], last_layer)
            losses["loss"] = losses["loss"] + losses["adversarial"]
        if self.recipe.loss.changes and quantised.points.shape[1] > 1:
            losses["changes"] = quantised.points.float().diff(dim=1).abs().mean()
            losses["loss"] = losses["loss"] + self.recipe.loss.changes * losses["changes"]
        if self.recipe.loss.still and quantised.latents.shape[1] > 1:
            losses["still"] = still_error(quantised.latents, video)
            losses["loss"] = losses["loss"] + self.recipe.loss.still * losses["still"]
        losses["loss"] = losses["loss"] + quantised.loss
        return reconstructed, losses | {"code_use": quantised.use}

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
        if not isinstance(tokenizer.model, Autoencoder):
            raise ConfigError(
                f"begin: {folder} is an imported tokenizer, and only vpoet's own networks are trained here"
            )
        try:
            self.model.begin_with(tokenizer.model)
        except ConfigError:
            theirs, ours = config.to_dict(tokenizer.model.config), config.to_dict(self.recipe.model)
            different = config.differences(theirs, ours, prefix="model.")
            raise ConfigError(
                f"begin: {folder} has another network ({'; '.join(different)}); set model to match it"
            ) from None
        self.hashes["begin"] = tokenizer.hash

    def _parts(self) -> tuple[Networks, Optimizers]:
        """All that a checkpoint holds of what is trained, by name."""
        networks: Networks = {"model": self.model, "average": self.average}
        optimizers: Optimizers = dict(zip(("adamw", "muon"), self.optimizers, strict=True))
        if self.adversary:
            networks["discriminator"] = self.adversary.discriminator
            optimizers["discriminator-adamw"] = self.adversary.optimizer
        return networks, optimizers

    def save(self, run: Path, streams: list[dict[str, Any]]) -> None:
        """Write RUN/checkpoints/step-N with this process's data streams, whole or not at all; keep the newest two.

        Every process must call; the first one writes, and none goes on (to its end, perhaps) before it has.
        CheckpointError, in every process alike, if the disk refuses.
        """
        everyones, randoms = zip(*self.processes.gather((streams, torch.get_rng_state())), strict=True)
        state = {"recipe": config.to_dict(self.recipe), "step": self.step, "hashes": self.hashes}
        state["streams"] = list(everyones)
        random = {str(rank): state for rank, state in enumerate(randoms)}
        checkpoint.save(run, state, tensors_of(*self._parts()) | {"random": random}, self.processes)

    def restore(self, run: Path) -> list[dict[str, Any]] | None:
        """Go on from the run folder's newest checkpoint; returns the data streams' states, None if there is none.

        ConfigError when its recipe differs in anything that is learned from; CheckpointError when none is sound.
        """
        path = checkpoint.newest(run, self.processes)
        if path is None:
            return None
        state, tensors = checkpoint.read(path)
        begun = state.get("recipe", {})
        if begun:  # keys that came since have their defaults
            begun = config.to_dict(config.from_dict(begun, VideoTokenizerRecipe, f"{path}: recipe"))
        different = config.differences(begun, config.to_dict(self.recipe), but=FREE_TO_CHANGE)
        if different:
            raise ConfigError(
                f"{path}: a run of another recipe ({'; '.join(different)}); "
                "give run=OTHER_FOLDER to start anew, or delete the folder"
            )
        if len(state["streams"]) != self.processes.world:
            raise ConfigError(
                f"{path}: written by {len(state['streams'])} processes, which each have a place in the data; "
                f"go on with as many, not {self.processes.world}"
            )
        self.step = state["step"]
        load_tensors(*self._parts(), tensors)
        torch.set_rng_state(tensors["random"][str(self.processes.rank)])
        streams: list[dict[str, Any]] = state["streams"][self.processes.rank]
        return streams


def optimizers(model: Autoencoder, settings: TokenizerOptimizerConfig) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon for every matrix but the first and last of encoder and decoder, at pixels and codes."""
    ends = (model.encoder.stem, model.encoder.out, model.decoder.stem, model.decoder.out)
    at_ends = {id(parameter) for end in ends for parameter in end.parameters()}
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim == 2 and id(p) not in at_ends]
    return [adamw(model, settings, but=matrices), muon(matrices, settings.matrix_lr, settings)]
