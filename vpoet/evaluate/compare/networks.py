"""Networks that turn clips into features, handed in as files; the one that ships needs none.

Whatever a network does to the frames that it gets is a part of the protocol, in words and in its hash: `INPUT`.

    EfficientNet-Lite0      of pictures, trained on ImageNet: how frames look and how much they change; not FVD
    TorchScript FILE        a program of its own, which runs with the user's rights: only when told to
    transformers folder     VideoMAE, CLIP: a model of the library's own code, weights in safetensors alone

Shape letters: B clips, T frames of a clip, H and W their sides, D features.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from vpoet.errors import BackendError, CheckpointError, ShapeError
from vpoet.evaluate.compare.clips import resize
from vpoet.evaluate.compare.protocol import FVD_WEIGHTS
from vpoet.files import fingerprint
from vpoet.nn.features import EfficientNetLite0

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TRANSFORMERS = ("videomae", "clip", "clip_vision_model")
MODEL = "model.safetensors"


class ClipNetwork(Protocol):
    """Clips uint8 [B, T, H, W, 3] to features [B, D]."""

    name: str
    sha256: str
    """Of its weights."""
    input: str
    """What it does to frames, and what its features are."""

    def __call__(self, clips_BTHW3: Tensor, /) -> Tensor: ...


class EfficientNetClips:
    """Of each clip the last layer's 112 channels, averaged over space and frames; and their mean change, over space and
    steps in time (`vpoet.evaluate.distances.clip_features`)."""

    name = "EfficientNet-Lite0"
    input = "EfficientNet-Lite0, layer 10: mean over frames, and mean absolute change; pixels / 127.5 - 1"

    def __init__(self, device: torch.device) -> None:
        network = EfficientNetLite0().to(device)
        digest = hashlib.sha256()
        for name, value in sorted(network.state_dict().items()):
            digest.update(name.encode() + value.cpu().numpy().tobytes())
        self.sha256 = digest.hexdigest()
        self._network, self._device = network, device

    def __call__(self, clips_BTHW3: Tensor, /) -> Tensor:
        pictures = clips_BTHW3.flatten(0, 1).to(self._device).permute(0, 3, 1, 2).float() / 127.5 - 1
        last = self._network(pictures)[-1].unflatten(0, clips_BTHW3.shape[:2])
        looks = last.mean((1, 3, 4))
        if last.shape[1] < 2:
            return torch.cat([looks, torch.zeros_like(looks)], 1)
        return torch.cat([looks, last.diff(dim=1).abs().mean((1, 3, 4))], 1)


class TorchScriptClips:
    """A module that takes floats [B, 3, T, H, W] and gives [B, D].

    It gets pixels / 127.5 - 1. The weights of `FVD_WEIGHTS` are called as StyleGAN-V calls them: pixels of 0 to 255,
    which the module resizes to 224x224 and scales itself, and features before the last layer.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        """CheckpointError: not a TorchScript file."""
        self.name, self.sha256 = path.name, str(fingerprint(path)["sha256"])
        self._known = self.sha256 in FVD_WEIGHTS
        self.input = (
            "I3D: pixels of 0 to 255, resized and scaled by the module, return_features"
            if self._known
            else "TorchScript: pixels / 127.5 - 1"
        )
        try:
            opened: Any = torch.jit.load  # untyped
            self._module = opened(str(path), map_location=device).eval()
        except Exception as error:
            told = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{path}: not TorchScript: {told}; export the network by torch.jit.script") from None
        self._device = device

    def __call__(self, clips_BTHW3: Tensor, /) -> Tensor:
        pixels = clips_BTHW3.to(self._device).permute(0, 4, 1, 2, 3).float()
        try:
            if self._known:
                found = self._module(pixels, rescale=True, resize=True, return_features=True)
            else:
                found = self._module(pixels / 127.5 - 1)
        except RuntimeError as error:
            told = str(error).strip().splitlines()[-1][:200]
            raise ShapeError(f"{self.name}: cannot take clips {list(pixels.shape)} [B, 3, T, H, W]: {told}") from None
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(pixels):
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ShapeError(f"{self.name}: gives {shape} for {len(pixels)} clips; features are [B, D]")
        return found


class TransformersClips:
    """VideoMAE: the mean of the last layer's tokens. CLIP: its image embedding, averaged over frames."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        """BackendError: transformers is not installed, or the folder holds another kind of model; CheckpointError: it
        cannot be loaded."""
        try:
            import transformers
        except ImportError as error:
            raise BackendError(f"{folder}: a model of transformers ({error}): pip install transformers") from None
        try:
            config = json.loads((folder / "config.json").read_text("utf-8"))
            kind = config["model_type"]
            digest = hashlib.sha256((folder / "config.json").read_bytes())
            digest.update(str(fingerprint(folder / MODEL)["sha256"]).encode())
        except (OSError, ValueError, KeyError, TypeError) as error:
            told = error.strerror if isinstance(error, OSError) else repr(error)
            raise CheckpointError(f"{folder}: not a folder with config.json and {MODEL}: {told}") from None
        if kind not in TRANSFORMERS:
            raise BackendError(f"{folder}: a model of type {kind!r}; features come from {', '.join(TRANSFORMERS)}")
        self._video = kind == "videomae"
        made: Any = transformers.VideoMAEModel if self._video else transformers.CLIPVisionModelWithProjection
        try:
            model, told = made.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True
            )
        except Exception as error:
            raise CheckpointError(f"{folder}: cannot be loaded: {' '.join(str(error).split())[:200]}") from None
        if told["missing_keys"]:
            missing = ", ".join(sorted(told["missing_keys"])[:3])
            raise CheckpointError(f"{folder}: {MODEL} lacks weights of {kind}: {missing}; export the model again")
        self._model = model.to(device).eval()
        self._device, self._side, self._frames = device, model.config.image_size, getattr(model.config, "num_frames", 0)
        mean, deviation = _normalisation(folder)
        self._mean = torch.tensor(mean, device=device).view(3, 1, 1)
        self._deviation = torch.tensor(deviation, device=device).view(3, 1, 1)
        self.name, self.sha256 = f"{kind} {folder.name}", digest.hexdigest()
        self.input = (
            f"{kind}: stretched to {self._side}, bicubic, antialiased; (pixels / 255 - {mean}) / {deviation}; mean "
            + ("over tokens" if self._video else "over frames of image embeddings")
        )

    def __call__(self, clips_BTHW3: Tensor, /) -> Tensor:
        count, length = clips_BTHW3.shape[:2]
        if self._video and length != self._frames:
            raise ShapeError(f"{self.name}: takes clips of {self._frames} frames, not {length}; give --frames")
        pictures = clips_BTHW3.flatten(0, 1).to(self._device).permute(0, 3, 1, 2).float()
        if pictures.shape[2:] != (self._side, self._side):
            pictures = resize(pictures, (self._side, self._side), "bicubic", True).clamp(0, 255)
        pictures = (pictures / 255 - self._mean) / self._deviation
        if self._video:
            clips = pictures.view(count, length, *pictures.shape[1:])
            tokens: Tensor = self._model(pixel_values=clips).last_hidden_state
            return tokens.mean(1)
        embeddings: Tensor = self._model(pixel_values=pictures).image_embeds
        return embeddings.view(count, length, -1).mean(1)


def load(path: Path | None, device: torch.device, run_torchscript: bool = False) -> ClipNetwork:
    """The network of a file or folder; None: EfficientNet-Lite0. BackendError: of no kind that is known, or TorchScript
    that was not allowed to run."""
    if path is None:
        return EfficientNetClips(device)
    if path.is_dir():
        return TransformersClips(path, device)
    if not path.is_file():
        raise BackendError(f"{path}: no such feature network; give a TorchScript file or a folder of transformers")
    if path.suffix.lower() not in (".pt", ".pth", ".jit", ".ts"):
        raise BackendError(f"{path}: no kind of feature network; give TorchScript (.pt) or a folder of transformers")
    if not run_torchscript:
        raise BackendError(
            f"{path}: TorchScript is a program, which would run with your rights; if you trust its source, add "
            "--run-torchscript"
        )
    return TorchScriptClips(path, device)


def _normalisation(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of the channels, of preprocessor_config.json; ImageNet's where there is none."""
    try:
        told = json.loads((folder / "preprocessor_config.json").read_text("utf-8"))
        mean, deviation = (tuple(map(float, told[name])) for name in ("image_mean", "image_std"))
    except FileNotFoundError:
        return IMAGENET
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder}/preprocessor_config.json: not image_mean and image_std: {error!r}") from None
    return mean, deviation
