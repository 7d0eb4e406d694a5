"""Show what a video tokenizer keeps: a video and its reconstruction, side by side, with scores."""

import math
from itertools import chain, islice
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from vpoet import cli
from vpoet.devices import pick
from vpoet.errors import DataError
from vpoet.evaluate.reconstruction import StreamScores, reconstruct_stream
from vpoet.files import aside
from vpoet.media.mp4 import encode_mp4
from vpoet.media.video import Video, resize_frame, stream_frames
from vpoet.outputs import expect_apart, expect_file
from vpoet.tokenizer.video import SHIPPED, VideoTokenizer

LARGEST = 16_384
"""Pixels."""
CLIPS = (".mp4", ".gif", ".webp", ".png")
console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)


def main(
    video: Annotated[Path, typer.Argument(help="A video or image file.")],
    out: Annotated[Path, typer.Option(help="The file to write: .mp4, .gif, .webp, or .png for an image.")],
    tokenizer: Annotated[
        Path,
        typer.Option(help="Video tokenizer's folder, or a bundle that holds one.", show_default="the one that ships"),
    ] = SHIPPED,
    height: Annotated[
        int | None, typer.Option(help="Scale to this height first. [default: the file's]", min=1, max=LARGEST)
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="Scale to this width first. [default: the file's]", min=1, max=LARGEST)
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="Resample to this frame rate first. [default: the file's]", max=1000)
    ] = None,
    start: Annotated[float, typer.Option(help="Seconds to skip at the beginning.", min=0)] = 0.0,
    pad: Annotated[bool, typer.Option("--pad", help="Fill up to whole cells, and cut off again, instead.")] = False,
    max_frames: Annotated[
        int | None, typer.Option(help="Frames to take at most. [default: all]", min=1, max=10**9)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Send a video through the tokenizer and back, and write original | reconstruction side by side.

    A size that the tokenizer can't take is cut to the next smaller one it can: in time at the end, in space around the
    centre. A tokenizer does best at the size and frame rate it was trained on. A .mp4 is made chunk by chunk, so that
    a film of any length needs no more memory than a short one.

    Examples:

        vpoet reconstruct clip.mp4 --height 128 --width 128 --fps 8 --out both.mp4
        vpoet reconstruct clip.mp4 --tokenizer runs/video/tokenizer --pad --out both.mp4
    """
    expect_file(out, CLIPS)
    expect_apart(out, [video])
    if not math.isfinite(start):
        raise DataError(f"--start {start}: give seconds")
    nested = tokenizer / "video_tokenizer"
    coder = VideoTokenizer.load(nested if nested.is_dir() else tokenizer).to(pick(device))
    rate, frames = stream_frames(video, fps=fps, start=start)
    first = next(frames, None)
    if first is None:
        raise DataError(f"{video}: no frames{f' after {start} s' if start else ''}")
    s = coder.stride[1]
    size = height or first.shape[0], width or first.shape[1]
    size = size if pad else (size[0] // s * s, size[1] // s * s)
    if not all(size):
        raise DataError(
            f"{video}: a side is shorter than a cell of {s} pixels; give --pad, or --height and --width of {s} or more"
        )
    resized = (resize_frame(frame, *size) for frame in islice(chain([first], frames), max_frames))
    scores = StreamScores()
    pairs = scores.side_by_side(reconstruct_stream(coder, resized, pad=pad))
    with aside(out) as fresh:
        if out.suffix.lower() == ".mp4":
            encode_mp4(fresh, pairs, rate)
        else:
            fresh.write_bytes(Video(np.stack(list(pairs)), rate).encode(out.suffix.lower()))

    h, w = (-(-side // s) for side in size)
    grid = [round(scores.codes / (h * w)), h, w]
    bits_per_pixel = scores.codes * math.log2(coder.codebook_size) / (scores.frames * size[0] * size[1])
    console.print(
        f"{scores.frames} frames of {size[0]}x{size[1]} as {'x'.join(map(str, grid))} codes: "
        f"PSNR {scores.psnr:.2f} dB, SSIM {scores.ssim:.4f}, {bits_per_pixel:.4f} bits per pixel"
    )
    console.print(f"{out}: original | reconstruction")
    result = {
        "out": out,
        "psnr": scores.psnr,
        "ssim": scores.ssim,
        "bits_per_pixel": bits_per_pixel,
        "frames": scores.frames,
        "height": size[0],
        "width": size[1],
        "fps": rate,
        "grid": grid,
        "codes_used": len(scores.used),
        "tokenizer": coder.hash,
    }
    cli.finish(result, as_json)


if __name__ == "__main__":
    cli.run(main)
