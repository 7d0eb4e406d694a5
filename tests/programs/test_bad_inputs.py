"""Bad inputs to every command: no traceback, no hang, nothing written but below the folder of the case.

The table is made from the commands themselves: each option is given what its kind cannot take, and each kind of
artefact is damaged in every way below and handed to all commands that read it. `make test` tries one case in `EVERY`
of each command, `make torture` all of them (VPOET_EVERY=1); both say how many.
"""

import faulthandler
import functools
import json
import os
import resource
import shutil
import signal
import struct
import sys
import typing
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer.models

from vpoet import cli
from vpoet.data.shards import ShardWriter
from vpoet.media.video import Video
from vpoet.sequence.actions import ActionSpace
from vpoet.tokenizer.imported.cosmos import Cosmos, CosmosConfig
from vpoet.training.codec.recipe import VideoTokenizerRecipe
from vpoet.training.recipe import PretrainConfig
from vpoet.worlds.playground.physics import ACTIONS

EVERY = int(os.environ.get("VPOET_EVERY", "16"))
SECONDS = 60
"""A case that takes longer hangs; most take a tenth of one."""
MEMORY = 4 << 30
"""Bytes of addresses that this process may take more: a case that wants a terabyte is told no, as on any machine."""

GOOD: dict[str, tuple[str, ...]] = {
    "ingest": ("{clip.mp4}", "--frames=5", "--height=16", "--width=16", "--out=OUT/raw"),
    "measure": ("{measured}", "--no-embedding"),
    "select": ("{measured}", "--where=motion > 0", "--out=OUT/selected"),
    "train-text": ("{raw}", "--size=300", "--out=OUT/text.model"),
    "train-video": ("{video.yaml}", "run=OUT/run"),
    "evaluate-tokenizer": ("{tokenizer}", "{raw}", "--clips=1"),
    "compare-quantisers": (
        *("{raw}", "--held-out={raw}", "--steps=1", "--seeds=0", "--codebooks=256", "--variants=fsq"),
        *("--windows=2", "--out=OUT/compared"),
    ),
    "import-tokenizer": ("cosmos", "{cosmos}", "--strides=4x8x8", "--clips={raw}", "--out=OUT/imported"),
    "encode": ("{raw}", "--tokenizer={tokenizer}", "--out=OUT/tokens"),
    "pretrain": ("{recipe.yaml}", "run=OUT/run"),
    "finetune": ("{bundle}", "{tokens}", "steps=1", "--out=OUT/bundle"),
    "export": ("{run}", "--out=OUT/bundle"),
    "export-hf": ("{bundle}", "--out=OUT/qwen3"),
    "export-tokenizer": ("--tokenizer={tokenizer}", "--out=OUT/exported"),
    "push": ("{bundle}", "someone/model"),
    "pull": ("someone/model", "--out=OUT/bundle"),
    "sample": ("--model={bundle}", "--prompt=a robot", "--frames=1", "--out=OUT/s.png"),
    "complete": ("{segments.json}", "--model={bundle}", "--longest=2", "--out=OUT/whole"),
    "play": ("{playing}", "--record={keys.txt}", "--out=OUT/played.mp4"),
    "serve": ("{bundle}", "--out=OUT/served", "--openapi"),
    "score": ("{clip.mp4}", "--model={bundle}"),
    "plan": (
        *("world:playground", "--goal={clip.mp4}", "--size=32", "--horizon=2", "--samples=2", "--rounds=1"),
        *("--steps=2", "--out=OUT/plan"),
    ),
    "actions": ("{clip.mp4}", "--model={player/bundle}"),
    "reach": ("world:playground", "--count=2", "--samples=2", "--size=32", "--out=OUT/reach"),
    "rewards": ("{controlled}", "--count=2", "--steps=4", "--out=OUT/rewards"),
    "evaluate": ("--prompts={world}", "--model={bundle}", "--count=2", "--out=OUT/judged"),
    "compare": (
        *("{raw}", "{raw}", "--frames=5", "--size=16", "--bootstrap=10", "--device=cpu", "--training={raw}"),
        *("--bits={bundle}", "--out=OUT/compared"),
    ),
    "ladder": (
        *("{raw}", "--protocol=vpoet-16,frames=5,size=16", "--bootstrap=10", "--device=cpu", "--out=OUT/ladder"),
    ),
    "drift": ("--model={bundle}", "--count=2", "--frames=9", "--out=OUT/drift"),
    "evaluate-play": (*("--model={playing}", "--count=1", "--seen=2", "--length=2", "--drift=2", "--out=OUT/judged"),),
    "evaluate-controls": ("--model={controlled}", "--count=1", "--out=OUT/judged"),
    "evaluate-painting": ("--model={bundle}", "--clips={world}", "--count=1", "--out=OUT/painted"),
    "gallery": ("--model={bundle}", "--count=1", "--out=OUT/gallery"),
    "reconstruct": ("{clip.mp4}", "--tokenizer={tokenizer}", "--out=OUT/both.mp4"),
    "chain": (
        *("world:platformer", "--clips=4", "--tokenizer={tokenizer}", "--processes=1", "--hours=1", "--dry-run"),
        "--out=OUT/mine",
    ),
    "report": ("{run}", "--out=OUT/page.html"),
    "inspect": ("{bundle}",),
}
"""A command line of each that works: {name} is one of `Things`, OUT the case's own folder."""

FILES = {"train-text": ".model", "sample": ".mp4", "play": ".mp4", "reconstruct": ".mp4", "report": ".html"}
"""Commands whose --out is a file, and how it ends; the others write a folder."""
OUTPUTS = ("out", "cache", "plot", "sheet")

NOT_NUMBERS = ("x", "", "1,5", "0x10", "\udcff")
NUMBERS = ("-1", "0", "1000000000", "1000000001", str(2**63), str(2**200), str(-(2**63)))
FLOATS = ("nan", "inf", "-inf", "-1", "0", "1e-39", "1e30", "-1e30", "1e308")
WORDS = ("", "x", "a=b=c", "=", "1,2", "-1", "9" * 400, "\udcff", "١٢", "\u202e", "a\nb")
DEVICES = ("tpu", "cuda:99", "cuda:-1", "cuda:x", "", "meta", "CUDA", "mps:7", "cpu:x", "\udcff", "xla", "cuda:", "hpu")
if not torch.cuda.is_available():
    DEVICES = (*DEVICES, "cuda", "cuda:0")


@dataclass(frozen=True)
class Case:
    command: str
    name: str
    arguments: tuple[str, ...]
    refused: bool = True
    """It must be refused, with status 2; else a command may also make something of it."""


class Hang(BaseException):
    pass


def replaced(command: str, option: str, value: str, position: int | None = None) -> tuple[str, ...]:
    """The good command line with another value of an option, or at a position."""
    good = list(GOOD[command])
    if position is not None:
        good[position] = value
        return tuple(good)
    return (*(part for part in good if part.partition("=")[0] != option), f"{option}={value}")


@functools.cache
def main_of(command: str) -> Callable[..., None]:
    return cli.program(command)


def parameters(command: str) -> Iterator[tuple[str, str, Any, int | None]]:
    """(name, option, type, position of an argument) of each parameter; True for those that are lists."""
    position = 0
    for name, hint in typing.get_type_hints(main_of(command), include_extras=True).items():
        if name == "return":
            continue
        kind, info = typing.get_args(hint)[:2]
        inner = [part for part in typing.get_args(kind) if part is not type(None)]
        kind = inner[0] if inner else kind
        kind = (typing.get_args(kind) or (kind,))[0]
        if isinstance(info, typer.models.ArgumentInfo):
            yield name, "", kind, position
            position += 1
        else:
            declared = [word for word in info.param_decls or () if word.startswith("--")]
            yield name, declared[0] if declared else "--" + name.replace("_", "-"), kind, None


def option_cases(command: str) -> Iterator[Case]:
    """Every option with what its kind cannot take."""
    for name, option, kind, position in parameters(command):

        def case(value: str, refused: bool = True, option: str = option, position: int | None = position) -> Case:
            shown = f"{option or position} {value[:40]!r}"
            return Case(command, shown, replaced(command, option, value, position), refused)

        if name == "overrides":
            yield from (Case(command, f"override {word!r}", (*GOOD[command], word)) for word in OVERRIDES)
        elif name in OUTPUTS:
            yield from (case(value) for value in bad_outputs(command, name))
        elif kind is Path or (position is not None and kind is str):
            # inspect takes --text for --draw alone, and tells how many samples of a shard are damaged
            told = {
                value for value in NO_INPUTS if command == "inspect" and (name == "text" or value.endswith(".tar}"))
            }
            yield from (case(value, refused=value not in told) for value in NO_INPUTS)
        elif name == "device":
            yield from (case(value) for value in DEVICES)
        elif kind in (int, float):
            yield from (case(value) for value in NOT_NUMBERS)
            yield from (case(value, refused=False) for value in (NUMBERS if kind is int else FLOATS))
        elif kind is str:
            yield from (case(value, refused=False) for value in WORDS)
    yield Case(command, "an unknown option", (*GOOD[command], "--colour=red"))
    yield Case(command, "an argument too many", (*GOOD[command], "x", "y"))


OVERRIDES = (
    "x", "=", "=1", "model", "steps=", "steps=x", "steps=-1", "steps=0", "steps=[1]", "steps={a: 1}", "lr=1", "model=1",
    "model=[1]", "model={a: 1}", "run=", "run={file}/x", "run=/proc/x", "run={file}", "run=[a]", "steps=${oc.env:NOPE}",
    "steps=${nope}", "a.b.c.d=1", "steps=!!python/object:os.system", "\udcff=1", "steps=\udcff", "seed=x", "seed=1.5",
    "optimizer.lr=nan", "optimizer.lr=-1", "optimizer.lr=x", "optimizer=", "steps=*a", "steps=&a", "steps=1e400",
)  # fmt: skip


NO_FOLDERS = (
    "{file}", "{file}/x", "{file}/x/y", "/proc/x", "/sys/x", "/dev/null", "/dev/full/x", "{fifo}", "{loop}", "{loop}/x",
    "OUT/" + "n" * 300, "OUT/" + "n/" * 3000, "",
)  # fmt: skip
"""Where no folder can be written."""
NO_FILES = (
    "{file}/x", "{file}/x/y", "/proc/x", "/sys/x", "/dev/full/x", "{loop}/x", "OUT/" + "n" * 300, "OUT/" + "n/" * 3000,
)  # fmt: skip
"""Where no file can be, once it has its suffix."""
NO_KINDS = ("OUT/x.xyz", "OUT/x.mp4.exe", "OUT/x.\udcff", "/dev/full", "{fifo}")
"""Files that are of no kind that pictures or clips are written as."""
NO_INPUTS = (
    "{missing}", "{missing}.mp4", "{empty}", "{fifo}", "{fifo.mp4}", "/dev/zero", "/dev/null", "{loop}",
    "OUT/" + "n" * 300, "{file}/x", "OUT/\udcff.mp4", "/proc/self/mem", "", "\x1b[31m", "-", "~nobody/x",
    "http://127.0.0.1:9/x.mp4",
    *(f"{{{what}.{kind}}}" for what in ("noise", "nothing", "zeros")
      for kind in ("mp4", "png", "yaml", "csv", "jsonl", "txt", "model", "tar", "safetensors")),
)  # fmt: skip
"""What no command can read."""


def bad_outputs(command: str, name: str) -> tuple[str, ...]:
    suffix = FILES.get(command, "") if name in ("out", "cache") else ".png"
    if not suffix:
        return NO_FOLDERS
    folder = () if (command, name) == ("sample", "out") else (f"{{folder{suffix}}}",)  # sample also fills folders
    return (
        *(path + suffix for path in NO_FILES),
        *folder,
        *(NO_KINDS if suffix in (".mp4", ".png") else ()),
    )


def artefact_cases(command: str) -> Iterator[Case]:
    """Damaged artefacts, to the commands that read them."""
    for option, folder, kind in READERS[command]:
        for name in DAMAGE[kind]:
            value = f"{{{kind}:{name}}}" + folder
            arguments = GOOD[command]
            if isinstance(option, int):
                arguments = replaced(command, "", value, option)
            elif option.endswith("="):  # a key of a recipe
                arguments = (*arguments, option + value)
            else:
                arguments = replaced(command, option, value)
            # a report and a description show what there is of a run, and an export reads no metrics
            shown = kind in ("run", "raw") and command in ("report", "inspect")
            unread = command == "export" and name.startswith("metrics.jsonl")
            refused = not (name.startswith("odd ") or shown or unread)
            yield Case(command, f"{option} {kind}: {name}", arguments, refused)


def recipe_cases(command: str) -> Iterator[Case]:
    """Every number of a recipe, as what it cannot be."""
    schema = {"pretrain": PretrainConfig, "train-video": VideoTokenizerRecipe}.get(command)
    for key, kind in numbers_of(schema) if schema else ():
        if key == "steps":  # a run of a million million steps is what was asked for
            continue
        for value in ("-1", "0", "1000000000000", "nan") if kind is int else ("nan", "inf", "-1", "1e-39", "1e30"):
            yield Case(
                command, f"{key}={value}", (*GOOD[command], f"{key}={value}"), refused=value == "nan" and kind is int
            )


def numbers_of(schema: Any, above: str = "") -> Iterator[tuple[str, type]]:
    for field in fields(schema):
        if is_dataclass(field.type):
            yield from numbers_of(field.type, f"{above}{field.name}.")
        elif field.type in (int, float):
            yield above + field.name, field.type


def cases(command: str) -> list[Case]:
    return [*option_cases(command), *artefact_cases(command), *recipe_cases(command)]


BUNDLES = ("--model", "", "bundle")
READERS: dict[str, list[tuple[str | int, str, str]]] = {
    "ingest": [(0, "", "list"), (0, "", "video")],
    "measure": [(0, "", "raw")],
    "select": [(0, "", "measured"), ("--captions", "", "batch")],
    "train-text": [(0, "", "raw")],
    "train-video": [(0, "", "recipe"), ("data=", "", "raw")],
    "evaluate-tokenizer": [(0, "", "tokenizer"), (1, "", "raw"), BUNDLES],
    "compare-quantisers": [(0, "", "raw"), ("--held-out", "", "raw")],
    "import-tokenizer": [("--clips", "", "raw")],
    "encode": [(0, "", "raw"), ("--tokenizer", "", "tokenizer")],
    "pretrain": [(0, "", "recipe"), ("text=", "", "text"), ("video=", "", "tokenizer"), ("begin=", "", "bundle")],
    "finetune": [(0, "", "bundle"), (1, "", "list"), (1, "", "raw")],
    "export": [(0, "", "run")],
    "export-hf": [(0, "", "bundle")],
    "export-tokenizer": [("--tokenizer", "", "tokenizer")],
    "push": [(0, "", "bundle"), (0, "", "tokenizer"), ("--run", "", "run")],
    "pull": [],
    "sample": [BUNDLES, ("--batch", "", "batch"), ("--image", "", "video"), ("--video", "", "video")],
    "complete": [BUNDLES],
    "play": [(0, "", "playing")],
    "serve": [(0, "", "bundle")],
    "score": [BUNDLES, (0, "", "list"), (0, "", "video")],
    "plan": [BUNDLES, ("--goal", "", "video")],
    "actions": [BUNDLES, (0, "", "list"), (0, "", "video")],
    "reach": [BUNDLES],
    "rewards": [(0, "", "bundle")],
    "evaluate": [BUNDLES, ("--prompts", "", "raw"), ("--train", "", "raw")],
    "compare": [(0, "", "raw"), (1, "", "raw"), ("--training", "", "raw"), ("--bits", "", "bundle")],
    "ladder": [(0, "", "raw")],
    "drift": [BUNDLES],
    "evaluate-play": [("--model", "", "playing")],
    "evaluate-controls": [("--model", "", "controlled")],
    "evaluate-painting": [BUNDLES, ("--clips", "", "raw")],
    "gallery": [BUNDLES],
    "reconstruct": [("--tokenizer", "", "tokenizer"), (0, "", "video")],
    "chain": [("--tokenizer", "", "tokenizer")],
    "report": [(0, "", "run")],
    "inspect": [(0, "", "bundle"), (0, "", "tokenizer"), (0, "", "raw"), (0, "", "run"), (0, "", "recipe")],
}
"""What each command reads: (option, position or key=, what of it, kind of artefact)."""


# Damage: name -> what it does to a copy, in place. A name that begins with "odd" need not be refused.


def changed(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        file = path / name if name else path
        file.write_bytes(change(file.read_bytes()))

    return damage


def swapped(name: str, make: Callable[[Path], Any]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        file = path / name
        shutil.rmtree(file) if file.is_dir() else file.unlink()
        make(file)

    return damage


def flipped(data: bytes, at: float = 0.5) -> bytes:
    place = int(len(data) * at)
    return data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :]


def gone(path: Path) -> None:
    return None


def any_file(name: str) -> dict[str, Callable[[Path], None]]:
    """What can happen to a file."""
    return {
        f"{name} missing": swapped(name, gone),
        f"{name} is a folder": swapped(name, Path.mkdir),
        f"{name} is a pipe": swapped(name, os.mkfifo),
        f"{name} is a loop": swapped(name, lambda path: path.symlink_to(path)),
        f"{name} empty": changed(name, lambda data: b""),
        f"{name} cut": changed(name, lambda data: data[: len(data) // 2]),
        f"{name} zeros": changed(name, lambda data: bytes(len(data))),
        f"{name} noise": changed(name, lambda data: np.random.default_rng(0).bytes(len(data))),
    }


def weights_damage(name: str) -> dict[str, Callable[[Path], None]]:
    """What can happen to a safetensors file."""

    def header(change: Callable[[dict[str, Any]], None]) -> Callable[[bytes], bytes]:
        def rewritten(data: bytes) -> bytes:
            (length,) = struct.unpack("<Q", data[:8])
            values = json.loads(data[8 : 8 + length])
            change(values)
            text = json.dumps(values).encode()
            return struct.pack("<Q", len(text)) + text + data[8 + length :]

        return rewritten

    def tensors(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
        return (value for key, value in values.items() if key != "__metadata__")

    return any_file(name) | {
        f"{name} flipped at {at}": changed(name, functools.partial(flipped, at=at)) for at in (0.4, 0.6, 0.8, 0.999)
    } | {
        f"{name} flipped in its header": changed(name, lambda data: flipped(data, 40 / len(data))),
        f"{name} NaN": changed(name, lambda data: data[: len(data) // 2] + b"\xff" * 64 + data[len(data) // 2 + 64 :]),
        f"{name} header of 2^63": changed(name, lambda data: struct.pack("<Q", 2**63) + data[8:]),
        f"{name} header of 10^8": changed(name, lambda data: struct.pack("<Q", 10**8) + data[8:]),
        f"{name} header of 0": changed(name, lambda data: bytes(8) + data[8:]),
        f"{name} no metadata": changed(name, header(lambda values: values.pop("__metadata__"))),
        f"{name} no hash": changed(name, header(lambda values: values["__metadata__"].pop("hash"))),
        f"{name} other hash": changed(name, header(lambda values: values["__metadata__"].update(hash="0" * 16))),
        f"{name} dtype": changed(name, header(lambda values: [v.update(dtype="I32") for v in tensors(values)])),
        f"{name} dtype unknown": changed(name, header(lambda values: [v.update(dtype="X") for v in tensors(values)])),
        f"{name} shape": changed(name, header(lambda values: [v.update(shape=[10**12]) for v in tensors(values)])),
        f"{name} longer": changed(name, lambda data: data + b"more"),
    }  # fmt: skip


HOSTILE_YAML = {
    "bomb": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefghij", "bcdefghijk", strict=True)),
    "of itself": "a: &a [*a]\n",
    "deep": "a: " + "[" * 5000 + "]" * 5000,
    "deep mappings": "a: " + "{a: " * 3000 + "1" + "}" * 3000,
    "of a tag": "steps: !!python/object/apply:os.system ['touch pwned']\n",
    "not UTF-8": "text: \udcff\udcfe\n",
    "a list": "- 1\n- 2\n",
    "a text": "hello\n",
    "two documents": "a: 1\n---\nb: 2\n",
    "with tabs": "a:\n\tb: 1\n",
    "unknown key": "stpes: 3\n",
    "number as key": "1: 3\n",
    "null key": "null: 3\n",
    "list as key": "? [a, b]\n: 3\n",
    "its own base": "base: recipe.yaml\n",
    "missing base": "base: nowhere.yaml\n",
    "base a list": "base: [a]\n",
    "base a device": "base: /dev/zero\n",
    "base a folder": "base: /\n",
    "environment": "run: ${oc.env:NOT_THERE}\n",
    "interpolation": "run: ${run}\n",
    "bad interpolation": "run: ${\n",
    "duplicate": "steps: 1\nsteps: x\n",
    "date": "steps: 2020-01-01\n",
    "NUL": 'run: "a\\0b"\n',
    "binary": "run: !!binary aGVsbG8=\n",
}


def yaml_damage(name: str, keep: bool = True) -> dict[str, Callable[[Path], None]]:
    """What can be in a YAML file: after what was there, or instead of it."""

    def write(text: str) -> Callable[[bytes], bytes]:
        return lambda data: (
            (data if keep and not text.startswith("- ") else b"") + text.encode("utf-8", "surrogateescape")
        )

    return {f"{name} {what}".strip(): changed(name, write(text)) for what, text in HOSTILE_YAML.items()}


CONFIG_VALUES = (
    "model.width 1000000000", "model.width 0", "model.width -32", "model.depth 1000000000", "model.depth 0",
    "model.depth -1", "model.heads 0", "model.heads -2", "model.kv_heads 0", "model.kv_heads -1", "model.hidden 0",
    "model.hidden -1", "model.rope_base 0", "model.rope_base .nan", "model.visual_groups 0", "model.visual_groups 99",
    "model.dropout 7", "model.dropout .nan", "length 0", "length -1", "tasks [x]", "tasks []", "tasks [1]",
    "frames 0", "height 0", "height -8", "fps 0", "fps -1",
    "guidance .nan", "guidance -1", "temperature .inf", "temperature -1", "words [[a]]", "words 3", "model 3",
    "model null", "text_tokenizer null", "video_tokenizer x",
)  # fmt: skip


ODD_VALUES = ("frames 2", "height 3", "width 1000000001")
"""Sizes that the tokenizer cannot make: sampling has to ask for others, and training does not mind."""


def set_value(text: str) -> Callable[[bytes], bytes]:
    """``model.width 0``: a bundle's config with that."""
    import yaml

    def change(data: bytes) -> bytes:
        values, (keys, value) = yaml.safe_load(data), text.split(" ", 1)
        *above, last = keys.split(".")
        functools.reduce(lambda part, key: part[key], above, values)[last] = yaml.safe_load(value)
        return yaml.safe_dump(values).encode()

    return change


MANIFESTS = {
    "not JSON": "{", "a list": "[]", "null": "null", "a number": "1", "of format 99": '{"format": 99}',
    "deep": "[" * 10**5, "of no shards": '{"format": 1, "kind": "raw", "shards": [], "tokenizer": null}',
    "NaN": '{"format": 1, "kind": "raw", "shards": NaN, "tokenizer": null}',
    "shards of text": '{"format": 1, "kind": "raw", "shards": "abc", "tokenizer": null}',
    "no kind": '{"format": 1, "kind": 5, "shards": [], "tokenizer": null}', "UTF-16": "\ufeff{}",
    **{
        f"shard {str(name)[:20]!r}": json.dumps({
            "format": 1, "kind": "raw", "tokenizer": None,
            "shards": [{"name": name, "samples": samples, "bytes": 1, "sha256": "0"}],
        })
        for name, samples in (
            ("../raw-00000-00000.tar", 1), ("/etc/passwd", 1), ("a/../../b.tar", 1), ("", 1), (".", 1), ("..", 1),
            ("a\0.tar", 1), ("n" * 300, 1), ("/dev/zero", 1), ("gone.tar", 1), (5, 1), (None, 1), ("a.tar", "x"),
            ("a.tar", -1), ("a.tar", 10**30), ("\udcff.tar", 1), ([], 1),
        )
    },
}  # fmt: skip
SHARD = "raw-00000-00000.tar"

LISTS = {
    "empty.csv": "", "header.csv": "path,caption\n", "no path.csv": "a,b\n1,2\n", "NUL.csv": "path,caption\n\0,\0\n",
    "missing.csv": "path,caption\nnowhere.mp4,x\n", "folder.csv": "path\n.\n", "absolute.csv": "path\n/etc/passwd\n",
    "device.csv": "path\n/dev/zero\n", "above.csv": "path\n../../../etc/passwd\n",
    "long.csv": "path\n" + "n" * 5000 + "\n", "field.csv": "path,caption\na," + "x" * 200_000 + "\n",
    "quote.csv": 'path,caption\n"a,b\n', "empty.jsonl": "", "numbers.jsonl": "1\n2\n", "null.jsonl": "null\n",
    "cut.jsonl": '{"path": ', "list.jsonl": '["a"]\n', "path.jsonl": '{"path": 5}\n',
    "path null.jsonl": '{"path": null}\n', "path list.jsonl": '{"path": ["a"]}\n',
    "NUL.jsonl": '{"path": "a\\u0000b"}\n', "surrogate.jsonl": '{"path": "\\ud800.mp4"}\n',
    "empty path.jsonl": '{"path": ""}\n', "deep.jsonl": "[" * 10**5 + "\n", "huge number.jsonl": "9" * 5000 + "\n",
    "pipe.jsonl": '{"path": "PIPE"}\n', "latin.csv": "path,caption\ngibts nicht.mp4,\udcfc\n",
    "UTF-16.csv": "\0p\0a\0t\0h", "url.csv": "path\nhttp://127.0.0.1:9/a\n",
}  # fmt: skip

BATCHES = {
    "empty": "", "comments": "# nothing\n\n", "cut": '{"prompt": "a', "number": '{"prompt": 5}',
    "null": '{"prompt": null}', "unknown": '{"promt": "a"}', "frames text": '{"frames": "5"}',
    "frames float": '{"frames": 5.5}', "frames true": '{"frames": true}',
    "frames huge": '{"frames": 1000000001, "height": 16}', "frames 0": '{"frames": 0}', "frames -3": '{"frames": -3}',
    "frames 10^30": '{"frames": 1' + "0" * 30 + "}", "digits": '{"frames": ' + "9" * 5000 + "}",
    "seed -1": '{"seed": -1}', "seed null": '{"seed": null}', "image missing": '{"image": "gone.png"}',
    "image pipe": '{"image": "PIPE"}', "image folder": '{"image": "."}', "image device": '{"image": "/dev/zero"}',
    "image NUL": '{"image": "a\\u0000"}', "image surrogate": '{"image": "\\ud800"}',
    "prompt surrogate": '{"prompt": "\\ud800"}', "story": '{"story": "5: x"}', "story of numbers": '{"story": [5]}',
    "story beyond": '{"story": ["999: x"]}', "story negative": '{"story": ["-5: x"]}',
    "story huge": '{"story": ["' + "9" * 5000 + ': x"]}', "outpaint": '{"outpaint": "1,2"}',
    "outpaint list": '{"outpaint": [1, 2, 3, 4]}',
    "outpaint huge": '{"outpaint": "' + ",".join(["9" * 5000] * 4) + '"}', "task": '{"task": "x"}',
    "mask": '{"mask": "x.png"}', "task alone": '{"task": "continuation"}', "deep": '{"prompt": ' + "[" * 10**5,
    "height 3": '{"height": 3}', "height huge": '{"height": 100000000}', "width -8": '{"width": -8}',
    "fps 0": '{"fps": 0}', "odd fps huge": '{"fps": 1' + "0" * 30 + "}", "window 3": '{"window": 3, "frames": 9}',
    "overlap": '{"overlap": 99, "frames": 9}', "given": '{"given_frames": 5}', "via": '{"via_image": 1}',
    "Latin-1": "\udce9t\udce9\n", "odd empty object": "{}", "odd long prompt": "word " * 5000,
    "duplicate": '{"frames": 2, "frames": 3}', "infinity": '{"frames": Infinity}',
}  # fmt: skip


def written(text: str) -> Callable[[Path], None]:
    data = text.encode("utf-8", "surrogateescape") if "\\ud8" not in text else text.encode()
    return lambda path: path.write_bytes(data.replace(b"PIPE", os.fsencode(path.parent.parent / "fifo.mp4")))


BUNDLE_DAMAGE = {
    **weights_damage("model.safetensors"), **any_file("config.yaml"), **any_file("text.model"),
    "text.model flipped": changed("text.model", flipped),
    "text.model longer": changed("text.model", lambda data: data + b"x"),
    **weights_damage("video_tokenizer/model.safetensors"), **yaml_damage("config.yaml"),
    "no tokenizer": lambda path: shutil.rmtree(path / "video_tokenizer"),
    **{f"config {value}": changed("config.yaml", set_value(value)) for value in CONFIG_VALUES},
    **{f"odd config {value}": changed("config.yaml", set_value(value)) for value in ODD_VALUES},
}  # fmt: skip
DAMAGE: dict[str, dict[str, Callable[[Path], Any]]] = {
    "bundle": BUNDLE_DAMAGE,
    "playing": BUNDLE_DAMAGE,
    "controlled": BUNDLE_DAMAGE,
    "tokenizer": {
        **weights_damage("model.safetensors"), **any_file("config.yaml"), **yaml_damage("config.yaml"),
        **{f"config {value}": changed("config.yaml", set_value(value)) for value in (
            "widths []", "widths [0]", "widths [1000000000]", "encoder_blocks [-1, 0, 1]", "quantiser.levels []",
            "quantiser.levels [0]", "quantiser.levels [1000000, 1000000, 1000000]", "quantiser null")},
    },
    "raw": {
        **{f"manifest {name}": changed("manifest.json", lambda _, text=text: text.encode("utf-8", "surrogatepass"))
           for name, text in MANIFESTS.items()},
        **any_file("manifest.json"),
        **{f"odd {name}" if name.endswith("cut") else name: damage for name, damage in any_file(SHARD).items()},
    },
    "measured": {
        **any_file("manifest.json"), **any_file("measures/raw-00000-00000.json"),
        **any_file("measures/raw-00000-00000.jsonl"), **any_file("measures/raw-00000-00000.safetensors"),
        **{f"odd {name}" if name.endswith("cut") else name: damage for name, damage in any_file(SHARD).items()},
    },
    "run": {
        **any_file("resolved.yaml"), **yaml_damage("resolved.yaml"), **any_file("metrics.jsonl"),
        "no checkpoints": lambda path: shutil.rmtree(path / "checkpoints"),
        **{f"{file} is {what}": changed(f"checkpoints/step-1/{file}", lambda _, text=text: text.encode())
           for file in ("state.json", "manifest.json") for what, text in MANIFESTS.items() if what[0] != "s"},
        **{name: damage for name, damage in weights_damage("checkpoints/step-1/model-0.safetensors").items()
           if not name.endswith("no hash")},  # a checkpoint's hash is in its manifest
    },
    "recipe": {**yaml_damage("", keep=False), **{f"odd {what}": damage for what, damage in yaml_damage("").items()}},
    "list": {name: written(text) for name, text in LISTS.items()},
    "text": any_file("") | {"flipped": changed("", flipped), "longer": changed("", lambda data: data + b"x")},
    "batch": {name: written(text) for name, text in BATCHES.items()},
    "video": {
        name: changed("", change) for name, change in {
            "cut": lambda data: data[: len(data) // 3], "head only": lambda data: data[:40],
            "header of zeros": lambda data: bytes(64) + data[64:], "odd flipped": flipped,
            "text": lambda data: b"<html>not found</html>", "odd end cut": lambda data: data[:-20],
        }.items()
    },
}  # fmt: skip


class Things:
    """One good artefact of each kind, and the damaged copies, made as they are asked for."""

    def __init__(self, folder: Path, make_bundle: Callable[..., Path], run: Callable[..., int]) -> None:
        self.folder = folder
        make_bundle(folder, depth=1, frames=5, height=16, width=16, length=128)
        size, keys = {"frames": 3, "height": 16, "width": 16, "length": 400}, ActionSpace(names=["left", "right"])
        make_bundle(folder / "player", depth=1, time_stride=1, actions=keys, **size)
        shutil.copytree(folder / "bundle" / "video_tokenizer", folder / "tokenizer")
        settings = {"actions": ActionSpace(names=list(ACTIONS)), "tasks": ["play"], "window": 2}
        playing = make_bundle(folder / "player", depth=1, time_stride=1, length=300, height=32, width=32, **settings)
        playing.rename(folder / "playing")
        sizes = {"frames": 5, "height": 32, "width": 32}
        told = make_bundle(folder / "follower", depth=1, length=400, controls="edges", **sizes)
        told.rename(folder / "controlled")
        (folder / "keys.txt").write_text("right 2\n")
        random = np.random.default_rng(0)
        with ShardWriter(folder / "raw", kind="raw") as writer:
            for i in range(16):
                clip = Video(random.integers(0, 256, (9, 16, 16, 3), np.uint8), 8)
                about = {"caption": "a robot walks", "fps": 8, "frames": 9, "height": 16, "width": 16, "source": f"{i}"}
                writer.write(f"{i}", {"mp4": clip.encode(".mp4", lossless=True), "json": about})
        writer.manifest().save(folder / "raw")
        Video(random.integers(0, 256, (9, 16, 16, 3), np.uint8), 8).write(folder / "clip.mp4")
        (folder / "video.yaml").write_text(
            f"run: {folder}/video-run\ndata: [{folder}/raw]\nframes: 5\nheight: 16\nwidth: 16\nbatch: 1\nsteps: 1\n"
            "evaluate_clips: 1\nmodel: {widths: [8, 8, 8], encoder_blocks: [0, 0, 1], decoder_blocks: [0, 0, 1], "
            "quantiser: {levels: [4, 3, 3]}}\n"
        )
        (folder / "recipe.yaml").write_text(
            f"run: {folder}/run\ntext: {folder}/text.model\nvideo: {folder}/tokenizer\nbatch: 1\nsteps: 1\n"
            f"data: {{sources: [{{path: {folder}/tokens}}], length: 128, lookahead: 2, tasks: {{t2v: 1}}}}\n"
            "model: {width: 32, depth: 1, heads: 2, kv_heads: 1, hidden: 48}\n"
        )
        for command in (
            ("encode", folder / "raw", "--tokenizer", folder / "tokenizer", "--out", folder / "tokens"),
            ("pretrain", folder / "recipe.yaml"),
            (
                "ingest",
                "world:platformer",
                "--clips=2",
                "--frames=5",
                "--height=16",
                "--width=16",
                f"--out={folder}/world",
            ),
        ):
            assert run(*map(str, command)) == 0, command
        shutil.copytree(folder / "raw", folder / "measured")
        assert run("measure", str(folder / "measured"), "--no-embedding") == 0
        small = CosmosConfig(time_stride=4, space_stride=8, patch=2, channels=4, widths=[8, 8, 8], blocks=1, latent=4)
        (folder / "cosmos").mkdir()
        torch.save(Cosmos(small).state_dict(), folder / "cosmos" / "model.pt")
        (folder / "segments.json").write_text('[{"text": "a robot"}, {"image": null}]')
        (folder / "file").write_text("a file")
        (folder / "empty").mkdir()
        for name in ("folder.mp4", "folder.png", "folder.html", "folder.model"):
            (folder / name).mkdir()
        for name in ("fifo", "fifo.mp4"):
            os.mkfifo(folder / name)
        for suffix in ("", ".mp4", ".png", ".html", ".model"):
            (folder / f"loop{suffix}").symlink_to(folder / f"loop{suffix}")
        for kind in ("mp4", "png", "yaml", "csv", "jsonl", "txt", "model", "tar", "safetensors"):
            (folder / f"noise.{kind}").write_bytes(random.bytes(5000))
            (folder / f"nothing.{kind}").touch()
            (folder / f"zeros.{kind}").write_bytes(bytes(5000))

    def __getitem__(self, name: str) -> Path:
        kind, _, damage = name.partition(":")
        if not damage:
            return self.folder / name
        source = {"video": "clip.mp4", "recipe": "recipe.yaml", "text": "text.model"}.get(kind, kind)
        suffix = {"video": ".mp4", "recipe": ".yaml", "batch": ".txt"}.get(
            kind, Path(damage).suffix if kind == "list" else ""
        )
        copy = self.folder / "damaged" / f"{kind}-{zlib.crc32(damage.encode())}{suffix}"
        if not copy.exists():
            copy.parent.mkdir(exist_ok=True)
            if (self.folder / source).is_dir():
                shutil.copytree(self.folder / source, copy)
            elif (self.folder / source).is_file():
                shutil.copy(self.folder / source, copy)
            DAMAGE[kind][damage](copy)
        return copy

    def snapshot(self) -> dict[str, tuple[int, int, int]]:
        """Every file of the folder, and the folder the commands run in; but measures, which lie beside their shards."""
        found = {}
        for path in self.folder.rglob("*"):
            about, is_file = path.lstat(), not path.is_dir()
            if "measures" not in path.parts:
                found[str(path.relative_to(self.folder))] = (
                    about.st_ino,
                    about.st_size * is_file,
                    about.st_mtime_ns * is_file,
                )
        return found


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Iterator[Things]:
    folder = tmp_path_factory.mktemp("things")
    (folder / "here").mkdir()
    memory = resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, memory[1]))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "here")
        made = Things(folder, make_bundle, lambda command, *words: outcome(command, list(words), 6 * SECONDS))
        yield made
    resource.setrlimit(resource.RLIMIT_AS, memory)


def outcome(command: str, words: list[str], seconds: float = SECONDS) -> Any:
    """The exit status, or what went wrong if that is a fault of ours."""

    def late(*_: object) -> None:
        raise Hang

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    # foreign code does not hear an alarm
    faulthandler.dump_traceback_later(2 * seconds, exit=True, file=sys.__stderr__)
    try:
        cli.run(main_of(command), name=f"vpoet {command}", arguments=words)
        status: Any = 0
    except SystemExit as stop:
        status = stop.code or 0
    except Hang:
        status = "hang"
    except BaseException as error:  # what a user would see as a traceback
        frames = []
        trace = error.__traceback__
        while trace:
            frames.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
            trace = trace.tb_next
        status = f"{type(error).__name__}: {str(error)[:150]} ({' '.join(frames[-5:])})"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return status


def fault(case: Case, things: Things, out: Path, said: Callable[[], str]) -> str:
    """What is wrong about how a command meets a bad input; "" for nothing. ``said`` gives what it printed."""
    words = [filled(word, things, out) for word in case.arguments]
    before = things.snapshot()
    status = outcome(case.command, words)
    told = said()
    if status not in ((2,) if case.refused else (0, 2)):
        return str(status)
    if "Traceback" in told:
        return "a traceback was shown"
    if status == 2 and not told.strip():
        return "refused without a word"
    outside = sorted(things.snapshot().items() ^ before.items())
    return f"wrote outside: {outside[:3]}" if outside else ""


@pytest.mark.slow
@pytest.mark.parametrize("command", cli.PROGRAMS)
def test_bad_inputs_are_refused(command: str, things: Things, capsys: pytest.CaptureFixture[str]) -> None:
    every = cases(command)
    chosen = [case for case in every if zlib.crc32(ascii((command, case.name)).encode()) % EVERY == 0]
    wrong = []
    for case in chosen:
        out = things.folder.parent / f"{things.folder.name}-out"
        out.mkdir()
        if found := fault(case, things, out, lambda: "".join(capsys.readouterr())):
            wrong.append(f"{case.name}: {found}")
            with capsys.disabled():
                print(f"\n{command} {wrong[-1]}", flush=True)
        shutil.rmtree(out)
        shutil.rmtree(things.folder / "damaged", ignore_errors=True)
    with capsys.disabled():
        print(f"\n{command}: {len(chosen)} of {len(every)} bad inputs tried, {len(wrong)} wrong", end="", flush=True)
    assert not wrong, "\n".join(wrong)


def filled(word: str, things: Things, out: Path) -> str:
    """A word of a case with its artefacts' paths."""
    begin, brace, rest = word.partition("{")
    if brace and "}" in rest and not word.startswith(("model=", "steps=")):
        name, _, end = rest.partition("}")
        word = f"{begin}{things[name]}{end}"
    return word.replace("OUT", str(out))
