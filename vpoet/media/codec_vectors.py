"""Motion as the encoder of a video found it: the vectors in its file, at no cost beyond decoding."""

from typing import Any

import numpy as np

from vpoet.media.video import Source, Video


class Vectors:
    """The motion vectors of a video, from each `av.VideoFrame` that has them beside it."""

    def __init__(self) -> None:
        self._lengths: list[float] = []

    def add(self, frame: Any) -> None:
        vectors = frame.side_data.get("MOTION_VECTORS")
        if vectors is not None:
            told = vectors.to_ndarray()
            way = np.hypot(told["motion_x"], told["motion_y"]) / np.maximum(told["motion_scale"], 1)
            area = told["w"].astype(np.float64) * told["h"]
            # a block that is predicted from both sides has two vectors; one without any counts as still
            whole = max(float(area.sum()), frame.width * frame.height)
            self._lengths.append(float((way * area).sum()) / whole / frame.height)

    def motion(self, fps: float) -> float | None:
        """Their mean length over the picture, in percent of its height per second.

        None where there were none: each frame is coded by itself, as in images and ProRes, or the codec does not tell
        (FFmpeg exports those of MPEG-1 to 4 and H.264). A vector says what was cheap to code: a plain wall may "move".
        """
        return float(np.mean(self._lengths)) * 100 * fps if self._lengths else None


def codec_motion(source: Source) -> float | None:
    """`Vectors.motion` of a whole video. DataError: there is no video or image in it that can be read."""
    vectors = Vectors()
    return vectors.motion(Video.read(source, look=vectors.add).fps)
