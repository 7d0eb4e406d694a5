"""Sets of clips to compare, from wherever they lie, brought to one form as a protocol says and in no other way.

A set is a video file; a folder of raw shards; a .csv or .jsonl list; or a folder: of videos (with sub-folders), or of
sub-folders that hold the frames of a clip each, as pictures in the order of their names' numbers. A clip's name is the
same in each form (a path without its suffix, a shard's key), and with the seed it decides which clips are taken and
where they begin: so the same clips get the same scores, however they are kept.
"""

import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vpoet.arrays import Frames
from vpoet.data.fields import captions, parse_json, printable
from vpoet.data.folder import read_samples
from vpoet.data.lists import read_list
from vpoet.data.shards import MANIFEST, Manifest, Problems
from vpoet.errors import DataError
from vpoet.evaluate.compare.protocol import Protocol
from vpoet.files import CONFIG, WEIGHTS, fingerprint, open_file
from vpoet.generate.kept_codes import beside
from vpoet.media.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Video, first_frame, stream_frames

if TYPE_CHECKING:
    from torch import Tensor

MOVING = VIDEO_SUFFIXES | {".gif"}
STILL = IMAGE_SUFFIXES - {".gif"}
HELD = 2**28
"""Bytes of frames of a clip that may lie in memory."""


@dataclass(frozen=True)
class Clip:
    """One clip that has not been read yet."""

    name: str
    content: str
    """SHA-256 of the bytes that it is decoded from."""
    stream: Callable[[float], tuple[float, Iterator[Frames]]]
    """The rate, and its frames one by one, at a rate that is asked for (0: every one); DataError, naming the file, if
    it cannot be decoded."""
    prompt: str = ""
    """What it shall show, as a list's or a shard's caption or the record beside a sample says; "" where none does."""

    def read(self, fps: float, most: int | None = None) -> Video:
        """The first ``most`` frames, or all. DataError: as `stream`, or there is none."""
        rate, frames = self.stream(fps)
        return self.video(rate, itertools.islice(frames, most))

    def video(self, rate: float, frames: Iterable[Frames]) -> Video:
        """Those of its frames, all at once. DataError: there is none."""
        taken = list(frames)
        if not taken:
            raise DataError(f"{self.name}: no frame in it")
        return Video(np.stack(taken), rate)

    def start(self, protocol: Protocol, length: int) -> int:
        """The first frame that is taken of a real clip of ``length``, where it is left to chance."""
        return _chance(protocol.seed, "start", self.name) % (length - protocol.span + 1)


def is_bundle(path: Path) -> bool:
    """Whether a folder is a bundle, and not one of clips."""
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def gather(source: str | Path) -> list[Clip]:
    """The clips of a set, by their names. DataError: there are none, two of one name, or one cannot be read."""
    path = Path(source)
    if not path.exists():
        raise DataError(
            f"{source}: no such file or folder; give videos, a list, or a folder of videos, frames or shards"
        )
    if (path / MANIFEST).is_file():
        clips = list(_of_shards(path))
    elif path.is_dir():
        clips = [_of_file(each, _name(each, path)) for each in _inside(path, MOVING)]
        if not clips:
            folders = sorted({picture.parent for picture in _inside(path, STILL)})
            clips = [_of_frames(folder, _name(folder, path) if folder != path else path.name) for folder in folders]
    elif path.suffix.lower() in (".csv", ".jsonl"):
        clips = list(_of_list(path))
    else:
        clips = [_of_file(path, path.stem)]
    if not clips:
        raise DataError(f"{source}: no clip in it: neither videos, nor folders of frames, nor shards")
    names = sorted(clip.name for clip in clips)
    if twice := [name for name, after in itertools.pairwise(names) if name == after]:
        raise DataError(f"{source}: two clips are called {twice[0]!r} (suffixes left out); rename one of them")
    return sorted(clips, key=lambda clip: clip.name)


def drawn(clips: Sequence[Clip], seed: int) -> list[Clip]:
    """All of them, in an order that seed and names decide: the first of it are those that are compared."""
    return sorted(clips, key=lambda clip: (_chance(seed, "order", clip.name), clip.name))


def prepared(clip: Clip, protocol: Protocol, real: bool) -> Video:
    """Its frames as the protocol has them, and the rate that they were read at (0 of pictures, whose rate nobody
    knows). DataError: the clip is too short."""
    rate, frames = clip.stream(protocol.fps)
    if real and protocol.real_start != "first":
        held, length = _held(frames)
        first = clip.start(protocol, length) if length >= protocol.span else 0
        # of a film that is too long to be held, all is decoded once more
        frames = iter(held[first:]) if held else itertools.islice(clip.stream(protocol.fps)[1], first, None)
    taken = list(itertools.islice(frames, protocol.span))
    if len(taken) < protocol.span:
        raise DataError(
            f"{clip.name}: {len(taken)} frames{f' at {protocol.fps:g} fps' if protocol.fps else ''}, and the protocol "
            f"takes {protocol.span}; leave the clip out, or ask for fewer frames"
        )
    return Video(fitted(np.stack(taken[:: protocol.step]), protocol), rate)


def _held(frames: Iterator[Frames]) -> tuple[list[Frames], int]:
    """All frames, or none where they would take more memory than `HELD`, and how many there are."""
    held, length = list[Frames](), 0
    for length, frame in enumerate(frames, start=1):
        if length * frame.nbytes <= HELD:
            held.append(frame)
    return (held if len(held) == length else []), length


def frame_by_frame(video: Video, fps: float) -> tuple[float, Iterator[Frames]]:
    """What `Clip.stream` gives of a video that is in memory."""
    video = video.resample(fps) if fps and video.fps and fps != video.fps else video
    return video.fps, iter(video.frames)


def fitted(frames: Frames, protocol: Protocol) -> Frames:
    """Frames at the protocol's size; those that have it, and all with fit ``none``, are left as they are."""
    side, (height, width) = protocol.size, frames.shape[1:3]
    if protocol.fit == "none" or (height, width) == (side, side):
        return np.ascontiguousarray(frames)
    if protocol.fit == "crop":
        # the shorter side becomes `side`, the longer one at least that
        scaled = (side, -(-width * side // height)) if height < width else (-(-height * side // width), side)
    else:
        scaled = (side, side)
    import torch  # late: features that are there, and frames that fit, need none of it

    pictures = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    pictures = resize(pictures, scaled, protocol.filter, protocol.antialias)
    top, left = (scaled[0] - side) // 2, (scaled[1] - side) // 2
    cut = pictures[:, :, top : top + side, left : left + side].round().clamp(0, 255).byte()
    return cut.permute(0, 2, 3, 1).contiguous().numpy()


def resize(pictures_NCHW: "Tensor", size: tuple[int, int], filter: str, antialias: bool) -> "Tensor":
    """Pictures at another size, as float, with pixels taken for squares (corners not aligned)."""
    import torch

    return torch.nn.functional.interpolate(
        pictures_NCHW, size=size, mode=filter, align_corners=False, antialias=antialias
    )


def _of_file(path: Path, name: str, prompt: str | None = None) -> Clip:
    try:
        content = str(fingerprint(path)["sha256"])
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    text = _recorded(path) if prompt is None else prompt
    return Clip(name, content, lambda fps: stream_frames(path, fps=fps or None), text)


def _recorded(path: Path) -> str:
    """The prompt in the record that `vpoet sample` left beside a clip."""
    try:
        with open_file(beside(path)) as record:
            prompt = parse_json(record.read())["prompt"]
    except (OSError, DataError, LookupError, TypeError):
        return ""
    return prompt if isinstance(prompt, str) else ""


def _of_frames(folder: Path, name: str, prompt: str = "") -> Clip:
    files = [file for file in folder.iterdir() if file.is_file() and file.suffix.lower() in STILL]
    if not files:
        raise DataError(f"{folder}: a folder without a picture in it, and a clip has one or more")
    files.sort(key=lambda file: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", file.name)])
    hashes = [str(fingerprint(file)["sha256"]) for file in files]

    def stream(fps: float) -> tuple[float, Iterator[Frames]]:
        # no rate is known of pictures: they are taken to have the one that is asked for
        return fps, _alike(folder, map(first_frame, files))

    return Clip(name, hashlib.sha256("".join(hashes).encode()).hexdigest(), stream, prompt)


def _alike(folder: Path, frames: Iterator[Frames]) -> Iterator[Frames]:
    first = None
    for frame in frames:
        first = first or frame.shape
        if frame.shape != first:
            raise DataError(f"{folder}: its frames are of several sizes; a clip has one")
        yield frame


def _of_list(path: Path) -> Iterator[Clip]:
    for row in read_list(path):
        if row.problem or row.path is None:
            raise DataError(f"{row.name}: {row.problem or 'several files, and no clip'}; take the row out of {path}")
        name = Path(row.name).with_suffix("").as_posix()
        prompt = next(iter(captions(row.fields)), "")
        yield (_of_frames if row.path.is_dir() else _of_file)(row.path, name, prompt)


def _of_shards(folder: Path) -> Iterator[Clip]:
    if Manifest.load(folder).kind != "raw":
        raise DataError(f"{folder}: shards of codes have no pixels; give the raw shards that they were made from")
    problems = Problems()
    for sample in read_samples(folder, problems=problems):
        yield Clip(
            sample.key, hashlib.sha256(sample.video).hexdigest(), _stream(sample.video), next(iter(sample.captions), "")
        )
    if problems.total:
        raise DataError(f"{folder}: damaged samples: {problems}; make the shards again, as scores of the rest mislead")


def _stream(data: bytes) -> Callable[[float], tuple[float, Iterator[Frames]]]:
    return lambda fps: stream_frames(data, fps=fps or None)


def _inside(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    return sorted(path for path in found if not path.name.startswith("."))


def _name(path: Path, base: Path) -> str:
    relative = path.relative_to(base)
    return printable((relative if path.is_dir() else relative.with_suffix("")).as_posix())


def _chance(seed: int, what: str, name: str) -> int:
    return int(hashlib.sha256(f"{seed} {what} {name}".encode()).hexdigest()[:15], 16)
