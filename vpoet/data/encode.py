"""From a raw shard to a token shard: jobs that can be shared out and resumed, one a shard."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vpoet.arrays import Codes
from vpoet.data import painting, recordings, segments
from vpoet.data.fields import plain_key, printable
from vpoet.data.shards import Problems, Sample, ShardFile, ShardInfo, read_shard
from vpoet.errors import DataError, HashMismatch
from vpoet.files import read_json, write_atomic
from vpoet.media.video import Video

CHUNK_CELLS = 16
"""Cells of time encoded at once: clips are short, and a long video still needs no more memory than these."""


class Coder(painting.Encoder, Protocol):
    """What a video tokenizer is here."""

    codes: str
    """The content hash that token shards carry."""

    def encode(self, video: Any, /, *, chunk_cells: int = 4) -> Codes:
        """Frames uint8 [T, H, W, 3] to codes [t, h, w], so many cells of time at once."""

    def encode_batch(self, clips: Any, /) -> Codes:
        """Clips uint8 [N, T, H, W, 3] to codes [N, t, h, w]."""


@dataclass(frozen=True)
class Extras:
    """What a token shard holds of each clip beside its codes."""

    keyframes: bool = False
    """The last frame of each cell of time as an image of its own."""
    paintings: int = 0
    """Codes of the clip with a part hidden: so many for each task that paints."""
    seed: int = 0
    """Draws what is hidden, with each sample's key."""


def encode_shard(folder: Path, raw: ShardInfo, out: Path, coder: Coder, extras: Extras, problems: Problems) -> None:
    """Write the token shard of one raw shard of ``folder``, and beside it the record by which `finished` knows it."""
    with ShardFile(out / raw.name) as shard:
        for sample in read_shard(folder / raw.name, problems=problems, samples=raw.samples):
            try:
                if "segments" in sample.json:
                    _write(shard, sample, segments.encoded(sample.json, sample.parts, coder.encode), coder, problems)
                    continue
                frames = np.asarray(Video.read(sample.video))
                codes = coder.encode(frames, chunk_cells=CHUNK_CELLS)
            except DataError as error:
                problems.add(str(error), sample.key)
                continue
            key = plain_key(sample.key)
            fields = sample.json | {"grid": list(codes.shape)}
            parts = {"codes.npy": codes, "json": fields}
            try:
                parts |= recordings.parts(sample.json, len(frames))
            except DataError as error:
                problems.add("actions left out", f"{sample.key}: {error}")
            if extras.keyframes:
                images = frames[coder.stride[0] :: coder.stride[0], None]
                pieces = [images[start : start + CHUNK_CELLS] for start in range(0, len(images), CHUNK_CELLS)]
                parts["keyframes.npy"] = np.concatenate([codes[:1], *(coder.encode_batch(p)[:, 0] for p in pieces)])
            if drawn := painting.draw(frames, coder, key, seed=extras.seed, count=extras.paintings):
                fields["paintings"] = [one.task for one in drawn]
                parts |= {f"painting-{number}.npz": painting.to_npz(one) for number, one in enumerate(drawn)}
            _write(shard, sample, parts, coder, problems)
    assert shard.info is not None
    record = {"raw": raw.sha256, "tokenizer": coder.codes, **asdict(extras), "shard": asdict(shard.info)}
    write_atomic(_record_path(out, raw), json.dumps(record, indent=1))


def _write(shard: ShardFile, sample: Sample, parts: dict[str, Any], coder: Coder, problems: Problems) -> None:
    """The parts of a sample, with what the json of each says."""
    key = plain_key(sample.key)
    parts["json"] |= {"tokenizer": coder.codes} | ({"key": printable(sample.key)} if key != sample.key else {})
    try:
        shard.write(key, parts)
    except DataError:
        problems.add("another sample has that key", sample.key)


def finished(out: Path, raw: ShardInfo, tokenizer: str, extras: Extras) -> ShardInfo | None:
    """The token shard of a raw shard if it is there, whole, made of that very shard, and has the ``extras`` it shall.

    HashMismatch if another tokenizer made it: codes of two tokenizers must not lie in one folder.
    """
    try:
        record = read_json(_record_path(out, raw))
        info = ShardInfo.from_dict(record["shard"])
        maker, made_of = str(record["tokenizer"]), record["raw"]
        keyframes, paintings, seed = (int(record.get(name, 0)) for name in ("keyframes", "paintings", "seed"))
    except (OSError, ValueError, KeyError, TypeError):  # none, or damaged: the shard is made anew
        return None
    if maker != tokenizer:
        raise HashMismatch(f"{out}: holds shards of tokenizer {maker}, this one is {tokenizer}; choose another --out")
    path = out / raw.name
    whole = info.name == raw.name and path.is_file() and path.stat().st_size == info.bytes
    enough = keyframes >= extras.keyframes and paintings >= extras.paintings
    enough = enough and (not extras.paintings or seed == extras.seed)
    return info if whole and enough and made_of == raw.sha256 else None


def _record_path(out: Path, raw: ShardInfo) -> Path:
    return (out / raw.name).with_suffix(".json")
