"""The open VideoPoet: one language model that reads and writes video.

The names below are loaded on first use, so ``import vpoet`` costs nothing.

    model = vpoet.load("runs/demo/bundle")
    model.sample("a fox runs to the right").write("fox.mp4")
"""

import importlib
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vpoet.generate.model import load
    from vpoet.media.video import Video
    from vpoet.tokenizer.video import VideoTokenizer

STARTED = time.perf_counter()
"""When this process began to load vpoet, and with it torch: where a program tells what took its time, it counts from
here."""
__version__ = "0.1.0"
__all__ = ["Video", "VideoTokenizer", "__version__", "load"]

_HOMES = {"Video": "vpoet.media.video", "VideoTokenizer": "vpoet.tokenizer.video", "load": "vpoet.generate.model"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vpoet' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
