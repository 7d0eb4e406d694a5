"""Memory and time for lists that are long: MB of a process at the most, beyond that of a list of one, and its seconds
of processor time.

``list_memory``: lists of made rows, a .csv and a .jsonl, are read and divided as `vpoet ingest LIST --holdout 0.1` does
it before the first source is opened, and their jobs gone through one by one. ``in_memory`` is the bound beside it: the
same rows held as a list of Python's, which grows with the rows.

``shard_list``: `vpoet pretrain` up to its first pack, from a folder of so many token shards of four clips. All of them
are a few files under many names, so that its manifest is that of so many, and little is written.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peak

from vpoet.data.clips import ClipSettings
from vpoet.data.ingest import _Jobs, _listed
from vpoet.data.shards import Manifest, ShardWriter
from vpoet.data.sources import divide, gather
from vpoet.data.token_documents import Documents
from vpoet.data.token_stream import PackStream, Source, StreamConfig
from vpoet.sequence.vocabulary import Vocabulary

LINKS = 50_000
"""Names that a file may have."""
ROWS, SHARDS = 1_000_000, (1, 1_000, 100_000)


def list_memory(_: float) -> dict[str, Any]:
    """MB and seconds of processor time for a million rows, by kind of list."""
    figures: dict[str, Any] = {"rows": ROWS}
    with tempfile.TemporaryDirectory() as folder:
        one, listed, lines = (Path(folder, name) for name in ("one.csv", "list.csv", "list.jsonl"))
        one.write_text("path,caption\na.mp4,a dog\n")
        with listed.open("w") as csv, lines.open("w") as jsonl:
            csv.write("path,caption,lab,day\n")
            for row in range(ROWS):
                name, caption = f"videos/{row:08d}.mp4", f"a robot of kind {row % 977} moves part {row} to the left"
                csv.write(f'{name},"{caption}",lab {row % 13},{row % 365}\n')
                told = {"path": name, "caption": caption, "lab": f"lab {row % 13}", "day": row % 365}
                jsonl.write(json.dumps(told) + "\n")
        least = _most(one, "gathered")["MB"]
        for path in (listed, lines):
            found = _most(path, "gathered")
            figures[path.suffix[1:]] = {"MB": round(found["MB"] - least, 1), "seconds": found["seconds"]}
        figures["in_memory"] = {"MB": round(_most(listed, "held")["MB"] - least, 1)}
    return figures


def shard_list(_: float) -> dict[str, Any]:
    """MB, seconds and MB of the manifest, by the number of shards."""
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        with ShardWriter(Path(folder, "one"), kind="tokens", samples_per_shard=4, tokenizer="visual") as writer:
            for i in range(4):
                about = {"caption": f"clip {i}", "fps": 8.0, "tokenizer": "visual"}
                writer.write(f"clip-{i}", {"codes.npy": np.full((3, 8, 8), i, np.int32), "json": about})
        (shard,) = writer.shards
        for count in SHARDS:
            many = Path(folder, str(count))
            many.mkdir()
            shards = [replace(shard, name=f"tokens-00000-{number:06d}.tar") for number in range(count)]
            for at, each in enumerate(shards):
                if at % LINKS == 0:
                    shutil.copy(Path(folder, "one", shard.name), many / each.name)
                else:
                    os.link(many / shards[at - at % LINKS].name, many / each.name)
            Manifest("tokens", shards, "visual").save(many)
            found = _most(many, "streamed")
            least = figures["1"]["MB_in_all"] if figures else found["MB"]
            manifest = round((many / "manifest.json").stat().st_size / 1e6, 1)
            figures[str(count)] = {
                "MB": round(found["MB"] - least, 1),
                "seconds": found["seconds"],
                "file_MB": manifest,
            }
            figures[str(count)] |= {} if len(figures) > 1 else {"MB_in_all": round(found["MB"], 1)}
    return figures


def _most(path: Path, how: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, how, path], capture_output=True, text=True, check=True)
    most, seconds = json.loads(done.stdout)
    return {"MB": most, "seconds": seconds}


def gathered(path: Path) -> None:
    sides = divide(gather([str(path)]), holdout=0.1 if path.name != "one.csv" else 0.0)
    jobs = _Jobs(sides, path.parent, ClipSettings(), 512)
    sum(len(jobs[at].items) for at in range(len(jobs)))
    sum(map(len, _listed(sides)))


def held(path: Path) -> None:
    list(gather([str(path)]))


def streamed(path: Path) -> None:
    vocabulary = Vocabulary(300, (320, 200), "text", "visual")
    config = StreamConfig(sources=[Source(path=str(path))], tasks={"t2v": 1.0}, length=4096)
    documents = Documents(config, vocabulary=vocabulary, text=lambda text: list(text.encode()), seed=0)
    with PackStream(documents, lanes=1, prefetch=0) as stream:
        next(stream)


if __name__ == "__main__":
    {"gathered": gathered, "held": held, "streamed": streamed}[sys.argv[1]](Path(sys.argv[2]))
    print(json.dumps([peak.megabytes(), round(time.process_time(), 1)]))
