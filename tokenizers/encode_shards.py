"""Turn raw shards into token shards with a video tokenizer; resumable, shared among processes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

from vpoet import cli
from vpoet.data.encode import Extras, Job, Pace, encode_job, finished
from vpoet.data.ray_workers import workers_of
from vpoet.data.shards import Manifest, Problems
from vpoet.data.shelf import Shelf
from vpoet.data.tiles import EDGE
from vpoet.data.workers import share_out
from vpoet.devices import pick
from vpoet.errors import ConfigError, DataError
from vpoet.outputs import expect_folder
from vpoet.processes import announced
from vpoet.tokenizer.video import VideoTokenizer, loaded

console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)


def main(
    raw: Annotated[
        str,
        typer.Argument(
            help="Folder of raw shards, as `vpoet ingest` makes them: a path, or s3://, gs://, https://, pipe:.",
            show_default=False,
        ),
    ],
    tokenizer: Annotated[Path, typer.Option(help="Video tokenizer's folder, as `vpoet train-video` makes it.")],
    out: Annotated[Path, typer.Option(help="The folder of token shards to write.")],
    keyframes: Annotated[
        bool,
        typer.Option(
            "--keyframes",
            help="Also encode each cell's last frame as an image: training data for interpolation and backward.",
        ),
    ] = False,
    paintings: Annotated[
        int,
        typer.Option(
            min=0,
            max=1000,
            help="Also encode each clip with N random holes and with N borders hidden: training data for in- and "
            "outpainting.",
        ),
    ] = 0,
    tiles: Annotated[
        int,
        typer.Option(
            min=0,
            max=1000,
            help="Encode N tiles of each clip, with what lies around them half as fine, and nothing else: training "
            "data for super-resolution.",
        ),
    ] = 0,
    tile: Annotated[int, typer.Option(min=8, max=4096, help="Pixels of a side of a tile.")] = 64,
    seed: Annotated[
        int, typer.Option(min=0, help="Draws the holes and borders, and places of tiles, with each sample's key.")
    ] = 0,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda (under a launcher, each process its own GPU) or cuda:N.")
    ] = "cpu",
    dtype: Annotated[
        str, typer.Option(help="fp32, or on a GPU tf32: faster, and less than one code in a thousand is another.")
    ] = "fp32",
    batch: Annotated[
        int,
        typer.Option(
            min=1,
            max=10_000,
            help="Clips held as frames, and as many decoded ahead; a GPU encodes those of one size at once.",
        ),
    ] = 8,
    decoders: Annotated[int, typer.Option(min=1, max=1000, help="Threads of each process that decode clips.")] = 2,
    ray: cli.Ray = None,
    local_rank: Annotated[int, typer.Option("--local_rank", hidden=True, help="Given by the launcher.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Turn raw shards into token shards with a video tokenizer.

    One token shard per raw shard, under the same name; an image becomes one cell in time. A sample that can't be read,
    or whose size the tokenizer can't take, is left out, counted and named. Running the same command again does only
    what is left to do.

    With --keyframes, frames 0, r, 2r, ... of a video are encoded once more, each by itself, into a second array of the
    same size.

    The control signals of a raw shard (`vpoet ingest --controls`) are encoded like the clips.

    With --paintings N, each clip is encoded 2 N times more: with N holes, and with N borders, of which the encoder sees
    nothing, as in sampling. Inpainting and outpainting train on these alone.

    With --tiles N, N places of each clip are samples of their own: a tile, and the window around it with half the
    pixels a side, as many as the tile has. Clips are larger than a tile; of what they show beyond it nothing is kept.

    On a CPU the shards are the same bytes for any --batch, --decoders and number of processes.

    One process, four, four with a GPU each, and a Ray cluster's:

        vpoet encode runs/raw/train --tokenizer runs/video/tokenizer --out runs/tokens/train
        deepspeed --num_accelerators 4 tokenizers/encode_shards.py runs/raw/train --tokenizer T --out runs/tokens/train
        deepspeed --num_gpus 4 tokenizers/encode_shards.py RAW --tokenizer T --out OUT --device cuda --dtype tf32
        vpoet encode runs/raw/train --tokenizer runs/video/tokenizer --out runs/tokens/train --ray auto
    """
    rank, world = announced()
    expect_folder(out)
    crew = workers_of(ray, gpus=int(device.startswith("cuda")))
    coder = VideoTokenizer.load(tokenizer)
    if ray is None:  # on a cluster the GPUs are its workers'
        coder.to(pick(device), dtype)
    if tiles and (keyframes or paintings):
        raise ConfigError("--tiles makes samples of super-resolution alone: the others go to another --out")
    if tile % EDGE:
        raise ConfigError(f"--tile {tile}: a multiple of {EDGE}")
    if (keyframes or paintings) and not coder.causal:
        raise ConfigError(
            f"{'--keyframes' if keyframes else '--paintings'}: {tokenizer} is not causal: its first cell is "
            f"{coder.first} frames, as all are, so that it has no codes of images, nor of clips that begin with one"
        )
    shelf = Shelf(raw)
    manifest = shelf.manifest()
    if manifest.kind != "raw" or out.resolve() == shelf.folder.resolve():
        told = f"{manifest.kind} shards, to write to {out}"
        raise DataError(f"{shelf.name}: {told}: raw ones are needed, and another folder")
    shards = manifest.shards
    cli.hold(out)
    extras, pace = Extras(keyframes, paintings, seed, tiles, tile), Pace(batch, decoders)
    problems = Problems()
    done = [finished(out, shard, coder.codes, extras) is not None for shard in shards]
    todo = [shard for shard, ready in list(zip(shards, done, strict=True))[rank::world] if not ready]
    make: Callable[[], VideoTokenizer] = (lambda: coder) if ray is None else partial(loaded, tokenizer, device, dtype)
    jobs = [Job(raw, shard, out, make, extras, pace) for shard in todo]
    told = f"encoding (process {rank + 1} of {world})"
    encoded = share_out(encode_job, jobs, crew, lambda shards, clips: None)
    for _, found in track(encoded, told, total=len(jobs), console=console, disable=not todo):
        problems.update(found)

    if problems.total:
        console.print(f"left out: {problems}")
    infos = [info for shard in shards if (info := finished(out, shard, coder.codes, extras))]
    samples = sum(info.samples for info in infos)
    result: dict[str, Any] = {"out": out, "shards": len(infos), "samples": samples, "tokenizer": coder.codes}
    if len(infos) == len(shards):
        if not samples:
            raise DataError(f"{shelf.name}: not one sample could be encoded: {problems or 'the shards are empty'}")
        Manifest("tokens", infos, coder.codes, manifest.actions).save(out)
        console.print(f"{out}: {len(infos)} token shards, {samples} samples, tokenizer {coder.codes}")
    else:
        console.print(
            f"{out}: {len(infos)} of {len(shards)} shards; the process that finishes last writes the manifest"
        )
    cli.finish(result | {"complete": len(infos) == len(shards), "left_out": problems.to_dict()}, as_json)


if __name__ == "__main__":
    cli.run(main)
