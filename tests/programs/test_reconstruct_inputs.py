"""`vpoet reconstruct` on what people really have: odd files give a right result or one clear line, never a traceback.

The tokenizer is untrained, so only sizes, frame counts and the left half (the original) are looked at.
"""

import io
import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from vpoet.errors import DataError
from vpoet.media.video import Video
from vpoet.tokenizer.autoencoder import Autoencoder, AutoencoderConfig
from vpoet.tokenizer.quantiser import QuantiserConfig
from vpoet.tokenizer.video import VideoTokenizer

Outcome = tuple[int, dict[str, Any], str]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"widths": [8, 8, 8], "encoder_blocks": [0, 0, 1], "decoder_blocks": [0, 0, 1]}
    folder = tmp_path_factory.mktemp("tokenizer")
    VideoTokenizer(Autoencoder(AutoencoderConfig(quantiser=QuantiserConfig(levels=[5, 5]), **shape))).save(folder)
    return folder


@pytest.fixture
def reconstruct(tokenizer: Path, tmp_path: Path, program: Callable[..., Any]) -> Callable[..., Outcome]:
    def run(source: bytes | Path, *options: object, coder: Path = tokenizer) -> Outcome:
        path = tmp_path / "input.bin"
        path.write_bytes(source if isinstance(source, bytes) else source.read_bytes())
        arguments = [path, "--tokenizer", coder, "--out", tmp_path / "both.mp4", "--json", *options]
        status, stdout, err = program("sample/reconstruct.py", *arguments)
        return status, json.loads(stdout.splitlines()[-1]) if status == 0 else {}, err

    return run


def ramp(count: int, height: int = 16, width: int = 24, channels: int = 3) -> list[np.ndarray]:
    """Dark to bright from left to right, the same in every frame; alpha, where asked for, all opaque."""
    row = np.linspace(0, 250, width).astype(np.uint8)
    frame = np.broadcast_to(row[:, None], (height, width, 3))
    alpha = np.full((height, width, channels - 3), 255, np.uint8)
    return [np.concatenate([frame, alpha], 2)] * count


def film(frames: list[np.ndarray], pixels: str, codec: str = "libx264", **options: Any) -> bytes:
    """A file by FFmpeg at 10 frames a second; ``times`` in tenths of a second make its rate variable."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=options.get("container", "matroska")) as file:
        stream = file.add_stream(codec, rate=10)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        if "rotation" in options:
            stream.set_display_rotation(options["rotation"])
        for index, array in enumerate(frames):
            source = "rgba" if array.shape[2] == 4 else "rgb24"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format=source).reformat(format=pixels)
            frame.pts, frame.time_base = options.get("times", range(99))[index], Fraction(1, 10)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("source", "options", "size"),
    [
        pytest.param(film(ramp(9), "gray"), [], (9, 16, 24), id="grey"),
        pytest.param(film(ramp(9), "yuv420p10le"), [], (9, 16, 24), id="10-bit"),
        pytest.param(film(ramp(9, channels=4), "argb", "qtrle", container="mov"), [], (9, 16, 24), id="alpha"),
        pytest.param(film(ramp(9, 17, 25), "yuv444p"), [], (9, 16, 24), id="odd sizes, cut"),
        pytest.param(film(ramp(8, 17, 25), "yuv444p"), ["--pad"], (8, 17, 25), id="odd sizes, filled up"),
        pytest.param(film(ramp(4), "yuv420p", times=[0, 1, 2, 7]), ["--fps", 10], (5, 16, 24), id="variable rate"),
        pytest.param(film(ramp(9), "yuv420p", rotation=90, container="mp4"), [], (9, 24, 16), id="phone, on its side"),
        pytest.param(film(ramp(1), "yuv420p"), [], (1, 16, 24), id="one frame"),
        pytest.param(Video(np.full((1, 1, 1, 3), 7, np.uint8), 0).encode(".png"), ["--pad"], (1, 1, 1), id="one pixel"),
    ],
)
def test_odd_inputs_come_out_at_their_size(
    source: bytes,
    options: list[object],
    size: tuple[int, int, int],
    reconstruct: Callable[..., Outcome],
    tmp_path: Path,
) -> None:
    status, result, err = reconstruct(source, *options)
    assert status == 0, err
    assert (result["frames"], result["height"], result["width"]) == size
    both = Video.read(tmp_path / "both.mp4")
    assert both.frames.shape == (size[0], size[1], 2 * size[2], 3)
    expected = Video.read(source, fps=10.0 if "--fps" in options else None).resize(*size[1:]).frames[: size[0]]
    original = both.frames[:, :, : size[2]].astype(int)
    assert np.abs(original - expected).mean() < 4  # what h264 keeps of it


def test_frames_are_not_lost_in_time(reconstruct: Callable[..., Outcome]) -> None:
    """Seven frames: five make whole cells; all seven come out when the last cell is filled up."""
    assert [reconstruct(film(ramp(7), "yuv420p"), *options)[1]["frames"] for options in ([], ["--pad"])] == [5, 7]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param(
            Video(np.zeros((1, 1, 1, 3), np.uint8), 0).encode(".png"), "give --pad, or --height", id="1 pixel"
        ),
        pytest.param(b"", "input.bin: not a video", id="empty file"),
        pytest.param(b"RIFF garbage" * 40, "input.bin: not a video", id="noise"),
        pytest.param(film(ramp(20), "yuv420p", container="mp4")[:400], "input.bin: not a video", id="cut off"),
    ],
)
def test_hopeless_inputs_get_one_clear_line(source: bytes, message: str, reconstruct: Callable[..., Outcome]) -> None:
    status, _, err = reconstruct(source)
    assert status == 2
    assert message in err
    assert "Traceback" not in err


def test_a_film_that_breaks_in_the_middle_leaves_what_was_there(
    reconstruct: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "both.mp4").write_bytes(b"of yesterday")
    whole = VideoTokenizer.encode_stream

    def breaking(*arguments: Any) -> Iterator[Any]:
        yield next(whole(*arguments))
        raise DataError("input.bin: broken while decoding")

    monkeypatch.setattr(VideoTokenizer, "encode_stream", breaking)
    status, _, err = reconstruct(film(ramp(40), "yuv420p"))
    assert status == 2
    assert "broken while decoding" in err
    assert (tmp_path / "both.mp4").read_bytes() == b"of yesterday"
    assert not list(tmp_path.glob(".*"))


def test_no_frame_after_the_start_is_said(reconstruct: Callable[..., Outcome]) -> None:
    status, _, err = reconstruct(film(ramp(9), "yuv420p"), "--start", 60)
    assert status == 2
    assert "no frames after 60.0 s" in err


@pytest.mark.parametrize(("damage", "message"), [("nan", "NaN or infinity"), ("value", "saved with hash")])
def test_spoilt_weights_are_refused(
    damage: str, message: str, tokenizer: Path, tmp_path: Path, reconstruct: Callable[..., Outcome]
) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    spoilt = tmp_path / "spoilt"
    spoilt.mkdir()
    (spoilt / "config.yaml").write_bytes((tokenizer / "config.yaml").read_bytes())
    with safe_open(tokenizer / "model.safetensors", "pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        metadata = file.metadata()
    weights["decoder.stem.weight"][0, 0] = float("nan") if damage == "nan" else 0.125
    save_file(weights, spoilt / "model.safetensors", metadata=metadata)
    status, _, err = reconstruct(film(ramp(5), "yuv420p"), coder=spoilt)
    assert status == 2
    assert message in err
