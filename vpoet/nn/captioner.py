"""Captions of pictures by a model of transformers from a local folder: BLIP, GIT, and others of their interface."""

from functools import lru_cache
from pathlib import Path

import torch

from vpoet.arrays import Frames
from vpoet.files import fingerprint
from vpoet.nn.pretrained import MODEL, kind, loaded, processed, transformers

LONGEST = 64
"""Tokens of a caption."""


class PictureCaptioner:
    """What the frame in the middle of a clip shows, in words: the likeliest word each time, so always the same."""

    def __init__(self, folder: Path) -> None:
        """BackendError: transformers is not installed; CheckpointError: no model in this folder that writes captions of
        pictures."""
        library = transformers(folder)
        kind(folder)
        self._model = loaded(library.AutoModelForImageTextToText, folder).eval()
        self._process = processed(library.AutoProcessor, folder)

    @torch.inference_mode()
    def __call__(self, frames: Frames) -> str:
        given = self._process(images=frames[len(frames) // 2], return_tensors="pt")
        tokens = self._model.generate(**given, max_new_tokens=LONGEST, do_sample=False, num_beams=1)
        (words,) = self._process.batch_decode(tokens, skip_special_tokens=True)
        return str(words).strip()


@lru_cache(1)
def captioner(folder: Path) -> PictureCaptioner:
    """That of a folder; made once in a process, which has one thread from then on."""
    torch.set_num_threads(1)
    return PictureCaptioner(folder)


def identity(folder: Path) -> str:
    """Of the weights in a folder."""
    return f"{kind(folder)} {fingerprint(folder / MODEL)['sha256']}"
