"""Show what a video tokenizer keeps: a video and its reconstruction, side by side, with scores."""

import math
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from vpoet import cli
from vpoet.data.video import Video
from vpoet.errors import DataError
from vpoet.evaluate.pixels import psnr, ssim
from vpoet.tokenizer.video import VideoTokenizer

console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)


def main(
    video: Annotated[Path, typer.Argument(help="A video or image file.")],
    tokenizer: Annotated[Path, typer.Option(help="Video tokenizer's folder, or a bundle that holds one.")],
    out: Annotated[Path, typer.Option(help="The file to write: .mp4, .gif, .webp, or .png for an image.")],
    height: Annotated[int | None, typer.Option(help="Scale to this height first. [default: the file's]")] = None,
    width: Annotated[int | None, typer.Option(help="Scale to this width first. [default: the file's]")] = None,
    fps: Annotated[float | None, typer.Option(help="Resample to this frame rate first. [default: the file's]")] = None,
    start: Annotated[float, typer.Option(help="Seconds to skip at the beginning.")] = 0.0,
    max_frames: Annotated[int | None, typer.Option(help="Frames to take at most. [default: all]", min=1)] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Send a video through the tokenizer and back, and write original | reconstruction side by side.

    A size that the tokenizer can't take is cut to the next smaller one it can: in time at the end, in space around the
    centre. A tokenizer does best at the size and frame rate it was trained on.

    Example:

        vpoet reconstruct clip.mp4 --tokenizer runs/video/tokenizer --height 64 --width 64 --fps 8 --out both.mp4
    """
    nested = tokenizer / "video_tokenizer"
    coder = VideoTokenizer.load(nested if nested.is_dir() else tokenizer).to(device)
    original = Video.read(video, fps=fps, start=start, max_frames=max_frames)
    r, s, _ = coder.stride
    wanted = (height or original.height) // s * s, (width or original.width) // s * s
    if not all(wanted):
        raise DataError(
            f"{video}: a side is shorter than a cell of {s} pixels; give --height and --width of {s} or more"
        )
    original = original.resize(*wanted)
    frames = original.frames[: 1 + (len(original) - 1) // r * r]

    codes = coder.encode(frames)
    drawn = coder.decode(codes)
    Video(np.concatenate([frames, drawn], axis=2), original.fps).write(out)

    bits = codes.size * math.log2(coder.codebook_size)
    t, h, w = codes.shape
    result = {
        "out": out,
        "psnr": psnr(frames, drawn),
        "ssim": ssim(frames, drawn) if min(wanted) >= 11 else math.nan,
        "bits_per_pixel": bits / (len(frames) * wanted[0] * wanted[1]),
        "frames": len(frames),
        "height": wanted[0],
        "width": wanted[1],
        "fps": original.fps,
        "grid": [t, h, w],
        "codes_used": len(np.unique(codes)),
        "tokenizer": coder.hash,
    }
    console.print(
        f"{len(frames)} frames of {wanted[0]}x{wanted[1]} as {t}x{h}x{w} codes: PSNR {result['psnr']:.2f} dB, "
        f"SSIM {result['ssim']:.4f}, {result['bits_per_pixel']:.4f} bits a pixel"
    )
    console.print(f"{out}: original | reconstruction")
    cli.finish(result, as_json)


if __name__ == "__main__":
    cli.run(main)
