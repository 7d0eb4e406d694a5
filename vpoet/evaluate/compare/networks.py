"""Networks that turn clips into features, handed in as files; the one that ships needs none.

Whatever a network does to the frames that it gets is a part of the protocol, in words and in its hash: `INPUT`.

    EfficientNet-Lite0      of pictures, trained on ImageNet: how frames look and how much they change; not FVD
    state dicts             I3D, V-JEPA: our own networks (`state_dicts`)
    transformers folder     VideoMAE, V-JEPA 2, CLIP: a model of the library's own code, weights in safetensors alone
    TorchScript FILE        a program of its own, which runs with the user's rights: only when told to

Shape letters: B clips, T frames of a clip, H and W their sides, D features.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vpoet.devices import pick
from vpoet.errors import BackendError, CheckpointError, ShapeError
from vpoet.evaluate.compare.clips import resize
from vpoet.evaluate.compare.protocol import FVD_WEIGHTS
from vpoet.evaluate.compare.weight_files import SUFFIXES, files_of, is_script
from vpoet.files import fingerprint
from vpoet.nn.pretrained import IMAGENET, MODEL, lite0_weights, loaded

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vpoet.nn.features import EfficientNetLite0

VIDEO = ("videomae", "vjepa2")
TRANSFORMERS = (*VIDEO, "clip", "clip_vision_model")
LITE0_FILE = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""SHA-256 of the file that EfficientNet-Lite0's weights come in."""
LITE0 = "5fb4f5f13a1d11f9c4ce45b5dca1b6a444e357f3de7944d57d6d7614ffdaf369"
"""Their `digest`: features that are kept are compared without loading the network, only to know which it is."""


class ClipNetwork(Protocol):
    """Clips uint8 [B, T, H, W, 3] to features [B, D]."""

    name: str
    sha256: str
    """Of its weights."""
    input: str
    """What it does to frames, and what its features are."""

    def __call__(self, clips_BTHW3: "Tensor", /) -> "Tensor": ...


class EfficientNetClips:
    """Of each clip the last layer's 112 channels, averaged over space and frames; and their mean change, over space and
    steps in time (`vpoet.evaluate.distances.clip_features`). The network is loaded when it is first asked."""

    name = "EfficientNet-Lite0"
    input = "EfficientNet-Lite0, layer 10: mean over frames, and mean absolute change; pixels / 127.5 - 1"

    def __init__(self, device: str) -> None:
        """BackendError: the weights are not installed, or there is no such device."""
        self._device = device
        self._network: EfficientNetLite0 | None = None
        if device not in ("auto", "cpu"):  # which are never refused
            pick(device)
        known = fingerprint(lite0_weights())["sha256"] == LITE0_FILE
        self.sha256 = LITE0 if known else digest(self._loaded())

    def __call__(self, clips_BTHW3: "Tensor", /) -> "Tensor":
        import torch

        network = self._loaded()
        device = next(network.parameters()).device
        pictures = clips_BTHW3.flatten(0, 1).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        last = network(pictures)[-1].unflatten(0, clips_BTHW3.shape[:2])
        looks = last.mean((1, 3, 4))
        if last.shape[1] < 2:
            return torch.cat([looks, torch.zeros_like(looks)], 1)
        return torch.cat([looks, last.diff(dim=1).abs().mean((1, 3, 4))], 1)

    def _loaded(self) -> "EfficientNetLite0":
        from vpoet.nn.features import EfficientNetLite0

        self._network = self._network or EfficientNetLite0().to(pick(self._device))
        return self._network


class TorchScriptClips:
    """A module that takes floats [B, 3, T, H, W] and gives [B, D].

    It gets pixels / 127.5 - 1. The weights of `FVD_WEIGHTS` are called as StyleGAN-V calls them: pixels of 0 to 255,
    which the module resizes to 224x224 and scales itself, and features before the last layer.
    """

    def __init__(self, path: Path, device: "torch.device") -> None:
        """CheckpointError: not a TorchScript file."""
        import torch

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

    def __call__(self, clips_BTHW3: "Tensor", /) -> "Tensor":
        from torch import Tensor

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
    """VideoMAE and V-JEPA 2's encoder: the mean of the last layer's tokens. CLIP: its image embedding, averaged over
    frames."""

    def __init__(self, folder: Path, device: "torch.device") -> None:
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
        self.kind = kind
        made: Any = {"videomae": transformers.VideoMAEModel, "vjepa2": transformers.VJEPA2Model}.get(
            kind, transformers.CLIPVisionModelWithProjection
        )
        model: Any = loaded(made, folder, "vision_config" if kind == "clip" else "")
        self._model, self._device = model.to(device).eval(), device
        self._side = model.config.crop_size if kind == "vjepa2" else model.config.image_size
        mean, deviation = _normalisation(folder)
        import torch

        self._mean = torch.tensor(mean, device=device).view(3, 1, 1)
        self._deviation = torch.tensor(deviation, device=device).view(3, 1, 1)
        self.name, self.sha256 = f"{kind} {folder.name}", digest.hexdigest()
        self.input = (
            f"{kind}: stretched to {self._side}, bicubic, antialiased; (pixels / 255 - {mean}) / {deviation}; mean "
            + ("over tokens" if kind in VIDEO else "over frames of image embeddings")
        )

    def __call__(self, clips_BTHW3: "Tensor", /) -> "Tensor":
        if self.kind not in VIDEO:
            return self.pictures(clips_BTHW3).mean(1)
        length, config = clips_BTHW3.shape[1], self._model.config
        if self.kind == "videomae" and length != config.num_frames:
            raise ShapeError(f"{self.name}: takes clips of {config.num_frames} frames, not {length}; give --frames")
        if self.kind == "vjepa2" and length % config.tubelet_size:
            raise ShapeError(f"{self.name}: takes frames by {config.tubelet_size}, not {length}; give --frames")
        told: Any = {"pixel_values": self._normal(clips_BTHW3)}
        if self.kind == "vjepa2":
            told = {"pixel_values_videos": told["pixel_values"], "skip_predictor": True}
        tokens: Tensor = self._model(**told).last_hidden_state
        return tokens.mean(1)

    def pictures(self, clips_BTHW3: "Tensor") -> "Tensor":
        """CLIP's embeddings of frames, [B, T, D]."""
        pixels = self._normal(clips_BTHW3)
        embeddings: Tensor = self._model(pixel_values=pixels.flatten(0, 1)).image_embeds
        return embeddings.view(*pixels.shape[:2], -1)

    def _normal(self, clips_BTHW3: "Tensor") -> "Tensor":
        """[B, T, 3, H, W] as the model was trained."""
        pictures = clips_BTHW3.flatten(0, 1).to(self._device).permute(0, 3, 1, 2).float()
        if pictures.shape[2:] != (self._side, self._side):
            pictures = resize(pictures, (self._side, self._side), "bicubic", True).clamp(0, 255)
        pictures = (pictures / 255 - self._mean) / self._deviation
        return pictures.view(*clips_BTHW3.shape[:2], *pictures.shape[1:])


def load(path: Path | None, device: str, run_torchscript: bool = False, reach: float = 1.0) -> ClipNetwork:
    """The network of a file or folder; None: EfficientNet-Lite0. ``reach`` is that of `I3DClips`. BackendError: of no
    kind that is known, or TorchScript that was not allowed to run; CheckpointError: it cannot be loaded."""
    if path is None:
        return EfficientNetClips(device)
    if path.is_dir():
        stated = not (path / "config.json").exists() and files_of(path)
        return _known(path, device, reach) if stated else TransformersClips(path, pick(device))
    if not path.is_file():
        raise BackendError(f"{path}: no such feature network; give a file of weights or a folder of transformers")
    if path.suffix.lower() not in (*SUFFIXES, ".jit", ".ts"):
        raise BackendError(
            f"{path}: no kind of feature network; give a state dict or TorchScript (.pt), or a folder of transformers"
        )
    if not is_script(path):
        return _known(path, device, reach)
    if not run_torchscript:
        raise BackendError(
            f"{path}: TorchScript is a program, which would run with your rights; if you trust its source, add "
            "--run-torchscript"
        )
    return TorchScriptClips(path, pick(device))


def digest(network: "EfficientNetLite0") -> str:
    """SHA-256 of the names and values of a network's weights."""
    found = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        found.update(name.encode() + value.cpu().numpy().tobytes())
    return found.hexdigest()


def _known(path: Path, device: str, reach: float) -> ClipNetwork:
    from vpoet.evaluate.compare.state_dicts import known

    return known(path, pick(device), reach)


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
