"""Score a video tokenizer on raw shards: PSNR, SSIM, use of the codebook, bits a pixel."""

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from vpoet import cli
from vpoet.data.shards import Manifest, Problems, read_shard
from vpoet.data.video import Video
from vpoet.errors import DataError
from vpoet.evaluate.codes import CodeStatistics
from vpoet.evaluate.pictures import contact_sheet
from vpoet.evaluate.pixels import psnr, ssim
from vpoet.tokenizer.video import VideoTokenizer

SHEET_CLIPS = 6
console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)


def main(
    tokenizer: Annotated[Path, typer.Argument(help="Video tokenizer's folder.")],
    raw: Annotated[list[Path], typer.Argument(help="Folders of raw shards it was not trained on.")],
    clips: Annotated[int | None, typer.Option(help="Score so many clips at most. [default: all]", min=1)] = None,
    bigrams: Annotated[
        list[Path] | None, typer.Option(help="Raw shards for a bigram model, whose bits a code on RAW are then told.")
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="A picture to write: originals and reconstructions.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Score a video tokenizer on raw shards.

    PSNR and SSIM are means over frames, then over clips, of uint8 RGB at the shards' own size. They depend on size,
    frame rate and clip length as much as on the tokenizer: compare only under one protocol, which the output states.

    Example:

        vpoet evaluate-tokenizer runs/video/tokenizer runs/raw/heldout --sheet runs/reconstructions.png
    """
    coder = VideoTokenizer.load(tokenizer).to(device)
    problems = Problems()
    statistics = CodeStatistics(coder.codebook_size)
    scores: list[tuple[float, float]] = []
    sizes: set[tuple[int, int, int, float]] = set()
    pixels = 0
    rows = []
    total = min(count(raw), clips or math.inf)
    for name, video in track(islice(videos(raw, problems), clips), "clips", total=int(total), console=console):
        try:
            codes = coder.encode(np.asarray(video))
        except DataError as error:
            problems.add(str(error), name)
            continue
        drawn = coder.decode(codes)
        statistics.update(codes)
        scores.append((psnr(video.frames, drawn), ssim(video.frames, drawn)))
        sizes.add((len(video), video.height, video.width, video.fps))
        pixels += len(video) * video.height * video.width
        if len(rows) < 2 * SHEET_CLIPS:
            rows += [(name, video.frames), (f"{scores[-1][0]:.1f} dB, SSIM {scores[-1][1]:.3f}", drawn)]
    if problems.total:
        console.print(f"left out: {problems}")
    if not scores:
        raise DataError(f"{', '.join(map(str, raw))}: no clip could be scored: {problems or 'the shards are empty'}")

    values = np.array(scores)
    result = {
        "tokenizer": coder.hash,
        "stride": list(coder.stride),
        "levels": list(coder.levels),
        "psnr": values[:, 0].mean(),
        "psnr_standard_error": values[:, 0].std() / math.sqrt(len(values)),
        "ssim": values[:, 1].mean(),
        "bits_per_pixel": statistics.total * math.log2(coder.codebook_size) / pixels,
        "codebook": coder.codebook_size,
        "codes_used": statistics.used,
        "codebook_usage": statistics.usage,
        "codebook_usage_of_uniform_codes": statistics.uniform_usage,
        "entropy_bits": statistics.entropy,
        "perplexity": statistics.perplexity,
        "protocol": {
            "data": [str(folder) for folder in raw],
            "clips": len(scores),
            "frames": sorted({size[0] for size in sizes}),
            "height": sorted({size[1] for size in sizes}),
            "width": sorted({size[2] for size in sizes}),
            "fps": sorted({size[3] for size in sizes}),
            "colour": "RGB, uint8, full range 0 to 255",
            "averaging": "frames, then clips",
        },
    }
    if bigrams:
        model = CodeStatistics(coder.codebook_size)
        for _, video in track(videos(bigrams, problems), "bigrams", total=count(bigrams), console=console):
            model.update(coder.encode(np.asarray(video)))
        result["bigram_bits"] = model.bigram_bits(statistics)
    if sheet:
        sheet.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(rows, max_frames=9).save(sheet)
        console.print(f"{sheet}: originals and reconstructions")
    console.print(
        f"{len(scores)} clips: PSNR {result['psnr']:.2f} dB, SSIM {result['ssim']:.4f}, "
        f"{result['bits_per_pixel']:.4f} bits a pixel; {statistics.used} of {statistics.size} codes used "
        f"(uniform ones would use {statistics.uniform_usage:.1%}), {statistics.entropy:.2f} bits a code"
        + (f", {result['bigram_bits']:.2f} by bigrams" if bigrams else "")
    )
    cli.finish(result, as_json)


def count(folders: list[Path]) -> int:
    """Samples in the folders."""
    return sum(Manifest.load(folder).samples for folder in folders)


def videos(folders: list[Path], problems: Problems) -> Iterator[tuple[str, Video]]:
    """Every readable sample's key and video."""
    for folder in folders:
        for shard in Manifest.load(folder).shards:
            for sample in read_shard(folder / shard.name, problems=problems):
                try:
                    yield sample.key, Video.read(sample.video)
                except DataError:
                    problems.add("cannot be decoded", sample.key)


if __name__ == "__main__":
    cli.run(main)
