"""Ingest and measure beside PyAV's decoding alone, in processor time of one process, and so for each core.

``ingest_speed``: of the videos in the folder that VPOET_VIDEOS names, the first 120. What the ratios say is how much
of the time of decoding all frames of the same files, and doing nothing with them, a part takes: ``pixels`` are frames
of 128x128 at 8 a second, ``shards`` the same as clips of 17 frames in raw shards, ``shards_before`` as folders of
version 1 have them (`vpoet.data.clips.ClipSettings`); each is the best of `ROUNDS`, as other work only slows.
``measures`` are those of the shards' clips that need no network, ``embedding`` is what is then added by the network
that `vpoet measure` asks by default; both with what is imported for them.

``ray_speed``: seconds by the clock that `vpoet ingest` takes for these files with one worker of a Ray cluster of this
machine, and with two, the workers' start included, the cluster's not; needs two idle cores. The files' bytes are the
same.
"""

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import av

from vpoet.data.clips import ClipSettings
from vpoet.data.curate.measuring import measure
from vpoet.data.ingest import ingest
from vpoet.data.ray_workers import LOCAL, RayWorkers
from vpoet.data.shards import Manifest
from vpoet.data.sources import divide, gather
from vpoet.media.video import VIDEO_SUFFIXES, stream_frames
from vpoet.nn.judges import judges

VIDEOS = "VPOET_VIDEOS"
FILES, SIDE, RATE = 120, 128, 8.0
ROUNDS = 3


def ingest_speed(_: float) -> dict[str, Any]:
    """Decoding's processor time as a share of each part's, and its seconds."""
    files = _files("ingest_speed")
    settings = ClipSettings(frames=17, fps=RATE, height=SIDE, width=SIDE)
    parts: dict[str, Callable[[], object]] = {
        "decoding": lambda: [_decoded(file) for file in files],
        "pixels": lambda: [sum(1 for _ in stream_frames(file, fps=RATE, size=(SIDE, SIDE))[1]) for file in files],
        "shards": lambda: _ingested(files, settings),
        "shards_before": lambda: _ingested(files, replace(settings, version=1)),
    }
    seconds = {name: min(_seconds(part) for _ in range(ROUNDS)) for name, part in parts.items()}
    with tempfile.TemporaryDirectory() as raw:
        ingest(divide(gather([str(file) for file in files])), raw, settings)
        for name, embedding in (("measures", False), ("embedding", True)):
            seconds[name] = _seconds(partial(measure, Path(raw), partial(judges, embedding, False, None, None), 1))
    ratios = {name: round(seconds["decoding"] / took, 3) for name, took in seconds.items() if name != "decoding"}
    return {"files": len(files), **ratios, "seconds": {name: round(took, 2) for name, took in seconds.items()}}


def ray_speed(_: float) -> dict[str, Any]:
    """Seconds by the number of workers, and how many times as fast two are."""
    import ray

    files, settings = _files("ray_speed"), ClipSettings(frames=17, fps=RATE, height=SIDE, width=SIDE)
    took: dict[int, float] = {}
    made: set[tuple[str, ...]] = set()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        for count in (1, 2, 1, 2):
            with tempfile.TemporaryDirectory() as out:
                began = time.perf_counter()
                ingest(divide(gather(list(map(str, files)))), out, settings, workers=RayWorkers(LOCAL, count))
                took[count] = min(took.get(count, float("inf")), time.perf_counter() - began)
                made.add(tuple(shard.sha256 for shard in Manifest.load(out).shards))
    finally:
        ray.shutdown()
    seconds = {str(count): round(passed, 1) for count, passed in took.items()}
    return {"files": len(files), "seconds": seconds, "speedup": round(took[1] / took[2], 2), "same": len(made) == 1}


def _files(name: str) -> list[Path]:
    folder = Path(os.environ.get(VIDEOS, ""))
    files = sorted(each for each in folder.rglob("*") if each.suffix.lower() in VIDEO_SUFFIXES)[:FILES]
    if VIDEOS not in os.environ or not files:
        raise SystemExit(f"{name}: {VIDEOS} is to name a folder of videos")
    return files


def _decoded(file: Path) -> int:
    with av.open(str(file)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return sum(1 for _ in container.decode(video=0))


def _ingested(files: list[Path], settings: ClipSettings) -> None:
    with tempfile.TemporaryDirectory() as out:
        ingest(divide(gather([str(file) for file in files])), out, settings)


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
