"""Turn raw shards into token shards with a video tokenizer; resumes, and can be shared out."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from vpoet import cli
from vpoet.data import painting
from vpoet.data.fields import plain_key, printable
from vpoet.data.shards import Manifest, Problems, ShardFile, ShardInfo, read_shard
from vpoet.devices import pick
from vpoet.errors import DataError, HashMismatch
from vpoet.files import read_json, write_atomic
from vpoet.media.video import Video
from vpoet.outputs import expect_folder
from vpoet.processes import announced
from vpoet.tokenizer.video import VideoTokenizer

CHUNK_CELLS = 16
"""Cells of time encoded at once: clips are short, and a long video still needs no more memory than these."""
console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)


def main(
    raw: Annotated[Path, typer.Argument(help="Folder of raw shards, as `vpoet ingest` makes them.")],
    tokenizer: Annotated[Path, typer.Option(help="Video tokenizer's folder, as `vpoet train-video` makes it.")],
    out: Annotated[Path, typer.Option(help="The folder of token shards to write.")],
    keyframes: Annotated[
        bool,
        typer.Option(
            "--keyframes", help="Also each cell's last frame as an image: training to interpolate and extend backwards."
        ),
    ] = False,
    paintings: Annotated[
        int,
        typer.Option(
            min=0, max=1000, help="Also so many random holes and borders of each clip: training to in- and outpaint."
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Draws the holes and borders, with each sample's key.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "cpu",
    local_rank: Annotated[int, typer.Option("--local_rank", hidden=True, help="Given by the launcher.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Turn raw shards into token shards with a video tokenizer.

    One token shard a raw shard, under the same name; an image becomes one cell of time. A sample that can't be read, or
    whose size the tokenizer can't take, is left out, counted and named. Running the same command again does only what
    is left to do.

    With --keyframes, frames 0, r, 2r, ... of a video are encoded once more, each by itself, into a second array of the
    same size.

    With --paintings N, each clip is encoded 2 N times more: with N holes, and with N borders, of which the encoder sees
    nothing, as in sampling. Inpainting and outpainting train on these alone.

    One process, then four:

        vpoet encode runs/raw/train --tokenizer runs/video/tokenizer --out runs/tokens/train
        deepspeed --num_accelerators 4 tokenizers/encode_shards.py runs/raw/train --tokenizer T --out runs/tokens/train
    """
    rank, world = announced()
    expect_folder(out)
    coder = VideoTokenizer.load(tokenizer).to(pick(device))
    manifest = Manifest.load(raw)
    if manifest.kind != "raw" or out.resolve() == raw.resolve():
        raise DataError(f"{raw}: {manifest.kind} shards, to write to {out}: raw ones are needed, and another folder")
    shards = manifest.shards
    cli.hold(out)
    extras: dict[str, int] = {"keyframes": keyframes, "paintings": paintings, "seed": seed}
    problems = Problems()
    done = [finished(out, shard, coder.codes, extras) is not None for shard in shards]
    todo = [shard for shard, ready in list(zip(shards, done, strict=True))[rank::world] if not ready]
    for shard in track(todo, f"encoding (process {rank + 1} of {world})", console=console, disable=not todo):
        encode(raw / shard.name, out, shard, coder, extras, problems)

    if problems.total:
        console.print(f"left out: {problems}")
    infos = [info for shard in shards if (info := finished(out, shard, coder.codes, extras))]
    samples = sum(info.samples for info in infos)
    result: dict[str, Any] = {"out": out, "shards": len(infos), "samples": samples, "tokenizer": coder.codes}
    if len(infos) == len(shards):
        if not samples:
            raise DataError(f"{raw}: not one sample could be encoded: {problems or 'the shards are empty'}")
        Manifest("tokens", infos, coder.codes).save(out)
        console.print(f"{out}: {len(infos)} token shards, {samples} samples, tokenizer {coder.codes}")
    else:
        console.print(
            f"{out}: {len(infos)} of {len(shards)} shards; the process that finishes last writes the manifest"
        )
    cli.finish(result | {"complete": len(infos) == len(shards), "left_out": problems.to_dict()}, as_json)


def encode(
    path: Path, out: Path, raw: ShardInfo, coder: VideoTokenizer, extras: dict[str, int], problems: Problems
) -> None:
    """Write the token shard of one raw shard, and beside it the record by which `finished` knows it."""
    with ShardFile(out / raw.name) as shard:
        for sample in read_shard(path, problems=problems):
            try:
                frames = np.asarray(Video.read(sample.video))
                codes = coder.encode(frames, chunk_cells=CHUNK_CELLS)
            except DataError as error:
                problems.add(str(error), sample.key)
                continue
            key = plain_key(sample.key)
            fields = sample.json | {"grid": list(codes.shape), "tokenizer": coder.codes}
            fields |= {"key": printable(sample.key)} if key != sample.key else {}
            parts = {"codes.npy": codes, "json": fields}
            if extras["keyframes"]:
                images = frames[coder.stride[0] :: coder.stride[0], None]
                pieces = [images[start : start + CHUNK_CELLS] for start in range(0, len(images), CHUNK_CELLS)]
                parts["keyframes.npy"] = np.concatenate([codes[:1], *(coder.encode_batch(p)[:, 0] for p in pieces)])
            if drawn := painting.draw(frames, coder, key, seed=extras["seed"], count=extras["paintings"]):
                fields["paintings"] = [one.task for one in drawn]
                parts |= {f"painting-{number}.npz": painting.to_npz(one) for number, one in enumerate(drawn)}
            try:
                shard.write(key, parts)
            except DataError:
                problems.add("another sample has that key", sample.key)
    assert shard.info is not None
    record = {"raw": raw.sha256, "tokenizer": coder.codes, **extras, "shard": asdict(shard.info)}
    write_atomic(record_path(out, raw), json.dumps(record, indent=1))


def finished(out: Path, raw: ShardInfo, tokenizer: str, extras: dict[str, int]) -> ShardInfo | None:
    """The token shard of a raw shard if it is there, whole, made of that very shard, and has the ``extras`` it shall.

    HashMismatch if another tokenizer made it: codes of two tokenizers must not lie in one folder.
    """
    try:
        record = read_json(record_path(out, raw))
        info = ShardInfo.from_dict(record["shard"])
        maker, made_of = str(record["tokenizer"]), record["raw"]
        has = {name: int(record.get(name, 0)) for name in extras}
    except (OSError, ValueError, KeyError, TypeError):  # none, or damaged: the shard is made anew
        return None
    if maker != tokenizer:
        raise HashMismatch(f"{out}: holds shards of tokenizer {maker}, this one is {tokenizer}; choose another --out")
    path = out / raw.name
    whole = info.name == raw.name and path.is_file() and path.stat().st_size == info.bytes
    enough = all(has[name] >= extras[name] for name in ("keyframes", "paintings"))
    enough = enough and (not extras["paintings"] or has["seed"] == extras["seed"])
    return info if whole and enough and made_of == raw.sha256 else None


def record_path(out: Path, raw: ShardInfo) -> Path:
    return (out / raw.name).with_suffix(".json")


if __name__ == "__main__":
    cli.run(main)
