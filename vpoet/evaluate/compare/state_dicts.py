"""Networks that come as state dicts: names and tensors, which our own networks (`vpoet.nn`) take. Nothing is run.

    I3D         one file: the layout of pytorch-i3d, which VideoGPT, TATS and cd-fvd share
    V-JEPA      one file of the encoder, or a folder of two, of the encoder and of the attentive probe on it
    LPIPS       a file or a folder: convolutions as torchvision names them, and the package's "lin" weights; or both in
                one, as `lpips.LPIPS().state_dict()` has them

A pickle is read by torch's reader of weights alone.

Shape letters: B clips, T frames of a clip, H and W their sides, D features.
"""

import hashlib
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from vpoet.errors import BackendError, CheckpointError, ShapeError
from vpoet.evaluate.compare.clips import resize
from vpoet.evaluate.compare.weight_files import files_of
from vpoet.files import fingerprint
from vpoet.nn.i3d import I3D, LEAST_FRAMES, SIDE
from vpoet.nn.lpips import LPIPS
from vpoet.nn.pretrained import IMAGENET
from vpoet.nn.vjepa import VJEPA

INSIDE = ("target_encoder", "encoder", "classifier", "state_dict", "model")
"""Where checkpoints of training keep the weights; the first that is there."""
LPIPS_NAMES = re.compile(r"(?:features\.|net\.slice\d\.)?(\d+\.(?:weight|bias)|lin\d)(?:\.model\.1\.weight)?")
I3D_KEY, VJEPA_KEY = "Conv3d_1a_7x7.conv3d.weight", "patch_embed.proj.weight"


class Weights:
    """The tensors of one or more files together, and a hash for all of them."""

    def __init__(self, path: Path) -> None:
        """CheckpointError: a file holds more than weights, or is damaged."""
        self.tensors: dict[str, Tensor] = {}
        hashes = []
        for file in files_of(path):
            self.tensors |= _read(file)
            hashes.append(str(fingerprint(file)["sha256"]))
        together = hashlib.sha256("".join(hashes).encode()).hexdigest()
        self.sha256 = hashes[0] if len(hashes) == 1 else together


def known(path: Path, device: torch.device, reach: float) -> "I3DClips | VJEPAClips":
    """The feature network of state dicts. BackendError: of no network that is known; CheckpointError: weights are
    missing or of other shapes."""
    weights = Weights(path)
    if I3D_KEY in weights.tensors:
        return I3DClips(path.name, weights, device, reach)
    if VJEPA_KEY in weights.tensors and "pos_embed" in weights.tensors:
        return VJEPAClips(path.name, weights, device)
    raise BackendError(f"{path}: weights of no network that is known ({_some(weights.tensors)}); there are I3D, V-JEPA")


class I3DClips:
    """I3D's logits of clips that are resized as FVD's programs do."""

    def __init__(self, name: str, weights: Weights, device: torch.device, reach: float) -> None:
        """``reach``: the network gets pixels in [-reach, reach], 1 but in VideoGPT's protocol."""
        self.name, self.sha256, self._device, self._reach = name, weights.sha256, device, reach
        self.input = (
            f"I3D: stretched to {SIDE}, bilinear, not antialiased, to [-{reach:g}, {reach:g}]; logits, mean over time"
        )
        self._network = _filled(I3D(), weights.tensors, name, device)

    def __call__(self, clips_BTHW3: Tensor, /) -> Tensor:
        if clips_BTHW3.shape[1] < LEAST_FRAMES:
            raise ShapeError(
                f"{self.name}: I3D takes clips of {LEAST_FRAMES} frames or more, not {clips_BTHW3.shape[1]}; "
                "give --frames"
            )
        pictures = _pictures(clips_BTHW3, self._device)
        if pictures.shape[2:] != (SIDE, SIDE):
            pictures = resize(pictures, (SIDE, SIDE), "bilinear", False)
        pictures = (pictures / 127.5 - 1) * self._reach
        found: Tensor = self._network(_clips(pictures, len(clips_BTHW3)))
        return found


class VJEPAClips:
    """V-JEPA's features of clips: its probe's where there is one, as in JEDi, else the mean of its tokens."""

    def __init__(self, name: str, weights: Weights, device: torch.device) -> None:
        self.name, self.sha256, self._device = name, weights.sha256, device
        tensors = {key: value for key, value in weights.tensors.items() if not key.startswith("linear.")}
        try:
            network = VJEPA(tensors)
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"{name}: not the weights of V-JEPA: {error}; give the original files") from None
        self._network = _filled(network, tensors, name, device)
        pooled = "query of the attentive probe" if self._network.pooler else "mean over tokens"
        self.input = f"V-JEPA: stretched to its size, bilinear, antialiased; normalised as ImageNet; {pooled}"
        self._mean, self._deviation = (torch.tensor(each, device=device).view(3, 1, 1) for each in IMAGENET)

    def __call__(self, clips_BTHW3: Tensor, /) -> Tensor:
        count, frames = clips_BTHW3.shape[:2]
        side = self._network.side(frames)
        if not side:
            raise ShapeError(f"{self.name}: V-JEPA takes no clips of {frames} frames; give --frames, as a rule 16")
        pictures = _pictures(clips_BTHW3, self._device)
        if pictures.shape[2:] != (side, side):
            pictures = resize(pictures, (side, side), "bilinear", True)
        pictures = (pictures / 255 - self._mean) / self._deviation
        found: Tensor = self._network(_clips(pictures, count))
        return found


def load_lpips(path: Path, device: torch.device) -> tuple[LPIPS, str]:
    """LPIPS with the weights of a file or folder, and their SHA-256. BackendError: there is no such file;
    CheckpointError: weights are missing, or of other shapes."""
    if not path.exists():
        raise BackendError(f"{path}: no such weights; give a state dict of LPIPS, or a folder of its two")
    weights = Weights(path)
    plain: dict[str, Tensor] = {}
    for name, value in weights.tensors.items():
        # torchvision's convolutions, alone or as the package has them, and its weights of channels
        if found := LPIPS_NAMES.fullmatch(name):
            plain[found[1]] = value
    try:
        return LPIPS(plain).to(device), weights.sha256
    except (KeyError, RuntimeError) as error:
        told = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: not the weights of LPIPS with AlexNet or VGG16: {told}; give a folder of torchvision's file and "
            "the package's, or one state dict of both"
        ) from None


def _filled(network: Any, tensors: Mapping[str, Tensor], name: str, device: torch.device) -> Any:
    """The network with its weights, frozen. CheckpointError: they are not all there, or there are others."""
    try:
        network.load_state_dict({key: value.float() for key, value in tensors.items()})
    except RuntimeError as error:
        told = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{name}: not the weights of {type(network).__name__}: {told}") from None
    return network.to(device).eval().requires_grad_(False)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix.lower() == ".safetensors":
            state: Any = safetensors.torch.load_file(path)
        else:
            # mapped, so that of a checkpoint of training only what is used is read
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # whatever a damaged or hostile file makes the readers raise
        told = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: neither TorchScript nor a state dict of tensors alone, or not whole ({told}); download it again"
        ) from None
    for name in INSIDE:
        if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
            state = state[name]
            break
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: not a state dict, which maps names to tensors; export the weights alone")
    return {re.sub(r"^(module\.)?(backbone\.)?", "", str(name)): value for name, value in state.items()}


def _pictures(clips_BTHW3: Tensor, device: torch.device) -> Tensor:
    """[B T, 3, H, W], floats of 0 to 255."""
    return clips_BTHW3.flatten(0, 1).to(device).permute(0, 3, 1, 2).float()


def _clips(pictures: Tensor, count: int) -> Tensor:
    """[B, 3, T, H, W]."""
    return pictures.view(count, -1, *pictures.shape[1:]).transpose(1, 2)


def _some(tensors: Mapping[str, Tensor]) -> str:
    return f"{', '.join(list(tensors)[:3])} ..." if tensors else "none at all"
