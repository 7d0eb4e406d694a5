"""Video files by FFmpeg, as a player shows them: which stream, when each frame is due, and how it is laid on a screen.

The stream is the one that FFmpeg calls the best (the file's default first), and never a cover picture. Interlaced
frames are deinterlaced (bwdif). Clocks that run backwards or jump are put right, so that frames follow one another.
"""

import io
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.filter import Graph
from av.stream import Disposition
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image

from vpoet.arrays import Frames
from vpoet.errors import DataError
from vpoet.media.colour import frame_rgb
from vpoet.media.fitted import Fitted, Size
from vpoet.media.images import MOST_PIXELS, THUMB, check_size
from vpoet.media.sparing import Sparing

NO_RECORDINGS = frozenset(
    ("adf", "bin", "concat", "dash", "hls", "idf", "image2", "imf", "lavfi", "rtp", "rtsp", "sap", "sdp", "tty", "xbin")
)
"""Formats that name other files or addresses, and text that FFmpeg would draw."""

NO_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails
STILLS = ("heic", "heix", "heim", "heis", "mif1", "msf1")
"""Brands of HEIF, in which FFmpeg finds the tiles of a picture, each as a stream of its own."""

JUMP, LONG_JUMP = 10.0, 3600.0
"""Seconds without a frame that are a clock's fault: in .ts, whose clocks begin anew (the value is FFmpeg's), and in all
others, where a picture may well stand still for long."""

INDEXED = ("mov", "matroska", "avi")
"""Formats in which a keyframe can be sought; in others a seek may land behind it, and they are read from the start."""

SPARES = "h264"
"""The codec whose decoder is asked to leave frames out."""

SLOWEST, FASTEST = 1.0, 300.0
"""Frames per second. Where a file says less, its clock may have jumped; where it says more, it may mean its clock's
ticks (screen recorders' .webm says 1000): the first frames are counted then."""

Timed = Iterator[tuple[float, Any]]
"""(seconds from the video's start, `av.VideoFrame`), ascending."""


def open_video(
    source: str | Path | bytes,
    start: float,
    behind: int,
    *,
    fps: float | None = None,
    size: Size | None = None,
    vectors: bool = False,
) -> tuple[float, Timed, Callable[[Any], Frames]]:
    """The frame rate, the frames from ``start`` seconds on as they are decoded, and what makes RGB of each.

    With ``fps``, frames that are the nearest to no time ``k / fps`` may be left out. With ``size``, height and width,
    RGB is made in that size where it can be in one step (`vpoet.media.fitted`), and else as it is. With ``vectors``,
    frames have their motion vectors beside them, where the codec tells.
    DataError: there is no video in it that can be read. The errors of this module name no file: `vpoet.media.video`
    does.
    """
    container, stream = open_stream(source)
    try:
        if vectors:
            stream.codec_context.options = stream.codec_context.options | {"flags2": "+export_mvs"}
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        if not SLOWEST <= rate <= FASTEST:
            rate = _counted_rate(container, stream) or rate
    except BaseException:
        container.close()
        raise
    screen = _Screen(stream.sample_aspect_ratio, behind, size)
    spares = fps is not None and fps < rate and not start and _format(container) in INDEXED[:2]
    sparing = Sparing(fps) if fps and spares and stream.codec_context.name == SPARES else None
    return rate, _decoded(container, stream, 1 / rate, start, sparing), screen.shown


def tagged(source: str | Path | bytes, name: str) -> str:
    """A tag of a video's file, as its title or comment; nothing, if it has none. DataError: it cannot be opened."""
    with _opened(source) as container:
        return str(container.metadata.get(name, ""))


def open_stream(source: str | Path | bytes) -> tuple[Any, Any]:
    """The container, which the caller closes, and of its streams the one that a player shows. DataError as above."""
    container = _opened(source)
    try:
        return container, _shown(container)
    except BaseException:
        container.close()
        raise


def reason(error: Exception) -> str:
    """What a decoder said, without the numbers and paths around it."""
    if isinstance(error, av.FFmpegError):
        log = str(error.log[-1]).strip() if error.log else ""
        if "not on whitelist" in log:
            return "by its name or content it is of a kind that holds none"
        return f"{error.strerror} ({log})" if log else str(error.strerror)
    return str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"


def _opened(source: str | Path | bytes) -> Any:
    file = io.BytesIO(source) if isinstance(source, bytes) else f"file:{source}"  # a name is never an address
    allowed = ",".join(sorted(av.formats_available - NO_RECORDINGS))
    try:
        with av.logging.Capture():  # the error holds the last line, and nobody else shall print it
            av.logging.set_level(av.logging.ERROR)
            # Names of authors and devices are in any encoding: nothing here depends on them.
            return av.open(file, metadata_errors="replace", container_options={"format_whitelist": allowed})
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DataError(f"not a video or image that can be decoded: {reason(error)}") from None
    finally:
        av.logging.set_level(None)


def _shown(container: Any) -> Any:
    """The stream that a player shows."""
    if container.metadata.get("major_brand", "").strip() in STILLS:
        raise DataError("a picture in HEIF, which is not read here: save it as .jpg or .png")
    streams = [stream for stream in container.streams.video if not stream.disposition & NO_VIDEO]
    if not streams:
        cover = " but a cover picture" if container.streams.video else ""
        raise DataError(f"no video stream in it{cover}")
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    if stream.codec_context is None:
        raise DataError(
            "no decoder for its video stream, or the file is cut short: convert the whole one to .mp4 (H.264) first"
        )
    check_size(stream.width, stream.height)
    stream.codec_context.thread_count = 1  # ingest runs a process a core; threads under them only get in the way
    stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
    return stream


def _counted_rate(container: Any, stream: Any, packets: int = 64) -> float | None:
    """Frames per second by the clock of the first packets, gaps left out."""
    times = [packet.pts for packet in islice(container.demux(stream), packets) if packet.pts is not None]
    container.seek(stream.start_time or 0, stream=stream)
    steps = np.diff(np.unique(times)) * float(stream.time_base)
    return float(1 / steps[steps <= 2 * np.median(steps)].mean()) if len(steps) else None


def _decoded(container: Any, stream: Any, step: float, start: float, sparing: Sparing | None) -> Timed:
    with container:
        origin = (stream.start_time or 0) * stream.time_base
        if start > 0 and _format(container) in INDEXED:
            container.seek(int((origin + Fraction(start)) / stream.time_base), stream=stream)
        jump = JUMP if container.format.name == "mpegts" else LONG_JUMP
        frames = _deinterlaced(_frames(container, stream, sparing))
        times = ((frame.time - float(origin) if frame.time is not None else None, frame) for frame in frames)
        for time, frame in in_order(times, step, jump):
            if time >= start - step:  # those before only feed the decoder
                yield time, frame


def _format(container: Any) -> str:
    return str(container.format.name).split(",")[0]


def _frames(container: Any, stream: Any, sparing: Sparing | None) -> Iterator[Any]:
    """All sound frames, but those to be spared. What cannot be decoded before the first is skipped, as in a recording
    that begins between two keyframes."""
    codec = stream.codec_context
    if codec.name == "vp9" and stream.metadata.get("alpha_mode") == "1":
        codec = av.CodecContext.create("libvpx-vp9", "r")  # FFmpeg's own decoder leaves out the alpha
        codec.extradata = stream.codec_context.extradata
    first, some = None, False
    packets = container.demux(stream)
    for packet, needed in sparing.decided(packets) if sparing else zip(packets, repeat(True)):
        try:
            if sparing:
                codec.skip_frame = "DEFAULT" if needed else "NONREF"
            frames = codec.decode(packet)
        except av.FFmpegError as error:
            if some:
                raise
            first = first or error
            continue
        for frame in frames:
            if not frame.is_corrupt:
                if sparing and not some:
                    sparing.begin(frame.time)
                if sparing and frame.interlaced_frame:
                    sparing.stop()  # what is between two fields is made of the frames around them
                some = True
                yield frame
    if first and not some:
        raise first


def _deinterlaced(frames: Iterable[Any]) -> Iterator[Any]:
    """Frames that are marked as interlaced, and those after them, through bwdif, which keeps what stands still."""
    graph: Graph | None = None
    size = None
    for frame in frames:
        if graph and size != (frame.width, frame.height, frame.format.name):
            yield from _through(graph, None)
            graph = None
        if graph is None and frame.interlaced_frame:
            size = frame.width, frame.height, frame.format.name
            graph = Graph()
            source = graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
            )
            graph.link_nodes(source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink"))
            graph.configure()
        if graph is None:
            yield frame
        else:
            yield from _through(graph, frame)
    if graph:
        yield from _through(graph, None)


def _through(graph: Graph, frame: Any) -> Iterator[Any]:
    graph.push(frame)
    while True:
        try:
            yield graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return


def in_order(timed: Iterable[tuple[float | None, Any]], step: float, jump: float) -> Timed:
    """Frames with times that ascend from that of the first.

    A frame without a time, or with one that is not later than the last, follows it by ``step``; so does one after a gap
    of more than ``jump`` seconds, forwards or back, and from there on the clock counts anew.
    """
    last: float | None = None
    shift = 0.0
    for told, frame in timed:
        time = None if told is None else told + shift
        if last is None:
            time = time or 0.0
        elif told is not None and time is not None and abs(time - last) > jump:
            time = last + step
            shift = time - told
        elif time is None or time <= last:
            time = last + step
        last = time
        yield time, frame


def thumbnails() -> Callable[[Any], Frames]:
    """What makes a small picture (`vpoet.media.images.THUMB`) of a decoded frame, as it is coded: not turned, HDR not
    brought to a screen's range."""
    convert = VideoReformatter()
    height, width = THUMB

    def thumbnail(frame: Any) -> Frames:
        check_size(frame.width, frame.height)
        small: Any = convert.reformat(
            frame, width=width, height=height, format="rgb24", interpolation=Interpolation.AREA
        ).to_ndarray()
        thumb: Frames = small
        return thumb

    return thumbnail


class _Screen:
    """What lays frames out as they are seen: in RGB, with square pixels, upright."""

    def __init__(self, pixel_aspect: Fraction | None, behind: int, size: Size | None) -> None:
        self._pixel_aspect, self._behind = pixel_aspect or Fraction(1), behind
        self._fitted = Fitted(size) if size else None
        self._convert = VideoReformatter()  # kept: it costs more to set up than to run on a small frame
        self._turn: int | None = None
        self._matrix: npt.NDArray[np.int32] | None = None

    def shown(self, frame: Any) -> Frames:
        check_size(frame.width, frame.height)
        if self._fitted and self._pixel_aspect == 1 and not frame.rotation:
            fitted = self._fitted(frame)
            if fitted is not None:
                return fitted
        rgb = frame_rgb(frame, self._convert, self._behind)
        if self._pixel_aspect != 1:
            width = max(1, round(rgb.shape[1] * self._pixel_aspect))
            check_size(width, rgb.shape[0])
            rgb = np.asarray(Image.fromarray(rgb).resize((width, rgb.shape[0]), Image.Resampling.BICUBIC))
        if frame.rotation != self._turn:
            # Only where it changes: a frame and its side data hold one another, and both stay until Python looks for
            # such circles, a hundred frames later.
            self._turn, self._matrix = frame.rotation, _display_matrix(frame)
        return rgb if self._matrix is None else apply_display_matrix(rgb, self._matrix)


def _display_matrix(frame: Any) -> npt.NDArray[np.int32] | None:
    for side in frame.side_data.keys():  # noqa: SIM118 - the container's values are unreachable by key in PyAV 18
        if side.type.name == "DISPLAYMATRIX":
            return np.frombuffer(bytes(side), "<i4").reshape(3, 3)
    return None


def apply_display_matrix(rgb: Frames, matrix: npt.NDArray[np.int32]) -> Frames:
    """Turn a frame as its file says: quarter turns and mirrors (others are left alone).

    ISO 14496-12, 6.2.2: (x, y) is shown at (a x + c y, b x + d y), rows of the matrix being (a, b, u), (c, d, v).
    """
    (a, b), (c, d) = matrix[:2, :2].tolist()
    if b == c == 0:
        flip_x, flip_y = a < 0, d < 0
    elif a == d == 0:
        rgb, flip_x, flip_y = rgb.transpose(1, 0, 2), c < 0, b < 0
    else:
        return rgb
    return np.ascontiguousarray(rgb[:: -1 if flip_y else 1, :: -1 if flip_x else 1])
