"""VidTok's published checkpoints, of its causal tokenizers with FSQ codes, to a network."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from vpoet.errors import ConfigError
from vpoet.tokenizer.imported.archive import read_tensors
from vpoet.tokenizer.imported.places import Reading, Shapes, fill
from vpoet.tokenizer.imported.vidtok import LEVEL, LICENSE, VidTok, VidTokConfig

PART = "state_dict"
"""Where a checkpoint of their training has the weights."""
LOSS = "loss."
"""How the tensors begin that training alone needs: a discriminator, and a network to compare features by."""
NAMED = re.compile(r"vidtok_(fsq|kl)_(causal|noncausal)_(\d)(4|8|16)\4_(\d+)(?:chn)?(_v1_1)?")
"""How a checkpoint is named: vidtok_fsq_causal_488_32768_v1_1."""
PRESETS = (
    "vidtok_fsq_causal_488_4096",
    "vidtok_fsq_causal_488_32768",
    "vidtok_fsq_causal_488_262144",
    "vidtok_fsq_causal_41616_262144",
    "vidtok_fsq_causal_488_32768_v1_1",
    "vidtok_fsq_causal_888_32768_v1_1",
    "vidtok_fsq_causal_41616_262144_v1_1",
)
"""All that are published of the kind that can be imported."""


class Preset(NamedTuple):
    """What a name says."""

    name: str
    strides: tuple[int, int, int]
    codes: int
    version: str


def preset(path: Path, given: str | None) -> Preset:
    """Of `PRESETS`: as ``given``, or as the file is named. ConfigError if they differ, or neither says it: versions 1.0
    and 1.1 have the very same tensors."""
    named = NAMED.search(path.resolve().name)
    if named and given and named[0] != given:
        raise ConfigError(f"--preset {given}: {path} is named {named[0]}; give --preset {named[0]}")
    name = given or (named[0] if named else "")
    if name not in PRESETS:
        why = "its name does not say it"
        if name:
            kind = NAMED.fullmatch(name)
            why = f"{name} is none that VidTok has"
            if kind and (kind[1], kind[2]) != ("fsq", "causal"):
                made = "has no codes" if kind[1] == "kl" else "sees all frames of a clip at once"
                why = f"{name} {made}, and only causal ones with FSQ codes can be imported"
        raise ConfigError(f"{path}: give --preset, one of {', '.join(PRESETS)}: {why}")
    kind = NAMED.fullmatch(name)
    assert kind is not None
    space = int(kind[4])
    return Preset(name, (int(kind[3]), space, space), int(kind[5]), "1.1" if kind[6] else "1.0")


def read(path: Path, given: str | None) -> Reading:
    """The tokenizer in a published checkpoint; ``given`` of `PRESETS` where its name does not say."""
    wanted = preset(path, given)
    if path.is_dir():
        raise ConfigError(f"{path}: a folder; give the .ckpt file itself")
    tensors = read_tensors(path, PART)
    weights = {name: tensor for name, tensor in tensors.items() if not name.startswith(LOSS)}
    lost = len(tensors) - len(weights)
    aside = f"{lost} tensors of the training's loss, {LOSS}*, are no part of a tokenizer" if lost else ""
    return Reading(network(weights, wanted), [path], len(weights), aside)


def network(weights: Mapping[str, Tensor], wanted: Preset) -> VidTok:
    """The network with these weights, in fp32. CheckpointError naming each tensor that is missing, unknown or of
    another shape; ConfigError if they are not those of this preset."""
    settings = _settings(weights, wanted.version)
    found = settings.strides, LEVEL**settings.digits
    if found != (wanted.strides, wanted.codes):
        strides = "x".join(map(str, found[0]))
        raise ConfigError(f"preset {wanted.name}: these tensors are of a {strides} with {found[1]} codes")
    vidtok = VidTok(settings)
    fill(vidtok, weights, f"a {wanted.name}")
    return vidtok


def card(vidtok: VidTok, source: str, content: str) -> str:
    """What to know of the imported tokenizer, as Markdown; ``content`` is its hash."""
    r, s, _ = vidtok.stride
    ahead = "\nIts decoder sees one cell ahead, so that frames of a stream come a piece late.\n"
    return f"""# VidTok {vidtok.config.version}, causal, FSQ {r}x{s}x{s}, imported

Made by Microsoft (Tang et al., arXiv:2412.13061); imported from `{source}` by `vpoet import-tokenizer`. {r} frames by
{s}x{s} pixels are one of {vidtok.quantiser.size:,} codes. Content hash {content}.
{ahead if vidtok.sees_ahead else ""}
**Licence of the weights: {LICENSE}** (https://github.com/microsoft/VidTok). vpoet ships none of them.

Computed in fp32.
"""


def _settings(weights: Mapping[str, Tensor], version: str) -> VidTokConfig:
    """The config that the shapes tell."""
    shapes = Shapes(weights, "a causal VidTok")
    levels = range(len(shapes.numbers(r"encoder\.down\.(\d+)\.block\.")))
    return VidTokConfig(
        version=version,
        digits=shapes.size("decoder.conv_in.conv.weight", axis=1),
        channels=shapes.size("encoder.conv_in.conv.weight"),
        widths=[shapes.size(f"encoder.down.{level}.block.0.conv1.weight", axes=4) for level in levels],
        halved=shapes.numbers(r"encoder\.down_temporal\.(\d+)\.downsample\."),
        doubled=shapes.numbers(r"decoder\.up_temporal\.(\d+)\.upsample\."),
        blocks=len(shapes.numbers(r"encoder\.down\.0\.block\.(\d+)\.")),
    )
