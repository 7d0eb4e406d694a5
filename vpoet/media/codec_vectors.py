"""Motion as the encoder of a video found it: the vectors in its file, at no cost beyond decoding."""

from pathlib import Path

import av
import numpy as np

from vpoet.errors import DataError
from vpoet.media.container import open_stream, reason


def codec_motion(source: str | Path | bytes) -> float | None:
    """Mean length of a video's motion vectors over the picture, in percent of its height per second.

    None where the file has none: each frame is coded by itself, as in images and ProRes, or the codec does not tell
    (FFmpeg exports those of MPEG-1 to 4 and H.264). A vector says what was cheap to code: a plain wall may "move".
    DataError: there is no video in it that can be read.
    """
    lengths: list[float] = []
    container, stream = open_stream(source)
    with container:
        stream.codec_context.options = stream.codec_context.options | {"flags2": "+export_mvs"}
        fps = float(stream.average_rate or stream.guessed_rate or 25)
        try:
            for frame in container.decode(stream):
                vectors = frame.side_data.get("MOTION_VECTORS")
                if vectors is not None:
                    told = vectors.to_ndarray()
                    way = np.hypot(told["motion_x"], told["motion_y"]) / np.maximum(told["motion_scale"], 1)
                    area = told["w"].astype(np.float64) * told["h"]
                    # a block that is predicted from both sides has two vectors; one without any counts as still
                    whole = max(float(area.sum()), frame.width * frame.height)
                    lengths.append(float((way * area).sum()) / whole / frame.height)
        except av.FFmpegError as error:
            raise DataError(f"broken while decoding: {reason(error)}") from None
    return float(np.mean(lengths)) * 100 * fps if lengths else None
