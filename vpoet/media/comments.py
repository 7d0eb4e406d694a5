"""What a file says of itself: a comment that is written with a clip, and read back.

In an .mp4 it is the tag that players call the comment; a .gif has a block of its own for it, a .png a text.
"""

import contextlib

from PIL.PngImagePlugin import PngInfo

from vpoet.errors import DataError
from vpoet.media.container import tagged
from vpoet.media.images import open_image

KEY = "comment"
LONGEST = 60_000
"""Characters."""


def png_info(comment: str) -> PngInfo:
    info = PngInfo()
    info.add_itxt(KEY, comment)
    return info


def read_comment(data: bytes) -> str:
    """Of the bytes of a file; nothing, where it has none, or cannot be read."""
    found: object = ""
    with contextlib.suppress(DataError, OSError, ValueError):
        if (picture := open_image(data)) is not None:
            found = picture.info.get(KEY, "")
            if isinstance(found, bytes):
                found = found.decode("utf-8", "replace")
        else:
            found = tagged(data, KEY)
    return str(found)[:LONGEST]
