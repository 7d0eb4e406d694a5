"""Complete texts, images and videos in any order: some are given, the others are made."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from vpoet import cli
from vpoet.data.fields import parse_json
from vpoet.errors import PromptError
from vpoet.files import write_atomic
from vpoet.generate.fields import those_of
from vpoet.generate.flags import flags
from vpoet.generate.in_order import LONGEST
from vpoet.generate.model import load
from vpoet.generate.sampling import Sampling
from vpoet.outputs import expect_folder

LIST = "segments.json"
console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


@flags(Sampling, before="seed")
def main(
    segments: Annotated[Path, typer.Argument(metavar="FILE", help="A JSON list of segments; see below.")],
    model: Annotated[Path, typer.Option(help="Bundle folder of a model that was trained for interleaved samples.")],
    out: Annotated[Path, typer.Option(help="Folder for the images and videos, and segments.json with all.")],
    longest: Annotated[int, typer.Option(help="Pieces of a text that is made, at most.")] = LONGEST,
    seed: Annotated[int, typer.Option(help="The same seed makes the same.", min=0)] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="Of the weights: auto, fp32, bf16 or, on a CPU, int8.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
    **asked: Any,
) -> None:
    """Complete texts, images and videos in any order: some are given, the others are made.

    A segment says one of text, image and video: what is given, or null for what is to be made. A video that is made may
    say its frames. Files are found from the folder of the list.

        [{"text": "a robot"}, {"image": "robot.png"}, {"text": null}, {"video": null, "frames": 17}]

    Examples:

        vpoet complete story.json --model runs/mixed/bundle --out runs/story
        vpoet complete story.json --model runs/mixed/bundle --longest 20 --cfg 2 --seed 3 --out runs/story-3
    """
    expect_folder(out)
    try:
        told = parse_json(segments.read_bytes())
    except OSError as error:
        raise PromptError(f"{segments}: {error.strerror}") from None
    if not isinstance(told, list) or not all(isinstance(each, dict) for each in told):
        raise PromptError(f"{segments}: a list of segments, as --help shows it")
    for each in told:
        each |= {
            kind: str(segments.parent / each[kind]) for kind in ("image", "video") if isinstance(each.get(kind), str)
        }
    sampler = load(model, device, precision)
    made = sampler.complete(told, seed=seed, longest=longest, **those_of(Sampling, asked))

    written = []
    for number, (part, span) in enumerate(zip(made.parts, made.decoded.document.spans, strict=True)):
        whose = "made" if span.target else "given"
        if isinstance(part, str):
            written.append({"text": part, "target": span.target})
            console.print(f"{number} {whose}: {part}")
            continue
        file = out / f"{number}.{'mp4' if span.fps else 'png'}"
        part.write(file)
        written.append({str(span.modality): file.name, "target": span.target})
        console.print(f"{number} {whose}: {file}")
    write_atomic(out / LIST, json.dumps(written, indent=1, ensure_ascii=False))
    nats = float(made.decoded.nats.sum())
    console.print(f"{out / LIST}: {len(written)} segments, {len(made.decoded.nats)} tokens made, {nats:.1f} nats")
    cli.finish({"out": out, "segments": written, "tokens": len(made.decoded.nats), "nats": nats}, as_json)


if __name__ == "__main__":
    cli.run(main)
