"""Score a video tokenizer on raw shards: PSNR, SSIM, use of the codebook, bits; beside H.264."""

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from vpoet import cli
from vpoet.data.shards import Manifest, Problems, read_shard
from vpoet.devices import pick
from vpoet.errors import DataError
from vpoet.evaluate.codecs import CODECS, CRFS, RateDistortion
from vpoet.evaluate.codes import CodeStatistics
from vpoet.evaluate.plots import PLOTS, SHEETS, rates_figure, save
from vpoet.evaluate.reconstruction import ERROR_GAIN, ReconstructionScores, absolute_error, peers
from vpoet.generate.model import load
from vpoet.media.sheet import contact_sheet
from vpoet.media.video import Video
from vpoet.nn.features import EfficientNetLite0
from vpoet.outputs import expect_file, whole
from vpoet.tokenizer.video import VideoTokenizer

SHEET_CLIPS = 6
RATES = ("bits_per_pixel", "bits_per_pixel_by_model")
"""At which codecs are scored."""
console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)


def main(
    tokenizer: Annotated[Path, typer.Argument(help="Video tokenizer's folder.")],
    raw: Annotated[list[Path], typer.Argument(help="Folders of raw shards it was not trained on.")],
    also: Annotated[list[Path] | None, typer.Option(help="Another tokenizer, for the same clips. Repeatable.")] = None,
    clips: Annotated[int | None, typer.Option(help="Score so many clips at most. [default: all]", min=1)] = None,
    pad: Annotated[
        bool,
        typer.Option("--pad", help="Pad clips that do not fit a tokenizer, and crop back; else they are left out."),
    ] = False,
    perceptual: Annotated[
        bool,
        typer.Option("--perceptual", help="Distance in a trained network's features: pip install vpoet[perceptual]."),
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option(help="A bundle of TOKENIZER's codes: what they take, entropy-coded as it expects them."),
    ] = None,
    codecs: Annotated[bool, typer.Option("--codecs", help="Code the same clips as H.264 and H.265.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="A picture to write: PSNR over bits a pixel. Takes --codecs along.")
    ] = None,
    bigrams: Annotated[
        list[Path] | None, typer.Option(help="Raw shards for a bigram model, whose bits a code on RAW are then told.")
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="A picture to write: originals, reconstructions, errors.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Score a video tokenizer on raw shards.

    All scores are means over frames, then over clips, of uint8 RGB at the shards' own size, ± 95% intervals by source:
    clips of one video count almost as one. They depend on size, frame rate and clip length as much as on the tokenizer:
    compare only under one protocol, which the output states. With --also, a clip that one tokenizer cannot take is left
    out for all.

    Bits a pixel are told as the codes come, log2(codebook) each, and after an ideal entropy coder that knows how often
    each occurs; with --model, also after one that is told the model's probabilities, given the codes before. H.264 and
    H.265 are scored at the first rate, and at the last, as they too code what they expect in fewer bits. Flicker is the
    mean difference, of 255, between the changes from frame to frame in the reconstruction and in the original.

    Example:

        vpoet evaluate-tokenizer runs/video/tokenizer runs/raw/heldout --sheet runs/reconstructions.png
        vpoet evaluate-tokenizer runs/a/tokenizer runs/raw/heldout --also runs/b/tokenizer --plot runs/rates.png
    """
    folders = [tokenizer, *(also or [])]
    place = pick(device)
    expect_file(sheet, SHEETS)
    expect_file(plot, PLOTS)
    features = EfficientNetLite0().to(place) if perceptual else None
    coders = [VideoTokenizer.load(folder).to(place) for folder in folders]
    expecting = [load(model, device) if model else None, *[None] * len(also or [])]
    scored = [
        ReconstructionScores(coder, pad=pad, features=features, model=expected)
        for coder, expected in zip(coders, expecting, strict=True)
    ]
    curves = [RateDistortion(codec) for codec in CODECS] if codecs or plot else []
    problems = Problems()
    sizes: set[tuple[int, int, int, float]] = set()
    rows, names = [], []
    total = min(sum(Manifest.load(folder).samples for folder in raw), clips or math.inf)
    for name, source, video in track(islice(videos(raw, problems), clips), "clips", total=int(total), console=console):
        try:
            for scores in scored:
                scores.check(video.frames, video.fps)
        except DataError as error:
            problems.add(str(error), name)
            continue
        names.append(name)
        drawn, *_ = [scores.add(video.frames, video.fps, source) for scores in scored]
        for curve in curves:
            curve.add(video.frames, video.fps)
        sizes.add((len(video), video.height, video.width, video.fps))
        if len(rows) < 3 * SHEET_CLIPS:
            dB, similarity = scored[0].scores[-1]
            error_row = (f"absolute error x{ERROR_GAIN}", absolute_error(video.frames, drawn))
            rows += [(name, video.frames), (f"{dB:.1f} dB, SSIM {similarity:.3f}", drawn), error_row]
    if not scored[0].scores:
        raise DataError(f"{', '.join(map(str, raw))}: no clip could be scored: {problems or 'the shards are empty'}")

    results = [scores.result() for scores in scored]
    for scores, values in zip(scored, results, strict=True):
        values["per_clip"] = scores.per_clip(names)
        if bigrams:
            values["bigram_bits"] = bigram_model(scores, bigrams, problems).bigram_bits(scores.codes)
        if curves:
            values |= {f"codecs_at_{rate}": peers(curves, values[rate]) for rate in RATES if rate in values}
    if problems.total:
        console.print(f"left out: {problems}")
    if sheet:
        with whole(sheet) as aside:
            contact_sheet(rows, max_frames=9).save(aside)
        console.print(f"{sheet}: originals, reconstructions, errors")
    protocol = {
        "data": [str(folder) for folder in raw],
        "clips": len(scored[0].scores),
        "frames": sorted({size[0] for size in sizes}),
        "height": sorted({size[1] for size in sizes}),
        "width": sorted({size[2] for size in sizes}),
        "fps": sorted({size[3] for size in sizes}),
        "colour": "RGB, uint8, full range 0 to 255",
        "averaging": "frames, then clips",
        "off_the_grid": "padded by edges and last frames, scored cropped" if pad else "left out",
    }
    if perceptual:
        protocol["perceptual_distance"] = f"{EfficientNetLite0.NAME}, not LPIPS"
    if curves:
        protocol["codecs"] = "4:2:0 BT.709, one group of pictures a clip, one thread; slices alone are counted"
    if plot:
        points = {str(folder): scores.point for folder, scores in zip(folders, scored, strict=True)}
        title = f"{protocol['clips']} clips of " + "; ".join(
            "{}x{}x{}, {:g} fps".format(*size) for size in sorted(sizes)
        )
        save(rates_figure({curve.codec.label: curve.points for curve in curves}, points, title), plot)
        console.print(f"{plot}: PSNR over bits a pixel")
    for folder, values in zip(folders, results, strict=True):
        tell(folder, values, protocol["clips"])
    result = results[0] | {"protocol": protocol}
    if also:
        result["also"] = [{"folder": str(folder), **values} for folder, values in zip(also, results[1:], strict=True)]
    if curves:
        result["codecs"] = {curve.codec.label: [point._asdict() for point in curve.points] for curve in curves}
    cli.finish(result, as_json)


def tell(folder: Path, values: dict, clips: int) -> None:
    """A tokenizer's scores, and its peers', for people."""
    flicker, distance = values["flicker"], values.get("perceptual_distance")
    psnr_half, ssim_half = (
        f" ± {half:.2g}" if half else "" for half in (values["psnr_interval"], values["ssim_interval"])
    )
    nominal, coded = values["bits_per_pixel"], values["bits_per_pixel_entropy_coded"]
    console.print(
        f"{folder}: {clips} clips of {values['sources']} sources: PSNR {values['psnr']:.2f}{psnr_half} dB, "
        f"SSIM {values['ssim']:.4f}{ssim_half}"
        + (f", flicker {flicker:.2f}" if flicker is not None else "")
        + (f", {EfficientNetLite0.NAME} {distance:.4f}" if distance is not None else "")
        + f", {nominal:.4f} bits a pixel ({coded:.4f} entropy-coded); "
        f"{values['codes_used']} of {values['codebook']} codes used (uniform ones would use "
        f"{values['codebook_usage_of_uniform_codes']:.1%}), {values['entropy_bits']:.2f} bits a code"
        + (f", {values['bigram_bits']:.2f} by bigrams" if "bigram_bits" in values else "")
        + (f", {values['model_bits']:.2f} by the model" if "model_bits" in values else "")
    )
    for rate in RATES:
        for label, peer in values.get(f"codecs_at_{rate}", {}).items():
            scores = f"PSNR {peer['psnr']:.2f} dB, SSIM {peer['ssim']:.4f}" if peer else f"no such rate at crf {CRFS}"
            console.print(f"  {label} at {values[rate]:.4f} bits a pixel: {scores}")


def bigram_model(scores: ReconstructionScores, folders: list[Path], problems: Problems) -> CodeStatistics:
    """The codes of other shards, counted."""
    model = CodeStatistics(scores.coder.codebook_size)
    for name, _, video in track(videos(folders, problems), "bigrams", console=console):
        try:
            model.update(scores.encode(video.frames))
        except DataError as error:
            problems.add(str(error), name)
    return model


def videos(folders: list[Path], problems: Problems) -> Iterator[tuple[str, str | None, Video]]:
    """Every readable sample's key, what it was cut from, and its video."""
    for folder in folders:
        for shard in Manifest.load(folder).shards:
            for sample in read_shard(folder / shard.name, problems=problems):
                try:
                    yield sample.key, sample.json.get("source"), Video.read(sample.video)
                except DataError as error:
                    problems.add("cannot be decoded", f"{sample.key}: {error}")


if __name__ == "__main__":
    cli.run(main)
