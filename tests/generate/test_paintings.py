"""In- and outpainting train on the very context that sampling gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vpoet.arrays import Mask
from vpoet.data import painting
from vpoet.data.shards import ShardWriter
from vpoet.data.token_documents import Documents, Source, StreamConfig
from vpoet.generate.model import load
from vpoet.generate.request import Request
from vpoet.media.video import Video
from vpoet.sequence.document import Document, parse
from vpoet.sequence.tasks import PAINTED

CLIPS = 3


def clip(i: int) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, (9, 16, 24, 3), np.uint8)


def white(mask: Mask) -> Video:
    return Video(np.repeat(mask[..., None], 3, axis=-1) * np.uint8(255), 8.0)


def test_training_gives_the_context_that_sampling_gives(
    make_bundle: Callable[..., Path], tmp_path: Path, program: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From raw clips through `vpoet encode` and the stream's documents, and from the same clip and mask as a request:
    the same hidden cells, the same codes. What lies under the mask is changed in the request, and changes nothing."""
    folder = make_bundle(tmp_path, depth=1, frames=9, height=16, width=24, length=200)
    model = load(folder, device="cpu", precision="fp32")
    with ShardWriter(tmp_path / "raw", kind="raw") as writer:
        for i in range(CLIPS):
            payload = Video(clip(i), 8.0).encode(".mp4", lossless=True)
            writer.write(f"clip-{i}", {"mp4": payload, "json": {"caption": "a hero jumps", "fps": 8.0, "frames": 9}})
    writer.manifest().save(tmp_path / "raw")
    masks: list[Mask] = []
    draw_mask = painting.draw_mask
    monkeypatch.setattr(painting, "draw_mask", lambda *given: masks.append(draw_mask(*given)) or masks[-1])
    tokens = tmp_path / "tokens"
    arguments = [
        tmp_path / "raw",
        "--tokenizer",
        folder / "video_tokenizer",
        "--out",
        tokens,
        "--paintings",
        1,
        "--decoders",
        1,
    ]
    assert program("tokenizers/encode_shards.py", *arguments)[0] == 0
    assert len(masks) == CLIPS * len(PAINTED)

    vocabulary = model.bundle.transformer.vocabulary

    def trained(task: str) -> list[Document]:
        config = StreamConfig(sources=[Source(path=str(tokens))], tasks={task: 1.0}, length=200, drop_caption=0)
        documents = Documents(config, vocabulary=vocabulary, text=model.bundle.text.encode, seed=0)
        sequences = [documents.make(0, 0, sample) for sample in documents.sources[0].shard(0)]
        return [parse(sequence.ids, vocabulary) for sequence in sequences if sequence is not None]

    changed = 0
    for at, task in enumerate(PAINTED):
        for i, document in enumerate(trained(task)):
            mask = masks[len(PAINTED) * i + at]
            frames = np.asarray(Video.read(Video(clip(i), 8.0).encode(".mp4", lossless=True)))
            other = np.where(mask[..., None], 255 - frames, frames)
            asked = model.document(Request(video=Video(other, 8.0), mask=white(mask), prompt="a hero jumps"))
            text, given, wanted = document.spans
            assert text.equals(asked.spans[0])
            assert given.equals(asked.spans[1])
            assert given.hidden is not None
            whole = model.bundle.video.encode(frames)
            assert np.array_equal(wanted.values, np.where(given.hidden, whole, given.values))
            changed += (model.bundle.video.encode(other) != whole)[~given.hidden].sum()
    assert changed > 0, "this tokenizer sees beyond a cell, or the test shows nothing"
