"""Uploads are read in a process of their own, which may die: it has no more memory, time or files than it is told.

    python -m vpoet.serve.reader < ask and file > answer

Both ways a message is a line of JSON and the bytes that it says the length of. What is asked: ``look`` at a file,
``read`` its frames as a request needs them, or the ``codes`` of a record (`vpoet.generate.kept_codes.record_of`).
"""

import io
import json
import math
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np

from vpoet.arrays import Frames
from vpoet.data.fields import parse_json
from vpoet.errors import DataError, VpoetError
from vpoet.generate.kept_codes import Source, read_record
from vpoet.media.comments import read_comment
from vpoet.media.video import FASTEST, Video, resize_frame, stream_frames

MEMORY, SECONDS = 3 << 30, 30
"""Of addresses and of a processor, for one file."""
PATIENCE = 120
"""Seconds by the clock: a busy machine is no fault of the file's."""
MOST_BYTES = 64 << 20
"""Of the frames that are read."""
LONGEST = 20_000
"""Frames that are looked at."""
_WORDS = 2000
"""Characters of a record's prompt, and of the hash of its tokenizer: they are held in memory."""
_LOOK, _SIDE = 48, 192
"""Frames and pixels of a side of what is shown of an upload."""
_SLACK = 1e-6


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a request reads a file."""

    fps: float = 0.0
    """Frames a second; 0: the first frame alone."""
    between: int = 0
    """Interpolation: of each cell of so many frames, or of several cells, one is given."""
    size: tuple[int, int] | None = None
    """Height and width that frames are brought to; None: as they are."""
    most: int = 0
    """Frames at most; 0: all."""
    behind: int = 255
    """The grey under what is transparent."""


def look(data: bytes) -> dict[str, Any]:
    """What a file holds: ``kind`` (image or video), ``width``, ``height``, ``frames``, ``fps``, ``comment``; and in
    ``bytes`` a small .webp of it. Of a record, ``kind`` is codes, and there is its ``prompt``, its ``fps`` and its
    ``decoder``, the tokenizer's hash. DataError: nothing that can be read."""
    return _ask({"do": "look"}, data)


def read(data: bytes, reading: Reading) -> Video:
    """The frames of a file. DataError: they cannot be read, or are too many."""
    told = _ask({"do": "read", **asdict(reading)}, data)
    return Video(np.frombuffer(told["bytes"], np.uint8).reshape(told["shape"]).copy(), told["fps"])


def read_codes(data: bytes) -> Source:
    """The codes of a record. DataError: there are none in it."""
    told = _ask({"do": "codes"}, data)
    return Source(np.frombuffer(told["bytes"], np.int32).reshape(told["shape"]).copy(), told["fps"], told["prompt"])


def _ask(ask: dict[str, Any], data: bytes) -> dict[str, Any]:
    process = subprocess.Popen(
        [sys.executable, "-m", "vpoet.serve.reader"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        answer, _ = process.communicate(json.dumps(ask).encode() + b"\n" + data, PATIENCE)
    except subprocess.TimeoutExpired:
        raise DataError("reading the file takes too long; send a shorter one") from None
    finally:
        process.kill()
        process.wait()
    head, line, rest = answer.partition(b"\n")
    if process.returncode or not line:
        raise DataError("the file cannot be read: it is damaged, or needs too much memory or time")
    told: dict[str, Any] = json.loads(head)
    if "error" in told:
        raise DataError(told["error"])
    return told | {"bytes": rest}


def _record(data: bytes) -> tuple[dict[str, Any], Source]:
    record = parse_json(data)
    try:
        source = read_record(record)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise DataError("neither a video or image, nor the record of a clip with its codes") from None
    if not 0 <= source.fps <= FASTEST or source.codes.nbytes > MOST_BYTES:
        raise DataError(f"codes at {source.fps} frames a second, {source.codes.shape}: those of no clip")
    if max(len(source.prompt or ""), len(str(record.get("decoder")))) > _WORDS:
        raise DataError(f"a record whose prompt has more than {_WORDS} characters")
    return record, source


def _codes(data: bytes) -> tuple[dict[str, Any], bytes]:
    _, source = _record(data)
    return {"shape": source.codes.shape, "fps": source.fps, "prompt": source.prompt}, source.codes.tobytes()


def _look(data: bytes) -> tuple[dict[str, Any], bytes]:
    if data.lstrip()[:1] == b"{":
        record, source = _record(data)
        about = {"kind": "codes", "fps": source.fps, "prompt": source.prompt, "decoder": str(record.get("decoder"))}
        return about, Video(np.full((1, 1, 1, 3), 128, np.uint8), 0).encode(".webp")
    fps, frames = stream_frames(data)
    first = next(frames, None)
    if first is None:
        raise DataError("no frames in it")
    height, width = first.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    small = max(1, round(height * scale)), max(1, round(width * scale))
    shown, count = [resize_frame(first, *small)], 1
    for frame in islice(frames, LONGEST):
        if count < _LOOK:
            shown.append(resize_frame(frame, *small))
        count += 1
    about = {"kind": "video" if fps else "image", "width": width, "height": height, "frames": count, "fps": fps}
    return about | {"comment": read_comment(data)}, Video(np.stack(shown), fps).encode(".webp")


def _read(data: bytes, reading: Reading) -> tuple[dict[str, Any], bytes]:
    fps = reading.fps
    if reading.between and fps:
        own = stream_frames(data)[0]
        gap = max(1, math.ceil(fps / (reading.between * own) - _SLACK)) if own else 1
        fps = fps / (reading.between * gap)
    own, frames = stream_frames(data, fps=fps or None, behind=reading.behind)
    kept: list[Frames] = []
    size = 0
    for frame in islice(frames, (reading.most or None) if fps else 1):
        kept.append(frame if reading.size is None else resize_frame(frame, *reading.size))
        size += kept[-1].nbytes
        if size > MOST_BYTES:
            raise DataError(f"its frames take more than {MOST_BYTES >> 20} MB: send a shorter or smaller one")
    if not kept:
        raise DataError("no frames in it")
    return {"shape": [len(kept), *kept[0].shape], "fps": own if fps else 0.0}, np.stack(kept).tobytes()


def _answer() -> None:
    head, data = sys.stdin.buffer.readline(), sys.stdin.buffer.read()
    ask = json.loads(head)
    for limit, most in (
        (resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CPU, SECONDS), (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):  # fmt: skip
        resource.setrlimit(limit, (most, most))
    try:
        match ask.pop("do"):
            case "look":
                told, rest = _look(data)
            case "codes":
                told, rest = _codes(data)
            case _:
                told, rest = _read(data, Reading(**ask))
    except VpoetError as error:
        told, rest = {"error": str(error).removeprefix(f"video of {len(data)} bytes: ")}, b""
    out = io.BytesIO()
    out.write(json.dumps(told).encode() + b"\n" + rest)
    sys.stdout.buffer.write(out.getvalue())


if __name__ == "__main__":
    _answer()
