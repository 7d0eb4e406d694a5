"""Clips that were made here: on the disk, under names of our own, so that a server that comes back has them still."""

import io
import json
import math
import secrets
import time
from collections.abc import Sequence as Items
from pathlib import Path
from typing import Any

import numpy as np

from vpoet.arrays import Frames
from vpoet.errors import DataError
from vpoet.files import make_folder, write_atomic
from vpoet.generate.growing import Filled
from vpoet.generate.kept_codes import Source
from vpoet.media.comments import png_info
from vpoet.media.sheet import contact_sheet
from vpoet.media.video import Video
from vpoet.tokenizer.contract import Tokenizer

KEPT = 500
"""Clips; the oldest go first."""
_ABOUT, _WHOLE = ".json", ".npz"
KINDS = {
    "mp4": "video/mp4", "gif": "image/gif", "png": "image/png", "webp": "image/webp", "rgb": "application/octet-stream",
    "npz": "application/octet-stream", "json": "application/json",
}  # fmt: skip
"""What a clip can be had as: ``rgb`` its frames uint8 [T, H, W, 3], ``npz`` frames and codes."""


def new_name() -> str:
    return secrets.token_hex(8)


def _told(path: Path) -> dict[str, Any] | None:
    """What a file of ours tells of its clip; nothing, if it is none of ours, or damaged."""
    try:
        about = json.loads(path.read_text())
        ours = about["id"] == path.stem and math.isfinite(about["made"]) and about["asked"] and about["record"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return dict(about) if ours else None


class History:
    """A folder of clips by id."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        make_folder(folder)
        self._known: dict[str, dict[str, Any]] = {}
        for about in sorted(filter(None, map(_told, folder.glob(f"*{_ABOUT}"))), key=lambda about: about["made"]):
            if self._path(about["id"], _WHOLE).is_file():
                self._known[about["id"]] = about

    def _path(self, name: str, suffix: str) -> Path:
        return self._folder / f"{name}{suffix}"

    def all(self) -> list[dict[str, Any]]:
        """What is told of each clip, the latest first."""
        return [*reversed(self._known.values())]

    def about(self, name: str) -> dict[str, Any] | None:
        return self._known.get(name)

    def add(self, name: str, parts: Items[Filled], fps: float, **told: Any) -> dict[str, Any]:
        """Keep a clip: its documents, filled, and what is ``told`` of it. OutputError: the disk refuses."""
        frames = np.concatenate([part.frames for part in parts])
        whole: dict[str, Any] = {"frames": frames, "fps": np.float64(fps)}
        for i, part in enumerate(parts):
            whole |= {f"codes_{i}": part.decoded.document.codes(), f"nats_{i}": part.decoded.nats}
        held = io.BytesIO()
        np.savez_compressed(held, **whole)
        count, height, width = frames.shape[:3]
        about = {
            "id": name, "made": time.time(), "frames": count, "height": height, "width": width, "fps": fps,
            "surprise": [[s.first, s.frames, s.nats, s.tokens] for part in parts for s in part.surprise], **told,
        }  # fmt: skip
        write_atomic(self._path(name, _WHOLE), held.getvalue())
        write_atomic(self._path(name, _ABOUT), json.dumps(about))
        self._known[name] = about
        while len(self._known) > KEPT:
            self.remove(next(iter(self._known)))
        return about

    def remove(self, name: str) -> None:
        if self._known.pop(name, None):
            for suffix in (_ABOUT, _WHOLE):
                self._path(name, suffix).unlink(missing_ok=True)

    def source(self, name: str, tokenizer: Tokenizer) -> Video | Source:
        """A clip to edit: its codes, if it is all that they are, by this tokenizer; or else its frames. DataError: it
        is here no more."""
        about, whole = self._held(name)
        with np.load(io.BytesIO(whole)) as found:
            if about["whole"] and about["record"].get("decoder") == tokenizer.hash:
                return Source(found["codes_0"], about["fps"], about["asked"].get("prompt", ""))
            return Video(found["frames"], about["fps"])

    def _held(self, name: str) -> tuple[dict[str, Any], bytes]:
        try:
            return self._known[name], self._path(name, _WHOLE).read_bytes()
        except (KeyError, FileNotFoundError):
            raise DataError("a clip that was made here is here no more") from None

    def file(self, name: str, kind: str) -> bytes:
        """A clip as one of `KINDS`. What decides how it came out is told in the file (`vpoet.media.comments`).
        DataError: it is here no more."""
        about, whole = self._held(name)
        if kind == "json":
            return json.dumps(about["record"], indent=1).encode()
        if kind == "npz":
            return whole
        frames: Frames = np.load(io.BytesIO(whole))["frames"]
        if kind == "rgb":
            return frames.tobytes()
        comment = json.dumps({"vpoet": about["asked"]})
        if kind == "png" and len(frames) > 1:
            sheet = io.BytesIO()
            label = str(about["asked"].get("prompt", ""))
            contact_sheet([(label, frames)]).save(sheet, "PNG", pnginfo=png_info(comment))
            return sheet.getvalue()
        return Video(frames, about["fps"]).encode(f".{kind}", lossless=kind == "webp", comment=comment)
