"""The video tokenizer as its users meet it: uint8 frames to int32 codes and back, a folder on disk, a content hash."""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from vpoet import config, hub
from vpoet.arrays import Codes, Frames
from vpoet.devices import pick
from vpoet.errors import BackendError, CheckpointError, ConfigError, DataError, ShapeError
from vpoet.files import CONFIG as CONFIG
from vpoet.files import WEIGHTS as WEIGHTS
from vpoet.files import aside, write_atomic
from vpoet.sequence.vocabulary import Vocabulary, grouped
from vpoet.tokenizer import families
from vpoet.tokenizer.contract import CHUNK
from vpoet.tokenizer.layers import Past
from vpoet.tokenizer.network import Network
from vpoet.tokenizer.pixels import to_float, to_uint8
from vpoet.tokenizer.text import TextTokenizer

FILES = (CONFIG, WEIGHTS)

SHIPPED = Path(__file__).parent.parent / "weights" / "video-4x8x8"
"""The tokenizer that comes with vpoet; its card.md says what it was trained on and how well it does."""


_PRECISIONS = {"fp32": "ieee", "tf32": "tf32"}
"""Of matrix products on a GPU, by torch's names; torch's own default for convolutions is tf32."""


class VideoTokenizer:
    """A trained network, ours or an imported one (`vpoet.tokenizer.families`), for inference: fp32, no gradients, one
    device.

    Codes are a function of the frames alone, except that a batch or a chunk may sum in another order: a value within
    about 1e-5 of a rounding border can then fall on its other side.
    """

    dtype = "fp32"
    """What it computes in; `to` changes it."""

    def __init__(self, model: Network, codes: str = "") -> None:
        self.model = model.float().eval().requires_grad_(False)
        self.hash = content_hash(model, codes)
        """Of all that it is."""
        self.codes = codes or self.hash
        """Of what its codes mean: where its decoder alone was trained further, the hash of the tokenizer from which it
        has its encoder. Tokens and models of either go with both."""

    @classmethod
    def load(cls, folder: str | Path = SHIPPED) -> "VideoTokenizer":
        """Read what `save` wrote, of whichever network its config says, of a folder or a hub; by itself what ships.

        CheckpointError when a part is missing, damaged, foreign, or holds a NaN.
        """
        folder = hub.local(folder, FILES)
        for part in FILES:
            if not (folder / part).is_file():
                raise CheckpointError(f"{folder}: no {part}; a video tokenizer is a folder with {CONFIG} and {WEIGHTS}")
        try:
            model = families.build(families.load_settings(folder / CONFIG))
        except ConfigError as error:
            raise CheckpointError(f"{folder}: not a video tokenizer's config: {error}") from None
        try:
            with safe_open(folder / WEIGHTS, framework="pt") as file:
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
                about = file.metadata() or {}
            model.load_state_dict(weights)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{folder / WEIGHTS}: not readable: {error}; copy the folder again") from None
        except RuntimeError as error:
            raise CheckpointError(f"{folder}: {WEIGHTS} does not fit {CONFIG}: {error}") from None
        _refuse_nan(model, folder / WEIGHTS)
        tokenizer = cls(model, about.get("codes", ""))
        if about.get("hash") != tokenizer.hash:
            raise CheckpointError(
                f"{folder}: saved with hash {about.get('hash')}, but its content now has {tokenizer.hash}; a file was "
                "changed or damaged, so its codes would mean something else. Copy the folder again, or export it again"
            )
        return tokenizer

    def vocabulary(self, text: TextTokenizer, groups: int) -> Vocabulary:
        """Of a model of ``text`` and these codes, each predicted as so many digits (`grouped`)."""
        return Vocabulary(text.size, grouped(self.levels, groups), text.hash, self.codes, levels=self.levels)

    def save(self, folder: str | Path) -> None:
        """Write config.yaml and model.safetensors; each file appears whole or not at all.

        Weights that float16 holds exactly (`Autoencoder.half` makes them so) take half the space.
        """
        folder = Path(folder)
        _refuse_nan(self.model, folder)
        weights = {name: tensor.cpu().contiguous() for name, tensor in self.model.state_dict().items()}
        if all(torch.equal(tensor.half().to(tensor.dtype), tensor) for tensor in weights.values()):
            weights = {
                name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights.items()
            }
        about = {"hash": self.hash} | ({"codes": self.codes} if self.codes != self.hash else {})
        write_atomic(folder / WEIGHTS, save(weights, metadata=about))
        with aside(folder / CONFIG) as fresh:
            config.save(self.model.config, fresh)

    def to(self, device: str | torch.device, dtype: str = "fp32") -> Self:
        """Move to a device, and compute there in fp32 or, on a GPU, tf32; returns itself.

        BackendError for any other arithmetic. In tf32 up to 0.07% of codes are others than in fp32, which is less than
        two encoders of one clip's compressed file differ by; in bf16 2.4% are.
        """
        if dtype not in _PRECISIONS:
            raise BackendError(
                f"dtype {dtype}: a tokenizer computes in fp32, or on a GPU in tf32; in bf16 about 2.4% of all codes "
                "would be others, and codes of one tokenizer shall mean one thing"
            )
        if dtype == "tf32" and torch.device(device).type != "cuda":
            raise BackendError(f"dtype tf32: arithmetic of NVIDIA's GPUs, and this is {device}; use fp32")
        self.model.to(device)
        self.dtype = dtype
        return self

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def stride(self) -> tuple[int, int, int]:
        """(r, s, s): frames, pixels down and pixels across that one code stands for."""
        return self.model.stride

    @property
    def causal(self) -> bool:
        """Whether an image is a clip of one cell (`Network.causal`)."""
        return self.model.causal

    @property
    def first(self) -> int:
        """Frames of the first cell: 1, or r where the network is not causal."""
        return 1 if self.causal else self.stride[0]

    @property
    def levels(self) -> tuple[int, ...]:
        """FSQ levels of each digit of a code, the least significant first."""
        return self.model.quantiser.levels

    @property
    def codebook_size(self) -> int:
        return self.model.quantiser.size

    def frames(self, t: int) -> int:
        """Frames that ``t`` cells of time make: 1 + r*(t-1), or r*t where the network is not causal."""
        if t < 1:
            raise ShapeError(f"a video has at least one cell of time, not {t}")
        return self.first + self.stride[0] * (t - 1)

    def grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Cells (t, h, w) of a video of this size; DataError naming the nearest size that has a grid."""
        r, s, _ = self.stride
        later = frames - self.first
        if later >= 0 and later % r == 0 and min(height, width) >= s and height % s == 0 and width % s == 0:
            return 1 + later // r, height // s, width // s
        near_frames = self.first + r * max(0, round(later / r))
        near_height, near_width = (s * max(1, round(size / s)) for size in (height, width))
        length = f"1 + a multiple of {r}" if self.causal else f"a multiple of {r}, for it is not causal"
        raise DataError(
            f"{frames} frames of {height}x{width} do not fit a {r}x{s}x{s} tokenizer: frames must be {length}, height "
            f"and width multiples of {s}; the nearest is {near_frames} frames of {near_height}x{near_width}"
        )

    def encode(self, video: Any, chunk_cells: int = CHUNK) -> Codes:
        """Frames uint8 [T, H, W, 3], or anything `numpy.asarray` turns into them, to int32 codes [t, h, w].

        Works in chunks of ``chunk_cells`` cells of time, so memory does not grow with the length of the clip.
        """
        frames = _check_frames(np.asarray(video), axes=4)
        self.grid(*frames.shape[:3])
        return np.concatenate(list(self.encode_stream(frames, chunk_cells)))

    def encode_stream(self, frames: Iterable[Frames], chunk_cells: int = CHUNK) -> Iterator[Codes]:
        """Frames uint8 [H, W, 3], one by one and without end if need be, to pieces int32 [chunk_cells, h, w] of codes.

        The pieces put together are what `encode` gives for the whole. DataError, at the end, if the last frames do not
        fill a cell.
        """
        if chunk_cells < 1:
            raise ShapeError(f"chunk_cells must be 1 or more, not {chunk_cells}")
        past: Past = {}
        held: list[Frames] = []
        wanted, seen = self.frames(chunk_cells), 0
        for frame in frames:
            held.append(frame)
            if len(held) == wanted:
                yield self._encode_chunk(held, past)
                held, wanted, seen = [], self.stride[0] * chunk_cells, seen + wanted
        if held:
            self.grid(seen + len(held), *held[0].shape[:2])
            yield self._encode_chunk(held, past)

    def _encode_chunk(self, held: list[Frames], past: Past) -> Codes:
        frames = _check_frames(np.stack(held), axes=4)
        self.grid(self.first, *frames.shape[1:3])
        codes: Codes = self._encode(frames[None], past)[0]
        return codes

    def encode_clips(self, clips: Sequence[Frames], chunk_cells: int = CHUNK) -> list[Codes]:
        """Clips uint8 [T, H, W, 3] of one size to the codes of each, as `encode` gives them.

        A GPU takes them all at once: what `VideoTokenizer` says of a batch holds there. A CPU, for which many are no
        faster than one, takes one after the other, so that their codes are the same bits in whatever company.
        """
        if self.device.type == "cpu":
            return [self.encode(clip, chunk_cells) for clip in clips]
        return list(self._encode_together(_check_frames(np.stack(clips), axes=5), chunk_cells))

    def _encode_together(self, clips: Frames, chunk_cells: int) -> Codes:
        """`encode_clips` at once, of uint8 [B, T, H, W, 3]: in the chunks of `encode_stream`, clips side by side."""
        cells, *_ = self.grid(*clips.shape[1:4])
        ends = [self.frames(min(cells, first + chunk_cells)) for first in range(0, cells, chunk_cells)]
        past: Past = {}
        pieces = [self._encode(clips[:, first:end], past) for first, end in pairwise([0, *ends])]
        return np.concatenate(pieces, axis=1)

    def encode_batch(self, frames: Frames) -> Codes:
        """Clips uint8 [B, T, H, W, 3] to int32 codes [B, t, h, w], each clip in one piece."""
        _check_frames(frames, axes=5)
        self.grid(*frames.shape[1:4])
        return self._encode(frames, None)

    def decode(self, codes: npt.NDArray[Any], chunk_cells: int = CHUNK) -> Frames:
        """Integer codes [t, h, w] to frames uint8 [1 + r*(t-1), s*h, s*w, 3]; in chunks, as `encode`."""
        codes = self._check_codes(codes, axes=3)
        if chunk_cells < 1:
            raise ShapeError(f"chunk_cells must be 1 or more, not {chunk_cells}")
        pieces = (codes[start : start + chunk_cells] for start in range(0, len(codes), chunk_cells))
        return np.concatenate(list(self.decode_stream(pieces)))

    def decode_stream(self, pieces: Iterable[npt.NDArray[Any]]) -> Iterator[Frames]:
        """Pieces [k, h, w] of a video's codes, as `encode_stream` gives them, to pieces uint8 [T, s*h, s*w, 3] of it.

        The first piece makes 1 + r*(k-1) frames, every later one r*k. Where the network sees ahead, a piece's frames
        come when the next piece is there, and its last r-1 with those of the next.
        """
        past: Past = {}
        if not self.model.sees_ahead:
            for codes in pieces:
                yield self.decode_next(codes, past)
            return
        held: npt.NDArray[Any] | None = None
        for codes in pieces:
            if held is not None:
                yield self.decode_next(held, past)
            held = codes
        if held is not None:
            yield self.decode_next(held, past, last=True)

    def decode_next(self, codes: npt.NDArray[Any], past: Past, *, last: bool = False) -> Frames:
        """One piece of `decode_stream`, the clip's ``last`` one or not. What the next one needs of it goes to ``past``,
        empty before the first; a copy of that goes on by itself."""
        frames: Frames = self._decode(self._check_codes(codes, axes=3)[None], past, last=last)[0]
        return frames

    def decode_batch(self, codes: npt.NDArray[Any]) -> Frames:
        """Integer codes [B, t, h, w] to clips uint8 [B, T, H, W, 3]."""
        return self._decode(self._check_codes(codes, axes=4), None)

    @torch.no_grad()
    def _encode(self, frames: Frames, past: Past | None) -> Codes:
        with _precision(self.dtype):
            return self.model.encode(to_float(frames, self.device), past).int().cpu().numpy()

    @torch.no_grad()
    def _decode(self, codes: npt.NDArray[Any], past: Past | None, *, last: bool = True) -> Frames:
        with _precision(self.dtype):
            cells = torch.from_numpy(codes.astype(np.int64)).to(self.device)
            return to_uint8(self.model.decode(cells, past, last=last))

    def _check_codes(self, codes: npt.NDArray[Any], axes: int) -> npt.NDArray[Any]:
        codes = np.asarray(codes)
        if codes.ndim != axes or not np.issubdtype(codes.dtype, np.integer) or not codes.size:
            raise ShapeError(f"codes must be integers with {axes} axes, all non-empty; got {codes.dtype} {codes.shape}")
        if codes.min() < 0 or codes.max() >= self.codebook_size:
            raise DataError(
                f"codes run from {codes.min()} to {codes.max()}, but tokenizer {self.hash} has 0 to "
                f"{self.codebook_size - 1}; they were made by another tokenizer"
            )
        return codes


@contextlib.contextmanager
def _precision(dtype: str) -> Iterator[None]:
    """Matrix products and convolutions on GPUs in ``dtype``, one of `_PRECISIONS`, as long as this lasts."""
    kinds = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = [kind.fp32_precision for kind in kinds]
    try:
        for kind in kinds:
            kind.fp32_precision = _PRECISIONS[dtype]
        yield
    finally:
        for kind, kept in zip(kinds, before, strict=True):
            kind.fp32_precision = kept


AS_BEFORE = (("time_kernel", 3), ("upscale", 1), ("code_vectors", False))
"""Keys that configs did not always have, with what holds without them: they leave a hash as it was."""


@lru_cache(1)
def loaded(folder: Path, device: str, dtype: str) -> VideoTokenizer:
    """A tokenizer on a device that `vpoet.devices.pick` knows; made once in a process."""
    return VideoTokenizer.load(folder).to(pick(device), dtype)


def content_hash(model: Network, codes: str = "") -> str:
    """The first 16 hex digits of the sha256 of the config, every weight (name, shape, fp32 value), on any device, and
    ``codes`` of `VideoTokenizer`."""
    facts = {key: value for key, value in config.to_dict(model.config).items() if (key, value) not in AS_BEFORE}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().numpy().astype("<f4").tobytes())
    digest.update(codes.encode())
    return digest.hexdigest()[:16]


def _refuse_nan(model: Network, where: Path) -> None:
    broken = [name for name, tensor in model.state_dict().items() if not bool(tensor.isfinite().all())]
    if broken:
        raise CheckpointError(
            f"{where}: {len(broken)} tensors hold NaN or infinity ({broken[0]} first); the training that made them "
            "diverged: go back to an earlier checkpoint, or train with a lower learning rate"
        )


def _check_frames(frames: npt.NDArray[Any], axes: int) -> Frames:
    if frames.dtype != np.uint8 or frames.ndim != axes or frames.shape[-1] != 3:
        shape = "[T, H, W, 3]" if axes == 4 else "[B, T, H, W, 3]"
        raise DataError(f"frames must be uint8 {shape}, RGB; got {frames.dtype} {list(frames.shape)}")
    return frames
