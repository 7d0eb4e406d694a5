"""NVIDIA's published files of Cosmos-Tokenize1 DV to a network: a place for each tensor, a tensor for each place."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from vpoet.errors import CheckpointError, ConfigError
from vpoet.tokenizer.imported.archive import read_tensors
from vpoet.tokenizer.imported.cosmos import LEVELS, LICENSE, STRIDES, Cosmos, CosmosConfig
from vpoet.tokenizer.imported.places import Reading, Shapes, fill

CHOICES = (("autoencoder.jit",), ("encoder.jit", "decoder.jit"), ("model.pt",))
"""Of the files in a published folder, those that hold the whole network; the first that are there are read."""
NAMED = re.compile(r"\b([CD][IV])(\d+x\d+x\d+|\d+x\d+)")
"""How NVIDIA names a tokenizer, in names of folders and files: DV8x16x16, a discrete one of video."""
PATCHES = {3 * patch**3: patch for patch in (2, 4)}
"""Channels after the wavelets: the patch."""
RESAMPLER = re.compile(r"(encoder\.down|decoder\.up)\.(\d+)\.(down|up)sample\.conv[123]\.conv3d\.(weight|bias)")


def find(path: Path) -> list[Path]:
    """The files to read: ``path`` itself, or those of `CHOICES` in a folder."""
    if not path.is_dir():
        return [path]
    for names in CHOICES:
        if all((path / name).is_file() for name in names):
            return [path / name for name in names]
    wanted = ", or ".join(" and ".join(names) for names in CHOICES)
    raise CheckpointError(f"{path}: not a published Cosmos folder; it has no {wanted}")


def read(path: Path, given: str | None) -> Reading:
    """The tokenizer in a published folder or file; ``given`` of `STRIDES` where its name does not say."""
    stride, files = strides(path, given), find(path)
    tensors = gather(files)
    return Reading(network(tensors, stride), files, len(tensors))


def strides(path: Path, given: str | None) -> str:
    """Of `STRIDES`: as ``given``, or as the folder or file is named. ConfigError if they differ, or neither says it:
    8x8x8 and 8x16x16 have the very same tensors."""
    path = path.resolve()
    named = NAMED.search(path.name) or NAMED.search(path.parent.name)
    if named and named[1] != "DV":
        raise ConfigError(f"{path}: {named[0]} is not a tokenizer of video into codes; import one that is named DV")
    if named and given and named[2] != given:
        raise ConfigError(f"--strides {given}: {path} is named {named[0]}; give --strides {named[2]}")
    found = given or (named[2] if named else "")
    if found not in STRIDES:
        raise ConfigError(
            f"{path}: give --strides, one of {', '.join(STRIDES)}: "
            + (f"{found} is none that Cosmos has" if found else "its name does not say (as DV8x16x16 would)")
        )
    return found


def gather(files: Iterable[Path]) -> dict[str, Tensor]:
    """The tensors of all files under one name each; CheckpointError where two files differ in one."""
    found: dict[str, Tensor] = {}
    for file in files:
        for name, tensor in read_tensors(file).items():
            name = name.removeprefix("inv_quant.")  # what the decoder's own file calls its quantiser
            if name in found and not torch.equal(found[name], tensor):
                raise CheckpointError(f"{file}: {name} is another than in the files before; they are of two tokenizers")
            found[name] = tensor
    return found


def network(tensors: Mapping[str, Tensor], stride: str) -> Cosmos:
    """The network with these weights, in fp32. CheckpointError naming each tensor that is missing, unknown or of
    another shape; ConfigError if they are not those of this ``stride``."""
    settings = _settings(tensors, stride)
    cosmos = Cosmos(settings)
    weights = _without_constants(tensors, cosmos)
    places = cosmos.state_dict()
    # Where a level keeps its size, the published files hold convolutions all the same, and no pass ever reads them.
    idle = {
        name
        for name in weights.keys() - places.keys()
        if (match := RESAMPLER.fullmatch(name)) and _leads_on(match[1], int(match[2]), len(settings.widths))
    }
    fill(cosmos, {name: tensor for name, tensor in weights.items() if name not in idle}, f"a Cosmos {stride}")
    return cosmos


def card(cosmos: Cosmos, source: str, content: str) -> str:
    """What to know of the imported tokenizer, as Markdown; ``content`` is its hash."""
    r, s, _ = cosmos.stride
    return f"""# Cosmos-Tokenize1 DV {r}x{s}x{s}, imported

Made by NVIDIA (Agarwal et al., arXiv:2501.03575); imported from `{source}` by `vpoet import-tokenizer`. {r} frames by
{s}x{s} pixels are one of {cosmos.quantiser.size:,} codes. Content hash {content}.

**Licence of the weights: {LICENSE}**
(https://www.nvidia.com/en-us/agreements/enterprise-software/nvidia-open-model-license). Read it before you use them or
pass them on; it goes with every copy, inside a bundle as well. vpoet neither ships nor licenses them.

Computed in fp32. NVIDIA's own programs compute in bf16 by default, where a value near the border of two levels can
fall on its other side.
"""


def _leads_on(side: str, level: int, levels: int) -> bool:
    """Whether the published network has a resampler at this level."""
    return level < levels - 1 if side == "encoder.down" else 0 < level < levels


def _settings(tensors: Mapping[str, Tensor], stride: str) -> CosmosConfig:
    """The config that the shapes tell."""

    shapes = Shapes(tensors, "a Cosmos tokenizer of video")
    time, space, _ = map(int, stride.split("x"))
    gathered = shapes.size("encoder.conv_in.0.conv3d.weight", axis=1)
    if gathered not in PATCHES:
        raise CheckpointError(f"encoder.conv_in.0.conv3d.weight takes {gathered} channels; Cosmos has 24 or 192")
    patch = PATCHES[gathered]
    if patch == 2 and stride != "4x8x8":
        raise ConfigError(f"strides {stride}: these tensors gather 2x2x2 pixels, as 4x8x8 alone does")
    levels = range(len(shapes.numbers(r"encoder\.down\.(\d+)\.block\.")))
    return CosmosConfig(
        time_stride=time,
        space_stride=space,
        patch=patch,
        channels=shapes.size("encoder.conv_in.0.conv3d.weight"),
        widths=[shapes.size(f"encoder.down.{level}.block.0.conv1.0.conv3d.weight") for level in levels],
        blocks=len(shapes.numbers(r"encoder\.down\.0\.block\.(\d+)\.")),
        latent=shapes.size("encoder.conv_out.0.conv3d.weight"),
    )


def _without_constants(tensors: Mapping[str, Tensor], cosmos: Cosmos) -> dict[str, Tensor]:
    """All but what TorchScript keeps beside the weights: tables that this network has as arithmetic. CheckpointError
    where one says something else."""
    quantiser = cosmos.quantiser
    tables = {
        "quantizer._levels": torch.tensor(LEVELS),
        "quantizer._basis": quantiser.place,
        "quantizer.implicit_codebook": quantiser.codes_to_points(torch.arange(quantiser.size)),
        "encoder.patcher3d.patch_size_buffer": torch.tensor([cosmos.config.patch]),
    }
    for side in ("encoder.patcher3d", "decoder.unpatcher3d"):
        tables |= {f"{side}.wavelets": torch.full((2,), 0.5**0.5), f"{side}._arange": torch.arange(2)}
    for name, table in tables.items():
        if name in tensors and not (
            tensors[name].shape == table.shape and torch.allclose(tensors[name].float(), table.float(), atol=4e-3)
        ):
            raise CheckpointError(f"{name} is not what a Cosmos tokenizer has: its codes would mean something else")
    return {name: tensor for name, tensor in tensors.items() if name not in tables}
