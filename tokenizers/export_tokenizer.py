"""Write a video tokenizer as two programs that PyTorch alone runs: frames to codes, codes to frames."""

import json as jsons
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from vpoet import cli
from vpoet.errors import OutputError
from vpoet.files import folder_aside
from vpoet.outputs import expect_folder
from vpoet.tokenizer.exported import programs
from vpoet.tokenizer.video import SHIPPED, VideoTokenizer


def main(
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    tokenizer: Annotated[
        Path, typer.Option(help="Folder of the video tokenizer, by default the general one that ships.")
    ] = SHIPPED,
    json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Write a video tokenizer as two programs for use without vpoet (torch.export), which need PyTorch alone.

    encoder.pt2 takes frames uint8 [1, T, H, W, 3] and gives codes int32 [1, t, h, w]; decoder.pt2 takes codes and gives
    frames. Sizes are free, of 2 cells or more on each axis; tokenizer.json states how frames and cells go together. The
    codes and pixels are those of VideoTokenizer.encode_batch and decode_batch.

    In Python, anywhere:

        encode = torch.export.load("runs/exported/encoder.pt2").module()
        codes = encode(torch.zeros(1, 17, 64, 64, 3, dtype=torch.uint8))

    Examples:

        vpoet export-tokenizer --out runs/exported
        vpoet export-tokenizer --tokenizer runs/demo/video/tokenizer --out runs/demo/exported
    """
    console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    expect_folder(out)
    if out.is_dir() and any(out.iterdir()):
        raise OutputError(f"{out}: is not empty; choose another name, or remove it yourself")
    cli.hold(out, replaced=True)
    coder = VideoTokenizer.load(tokenizer)
    console.print(f"{tokenizer}: tracing, which takes a minute")
    made = programs(coder)
    about = {
        "hash": coder.hash,
        "stride": list(coder.stride),
        "frames of the first cell": coder.frames(1),
        "levels": list(coder.levels),
        "codebook": coder.codebook_size,
        "torch": str(torch.__version__),
    }
    with folder_aside(out) as fresh:
        for name, program in made.items():
            torch.export.save(program, fresh / f"{name}.pt2")
        (fresh / "tokenizer.json").write_text(jsons.dumps(about, indent=2))
        sizes = {path.name: path.stat().st_size for path in sorted(fresh.iterdir())}
    console.print(f"{out}: {', '.join(f'{name} {size / 1e6:.1f} MB' for name, size in sizes.items())}")
    console.print(f'next: torch.export.load("{out}/encoder.pt2").module()(frames)')
    cli.finish({"folder": out, "hash": coder.hash, "bytes": sum(sizes.values())}, json)


if __name__ == "__main__":
    cli.run(main)
