"""Emu3's published video tokenizer to a network: as its makers name the tensors, or as transformers does."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vpoet.errors import CheckpointError
from vpoet.tokenizer.imported.emu3 import LICENSE, Emu3, Emu3Config
from vpoet.tokenizer.imported.places import Reading, Shapes, fill

WEIGHTS = "model.safetensors"
PIXELS = "preprocessor_config.json"
"""How the published folder says the norm of the pixels."""
INSIDE = re.compile(r"^(model\.)?vqmodel\.")
"""How names begin in a model of transformers that the tokenizer is a part of."""
RENAMED = (
    (re.compile(r"\.down\.(?=\d)(?<!down_block\.down\.)"), ".down_block.down."),
    (re.compile(r"\.up\.(?=\d)(?<!up_block\.up\.)"), ".up_block.up."),
    (re.compile(r"\.mid\."), ".middle_block."),
    (re.compile(r"\.attn_1\.norm\."), ".attn_norm."),
    (re.compile(r"\.attn\.(\d+)\.norm\."), r".attn_norms.\1."),
    (re.compile(r"\.([qkv])\.(?=weight|bias)"), r".\1_proj."),
    (re.compile(r"\.proj_out\."), ".out_proj."),
    (re.compile(r"^quantize\."), "quantiser."),
)
"""Its makers' names to those of transformers, and of both the codebook's to ours."""


def read(path: Path, given: str | None) -> Reading:
    """The tokenizer in a published folder; there is but one, and nothing can be ``given``."""
    assert given is None
    for name in (WEIGHTS, PIXELS):
        if not (path / name).is_file():
            raise CheckpointError(f"{path}: no {name}; give the folder of Emu3-VisionTokenizer as it was published")
    try:
        tensors = load_file(path / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path / WEIGHTS}: not readable: {error}; download it again") from None
    return Reading(network(tensors, *_norm(path / PIXELS)), [path / WEIGHTS, path / PIXELS], len(tensors))


def network(tensors: Mapping[str, Tensor], mean: list[float], deviation: list[float]) -> Emu3:
    """The network with these weights, in fp32. CheckpointError naming each tensor that is missing, unknown or of
    another shape."""
    weights: dict[str, Tensor] = {}
    for published, tensor in tensors.items():
        name, shaped = _renamed(published, tensor)
        if name in weights:
            raise CheckpointError(f"not the tensors of Emu3's tokenizer: two of them would be {name}")
        weights[name] = shaped
    shapes = Shapes(weights, "Emu3's tokenizer")
    levels = range(len(shapes.numbers(r"encoder\.down_block\.down\.(\d+)\.block\.")))
    widths = [shapes.size(f"encoder.down_block.down.{level}.block.0.conv1.weight", axes=4) for level in levels]
    channels = shapes.size("encoder.conv_in.weight", axes=4)
    emu3 = Emu3(
        Emu3Config(
            time_stride=2 ** len(shapes.numbers(r"encoder\.time_conv\.(\d+)\.")),
            codebook=shapes.size("quantiser.embedding.weight", axes=2),
            latent=shapes.size("quantiser.embedding.weight", axis=1, axes=2),
            channels=channels,
            multipliers=[width // max(1, channels) for width in widths],
            blocks=len(shapes.numbers(r"encoder\.down_block\.down\.0\.block\.(\d+)\.")),
            attention=shapes.numbers(r"encoder\.down_block\.down\.(\d+)\.attn\."),
            mean=mean,
            deviation=deviation,
        )
    )
    fill(emu3, weights, "Emu3's tokenizer")
    return emu3


def card(emu3: Emu3, source: str, content: str) -> str:
    """What to know of the imported tokenizer, as Markdown; ``content`` is its hash."""
    r, s, _ = emu3.stride
    return f"""# Emu3-VisionTokenizer {r}x{s}x{s}, imported

Made by BAAI (Wang et al., arXiv:2409.18869); imported from `{source}` by `vpoet import-tokenizer`. {r} frames by
{s}x{s} pixels are one of {emu3.quantiser.size:,} codes. Content hash {content}.

Not causal: the first cell is {r} frames as all others are, so that clips have a multiple of {r} frames, and no image
has codes. Tasks that begin from an image, end in one or paint in a clip are refused; text to video is not.

**Licence of the weights: {LICENSE}** (https://huggingface.co/BAAI/Emu3-VisionTokenizer). vpoet ships none of them.

Computed in fp32, in the network of transformers: `pip install 'vpoet[emu3]'`.
"""


def _renamed(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """As ours are named; their 1x1 convolutions of attention are matrices in transformers."""
    name = INSIDE.sub("", name)
    for pattern, to in RENAMED:
        name = pattern.sub(to, name)
    if name.endswith("_proj.weight") and tensor.ndim == 4:
        tensor = tensor.flatten(1)
    return name, tensor


def _norm(path: Path) -> tuple[list[float], list[float]]:
    """Mean and deviation of pixels; CheckpointError if the file does not say them."""
    try:
        said: Any = json.loads(path.read_text("utf-8"))
        mean, deviation = ([float(value) for value in said[name]] for name in ("image_mean", "image_std"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: no image_mean and image_std, by which pixels are normed ({error!r})") from None
    return mean, deviation
