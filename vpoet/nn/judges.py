"""Networks that judge clips for curation, made from local folders and handed to `vpoet.data.curate`.

    embedding       EfficientNet-Lite0, which needs no folder: how a clip looks, as a vector
    text            RapidOCR: the share of the picture that is writing
    clip            CLIP: how well the caption fits, and how good the picture is
    nsfw            any image classifier of transformers that has a label for what is safe

A judge takes a few frames of a clip and its captions. The same frames give the same numbers: a clip is a batch of its
own, in fp32, on the CPU, in one thread.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vpoet.arrays import Floats, Frames
from vpoet.errors import BackendError, CheckpointError
from vpoet.files import fingerprint
from vpoet.nn.features import EfficientNetLite0
from vpoet.nn.pretrained import MODEL, kind, loaded, processed, transformers

Found = dict[str, float | Floats]
"""Numbers by name, or a vector."""

SIDE = 128
"""Pixels of the pictures of which EfficientNet-Lite0 makes an embedding."""
GOOD_AND_BAD = ("Good photo.", "Bad photo.")
"""Wang et al., "Exploring CLIP for Assessing the Look and Feel of Images" (AAAI 2023), section 3.1."""
SAFE = frozenset(("drawing", "drawings", "neutral", "normal", "safe", "sfw"))
"""Labels of what anybody may see, in small letters."""
SURE = 0.5
"""The least score of a line of writing that counts."""


class Embedding:
    """``embedding`` [112]: the last layer of EfficientNet-Lite0, averaged over space and frames, of length 1."""

    name = "embedding"

    def __init__(self) -> None:
        """BackendError: the network is not installed."""
        self._network = EfficientNetLite0()
        self.identity = f"EfficientNet-Lite0, layer 10, {SIDE} pixels"

    @torch.inference_mode()
    def __call__(self, frames: Frames, captions: Sequence[str]) -> Found:
        pictures = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
        pictures = torch.nn.functional.interpolate(pictures, (SIDE, SIDE), mode="bilinear", antialias=True)
        vector = self._network(pictures)[-1].mean((0, 2, 3))
        return {"embedding": (vector / vector.norm()).numpy()}


class Writing:
    """``text``: the share of the picture that lies in boxes around writing, the mean over frames."""

    name = "text"

    def __init__(self) -> None:
        """BackendError: RapidOCR is not installed."""
        try:
            import rapidocr_onnxruntime
        except ImportError as error:
            raise BackendError(f'finding text needs RapidOCR ({error}): pip install "vpoet[curate]"') from None
        threads = {"intra_op_num_threads": 1, "inter_op_num_threads": 1}
        self._read = rapidocr_onnxruntime.RapidOCR(**threads)
        self.identity = "RapidOCR of rapidocr-onnxruntime"

    def __call__(self, frames: Frames, captions: Sequence[str]) -> Found:
        return {"text": float(np.mean([self._share(frame) for frame in frames]))}

    def _share(self, frame: Frames) -> float:
        lines, _ = self._read(np.ascontiguousarray(frame[..., ::-1]))
        total = 0.0
        for corners, _, score in lines or ():
            if float(score) >= SURE:
                x, y = np.asarray(corners, np.float64).T
                total += abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2  # the area of the box
        return float(min(total / (frame.shape[0] * frame.shape[1]), 1.0))


class ClipMatch:
    """CLIP of a folder: ``match``, the cosine of the picture and the caption that fits it best, the mean over frames
    (no number without a caption); and ``aesthetic``, 0 to 1, by CLIP-IQA: whether it looks rather like
    `GOOD_AND_BAD`'s first than its second."""

    name = "clip"

    def __init__(self, folder: Path) -> None:
        """BackendError, CheckpointError: no CLIP in this folder."""
        library = transformers(folder)
        if kind(folder) != "clip":
            raise BackendError(f"{folder}: a model of type {kind(folder)!r}; text and pictures are matched by clip")
        self._model = loaded(library.CLIPModel, folder).eval()
        self._words = processed(library.AutoTokenizer, folder)
        self._pixels = processed(library.AutoImageProcessor, folder)
        self.identity = _identity(folder)
        self._poles = self._texts(GOOD_AND_BAD)

    @torch.inference_mode()
    def __call__(self, frames: Frames, captions: Sequence[str]) -> Found:
        pixels = self._pixels(images=list(frames), return_tensors="pt")["pixel_values"]
        pictures = _unit(self._model.visual_projection(self._model.vision_model(pixel_values=pixels).pooler_output))
        scale = self._model.logit_scale.exp()
        good = (scale * pictures @ self._poles.T).softmax(-1)[:, 0]
        found: Found = {"aesthetic": float(good.mean())}
        if captions:
            found["match"] = float((pictures @ self._texts(captions).T).mean(0).max())
        return found

    @torch.inference_mode()
    def _texts(self, texts: Sequence[str]) -> torch.Tensor:
        longest = self._model.config.text_config.max_position_embeddings
        told = self._words(list(texts), return_tensors="pt", padding=True, truncation=True, max_length=longest)
        states = self._model.text_model(input_ids=told["input_ids"], attention_mask=told["attention_mask"])
        return _unit(self._model.text_projection(states.pooler_output))


class Nsfw:
    """``nsfw``: the probability of all labels but those in `SAFE`, of the worst frame."""

    name = "nsfw"

    def __init__(self, folder: Path) -> None:
        """BackendError, CheckpointError: no image classifier in this folder, or none with a safe and another label."""
        library = transformers(folder)
        self._model = loaded(library.AutoModelForImageClassification, folder).eval()
        self._pixels = processed(library.AutoImageProcessor, folder)
        labels = [str(label).lower() for _, label in sorted(self._model.config.id2label.items())]
        self._safe = torch.tensor([label in SAFE for label in labels])
        if self._safe.all() or not self._safe.any():
            raise CheckpointError(
                f"{folder}: labels {', '.join(labels)[:200]}: to tell what is not safe, some of them, and not all, "
                f"have to be of {', '.join(sorted(SAFE))}"
            )
        self.identity = _identity(folder)

    @torch.inference_mode()
    def __call__(self, frames: Frames, captions: Sequence[str]) -> Found:
        pixels = self._pixels(images=list(frames), return_tensors="pt")["pixel_values"]
        chances = self._model(pixel_values=pixels).logits.softmax(-1)
        return {"nsfw": float(chances[:, ~self._safe].sum(-1).max())}


Judge = Embedding | Writing | ClipMatch | Nsfw


@lru_cache(1)
def judges(embedding: bool, text: bool, clip: Path | None, nsfw: Path | None) -> Mapping[str, Judge]:
    """Those that are asked for, by name; made once in a process, which has one thread from then on."""
    torch.set_num_threads(1)
    asked: list[tuple[object, Callable[[], Judge]]] = [
        (embedding, Embedding),
        (text, Writing),
        (clip, lambda: ClipMatch(Path(str(clip)))),
        (nsfw, lambda: Nsfw(Path(str(nsfw)))),
    ]
    made = [make() for wanted, make in asked if wanted]
    return {judge.name: judge for judge in made}


def _identity(folder: Path) -> str:
    """Of the config and the weights in a folder."""
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    digest.update(str(fingerprint(folder / MODEL)["sha256"]).encode())
    return f"{kind(folder)} {digest.hexdigest()[:16]}"


def _unit(x: Any) -> torch.Tensor:
    made: torch.Tensor = x / x.norm(dim=-1, keepdim=True)
    return made
