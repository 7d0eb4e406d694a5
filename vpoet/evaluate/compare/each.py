"""Measures of each clip or pair, and not of sets: LPIPS, the CLIP score of prompts, bits under a bundle, flicker.

Each figure is the mean over clips, with a 95% interval by Student's t.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpoet.arrays import Frames
from vpoet.errors import BackendError, CheckpointError, DataError, ShapeError
from vpoet.evaluate.compare.clips import Clip, prepared
from vpoet.evaluate.compare.features import Found
from vpoet.evaluate.compare.kept import Kept, Watched
from vpoet.evaluate.compare.networks import TransformersClips
from vpoet.evaluate.compare.protocol import Protocol
from vpoet.evaluate.compare.report import Row
from vpoet.evaluate.intervals import mean_interval
from vpoet.files import fingerprint
from vpoet.media.video import Video
from vpoet.nn.pretrained import loaded

if TYPE_CHECKING:
    import torch

    from vpoet.generate.model import Model

Sets = Mapping[str, Sequence[Clip]]
TOKENIZERS = ("vocab.json", "tokenizer.json")
AT_ONCE = 16
"""Frames that LPIPS sees at once."""


class LPIPSPairs:
    """LPIPS of clips uint8 [T, H, W, 3], the mean over frames."""

    def __init__(self, path: Path, device: "torch.device") -> None:
        """The errors are those of `load_lpips`."""
        from vpoet.evaluate.compare.state_dicts import load_lpips

        self._network, self.sha256 = load_lpips(path, device)
        self._device = device
        self.name = f"LPIPS ({self._network.kind}, weights {self.sha256[:8]})"

    def __call__(self, a: Frames, b: Frames) -> float:
        import torch

        found = []
        for first in range(0, len(a), AT_ONCE):
            pictures = (
                torch.from_numpy(frames[first : first + AT_ONCE]).to(self._device).permute(0, 3, 1, 2).float() / 127.5
                - 1
                for frames in (a, b)
            )
            try:
                with torch.inference_mode():
                    found.append(self._network(*pictures).double().cpu())
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:
                size = f"{a.shape[1]}x{a.shape[2]}"
                raise ShapeError(f"{self.name}: pictures of {size} are too small for its layers; give --size") from None
        return float(torch.cat(found).mean())


class CLIPScore:
    """100 times the cosine of a prompt and a frame, in CLIP's space, the mean over frames (Hessel et al., 2021, without
    their factor of 2.5 and their cut at 0; Wu et al., 2021, call it CLIPSIM). A long prompt is cut at CLIP's length."""

    def __init__(self, folder: Path, device: "torch.device") -> None:
        """BackendError, CheckpointError: the folder holds no CLIP with its texts."""
        self._pictures = TransformersClips(folder, device)
        if self._pictures.kind != "clip":
            raise BackendError(f"{folder}: a model of type {self._pictures.kind!r}; prompts are scored by clip, whole")
        import transformers

        model = loaded(transformers.CLIPTextModelWithProjection, folder, "text_config")
        if not any((folder / name).is_file() for name in TOKENIZERS):
            raise CheckpointError(f"{folder}: no tokenizer of CLIP beside its weights: {' or '.join(TOKENIZERS)}")
        try:
            self._tokenizer: Any = transformers.CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:
            told = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{folder}: no tokenizer of CLIP: {told}") from None
        self._texts: Any = model.to(device).eval()
        self._device = device
        texts = sorted(file for file in folder.iterdir() if file.suffix in (".json", ".txt"))
        tokens = "".join(str(fingerprint(file)["sha256"]) for file in texts)
        self.sha256 = hashlib.sha256(f"{self._pictures.sha256}{tokens}".encode()).hexdigest()
        self.name = f"CLIP score, 100 cos ({folder.name} {self.sha256[:8]})"

    def __call__(self, frames: Frames, prompt: str) -> float:
        import torch

        longest = self._texts.config.max_position_embeddings
        tokens = self._tokenizer([prompt], truncation=True, max_length=longest, return_tensors="pt").to(self._device)
        with torch.inference_mode():
            pictures = self._pictures.pictures(torch.from_numpy(frames)[None])[0]
            text = self._texts(**tokens).text_embeds
            return float(100 * torch.cosine_similarity(pictures.double(), text.double()).mean())


def of_prompts(score: CLIPScore, protocol: Protocol, sets: Sets, kept: Kept, watched: Watched = iter) -> list[Row]:
    """The CLIP score of clips and their prompts, of each set by its label. Real clips may have none, and then no score;
    DataError: one of the first set has none."""
    rows = []
    for i, (label, clips) in enumerate(sets.items()):
        if bare := [clip.name for clip in clips if not clip.prompt]:
            if i:
                continue
            raise DataError(
                f"--clip: no prompt is known of {len(bare)} of {len(clips)} clips, such as {bare[0]!r}; give shards or "
                "a list with captions, or what vpoet sample wrote"
            )

        def one(i: int, clips: Sequence[Clip] = clips) -> list[float]:
            return [score(prepared(clips[i], protocol, real=False).frames, clips[i].prompt)]

        rows.append(_row(f"{score.name}, {label}", protocol, clips, kept, f"clip {score.sha256}", one, watched))
    return rows


def of_bits(model: "Model", protocol: Protocol, sets: Sets, kept: Kept, watched: Watched = iter) -> list[Row]:
    """Bits per token of clips under a bundle, given their prompts where they have one, of each set by its label: at the
    bundle's own size, rate and length, whatever the protocol says. DataError: a clip cannot be scored."""
    bundle, rows = model.bundle, []
    config = bundle.config
    for label, clips in sets.items():

        def one(i: int, clips: Sequence[Clip] = clips) -> list[float]:
            rate, frames = clips[i].stream(protocol.fps)
            # no more than is scored, and two to be sure of what is nearest in time to the last
            most = math.ceil(config.frames * (rate or config.fps) / config.fps) + 2
            video = clips[i].video(rate, islice(frames, most))
            # of pictures no rate is known: they are taken to have the model's
            rated = video if video.fps or len(video) < 2 else Video(video.frames, config.fps)
            return [model.score(rated, clips[i].prompt).per_token.bits]

        name = f"bits per token under bundle {bundle.hash[:8]}, {label}"
        about = f"bits {bundle.hash} {bundle.video.hash} {model.precision}"
        rows.append(_row(name, protocol, clips, kept, about, one, watched))
    return rows


def of_flicker(protocol: Protocol, sets: Mapping[str, Sequence[Found]]) -> list[Row]:
    """The flicker of clips by themselves, of each set by its label; none of clips of fewer than three frames."""
    rows = []
    for label, found in sets.items():
        values = [each.flicker for each in found]
        if not any(map(math.isnan, values)):
            clips = f"{len(values)} clips"
            rows.append(Row(f"flicker by itself, {label}", *mean_interval(values), clips, protocol.id))
    return rows


def _row(
    name: str,
    protocol: Protocol,
    clips: Sequence[Clip],
    kept: Kept,
    about: str,
    one: Callable[[int], Sequence[float]],
    watched: Watched,
) -> Row:
    contents = [f"{clip.content} {clip.prompt}" for clip in clips]
    values = [value for (value,) in kept.of(f"{about} {protocol.pixels}", contents, one, watched)]
    return Row(name, *mean_interval(values), f"{len(values)} clips", protocol.id)
