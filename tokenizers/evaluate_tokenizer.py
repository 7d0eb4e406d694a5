"""Score a video tokenizer on raw shards: PSNR, SSIM, use of the codebook, bits; beside H.264."""

import math
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from vpoet import cli
from vpoet.data.folder import read_videos
from vpoet.data.shards import Manifest, Problems
from vpoet.devices import pick
from vpoet.errors import ConfigError, DataError
from vpoet.evaluate.codecs import CODECS, RateDistortion
from vpoet.evaluate.compare import flags
from vpoet.evaluate.compare.each import LPIPSPairs
from vpoet.evaluate.compare.networks import load as load_network
from vpoet.evaluate.compare.written import read_protocol, read_reach
from vpoet.evaluate.comparison import Comparison, bigram_bits, in_words
from vpoet.evaluate.plots import PLOTS, SHEETS, rates_figure, save
from vpoet.evaluate.reconstructed import ReconstructionDistances
from vpoet.evaluate.reconstruction import ReconstructionScores
from vpoet.files import aside
from vpoet.generate.model import load
from vpoet.media.sheet import contact_sheet
from vpoet.nn.features import EfficientNetLite0
from vpoet.outputs import expect_file
from vpoet.tokenizer.video import VideoTokenizer

console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)


def main(
    tokenizer: Annotated[Path, typer.Argument(help="Video tokenizer's folder.")],
    raw: Annotated[list[Path], typer.Argument(help="Folders of raw shards it was not trained on.")],
    also: Annotated[list[Path] | None, typer.Option(help="Another tokenizer, for the same clips. Repeatable.")] = None,
    clips: Annotated[
        int | None, typer.Option(help="Score at most this many clips. [default: all]", min=1, max=10**9)
    ] = None,
    pad: Annotated[
        bool,
        typer.Option("--pad", help="Pad clips that do not fit a tokenizer, and crop back; else they are left out."),
    ] = False,
    perceptual: Annotated[
        bool,
        typer.Option("--perceptual", help="Distance in a trained network's features: pip install vpoet[perceptual]."),
    ] = False,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="Also the distance of reconstructions to originals, as `vpoet compare` has it: a preset, and what is "
            "other than it, as in vpoet-16,size=64."
        ),
    ] = None,
    network: flags.Network = None,
    run_torchscript: flags.RunTorchScript = False,
    lpips: Annotated[
        Path | None, typer.Option(help="Also LPIPS, of these weights: a state dict, or a folder of its two.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="A bundle trained on TOKENIZER's codes: reports their rate when entropy-coded with its probabilities."
        ),
    ] = None,
    codecs: Annotated[bool, typer.Option("--codecs", help="Code the same clips as H.264 and H.265.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="A picture to write: PSNR over bits per pixel. Implies --codecs.")
    ] = None,
    bigrams: Annotated[
        list[Path] | None,
        typer.Option(help="Raw shards to fit a bigram model of the codes on; reports its bits per code on RAW."),
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

    Bits per pixel are reported up to three ways: nominal, log2(codebook) per code; after an ideal entropy coder that
    knows the codes' frequencies; and with --model after one driven by that model's probabilities, given the codes
    before. H.264 and H.265 are scored at the nominal rate, and with --model at the model's, as they are entropy-coded
    too. Flicker is the mean difference, of 255, between the changes from frame to frame in the reconstruction and in
    the original.

    With --protocol also the Frechet distance and MMD of features between originals and reconstructions as sets, with
    their floor and the protocol's id: rFVD, if --network has the weights of FVD. Clips that are too short for it are
    left out of all scores.

    Example:

        vpoet evaluate-tokenizer runs/video/tokenizer runs/raw/heldout --sheet runs/reconstructions.png
        vpoet evaluate-tokenizer runs/a/tokenizer runs/raw/heldout --also runs/b/tokenizer --plot runs/rates.png
        vpoet evaluate-tokenizer runs/a/tokenizer runs/raw/heldout --protocol vpoet-16,fps=8
    """
    place = pick(device)
    expect_file(sheet, SHEETS)
    expect_file(plot, PLOTS)
    features = EfficientNetLite0().to(place) if perceptual else None
    folders = [tokenizer, *(also or [])]
    coders = [VideoTokenizer.load(folder).to(place) for folder in folders]
    expecting = load(model, device) if model else None
    pairing = LPIPSPairs(lpips, place) if lpips else None
    more = {pairing.name: pairing} if pairing else {}
    scored = [ReconstructionScores(coders[0], pad=pad, features=features, model=expecting, more=more)]
    scored += [ReconstructionScores(coder, pad=pad, features=features, more=more) for coder in coders[1:]]
    curves = [RateDistortion(codec) for codec in CODECS] if codecs or plot else []
    distances = None
    if network and not protocol:
        raise ConfigError("--network is for --protocol; give both")
    if protocol:
        judge = load_network(network, device, run_torchscript, read_reach(protocol))
        distances = ReconstructionDistances(read_protocol(protocol), judge, len(coders))
    problems = Problems()
    comparison = Comparison(scored, curves, problems, distances)
    total = min(sum(Manifest.load(folder).samples for folder in raw), clips or math.inf)
    if distances:
        distances.expect(int(total))
    readable = islice(read_videos(*raw, problems=problems), clips)
    for sample, video in track(readable, "clips", total=int(total), console=console):
        comparison.add(sample, video)
    if not comparison.names:
        raise DataError(f"{', '.join(map(str, raw))}: no clip could be scored: {problems or 'the shards are empty'}")

    results = comparison.results()
    if bigrams:
        for scores, values in zip(scored, results, strict=True):
            others = track(read_videos(*bigrams, problems=problems), "bigrams", console=console)
            values["bigram_bits"] = bigram_bits(scores, others, problems)
    if problems.total:
        console.print(f"left out: {problems}")
    if sheet:
        with aside(sheet) as fresh:
            contact_sheet(comparison.rows, max_frames=9).save(fresh)
        console.print(f"{sheet}: originals, reconstructions, errors")
    rates = {curve.codec.label: curve.points for curve in curves}
    if plot:
        points = {str(folder): scores.point for folder, scores in zip(folders, scored, strict=True)}
        save(rates_figure(rates, points, comparison.title), plot)
        console.print(f"{plot}: PSNR over bits per pixel")
    for folder, values in zip(folders, results, strict=True):
        console.print("\n".join(in_words(folder, values, len(comparison.names))))
    result = results[0] | {"protocol": comparison.protocol(raw)}
    if also:
        result["also"] = [{"folder": str(folder), **values} for folder, values in zip(also, results[1:], strict=True)]
    if curves:
        result["codecs"] = {label: [point._asdict() for point in points] for label, points in rates.items()}
    cli.finish(result, as_json)


if __name__ == "__main__":
    cli.run(main)
