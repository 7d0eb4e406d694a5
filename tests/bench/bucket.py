"""Training's data from a bucket: ``bucket_waiting``, against the same shards in a folder.

An S3 server of this machine (moto's, a process of its own) holds token shards. A training that takes `STEP` seconds a
step, asleep, as a GPU would have it, takes `STEPS` packs: from the folder, from the bucket through an empty cache, and
from the bucket while the server is killed for `AWAY` seconds in the middle. ``waited``: seconds by the clock that packs
were not there when they were asked for, the first one left out, which is the start (``start``); ``share``: of it of the
seconds of all steps. ``same``: whether the packs are those of the folder. ``told``: what was said while it waited.
"""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from streaming import spell

from vpoet.data.shards import ShardWriter
from vpoet.data.token_documents import Documents
from vpoet.data.token_stream import PackStream, Source, StreamConfig
from vpoet.sequence.vocabulary import Vocabulary

STEP, STEPS, AWAY, KILLED_AT = 0.1, 150, 30.0, 40
SHARDS, CLIPS = 40, 100
"""A shard is there for eight packs."""
BUCKET = "clips"


def bucket_waiting(_: float) -> dict[str, Any]:
    """See above."""
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    figures: dict[str, Any] = {"steps": STEPS, "seconds_a_step": STEP}
    with tempfile.TemporaryDirectory() as folder:
        tokens = Path(folder, "tokens")
        _write(tokens)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        os.environ["AWS_ENDPOINT_URL_S3"] = f"http://127.0.0.1:{port}"
        server = _serve(tokens, port)
        try:
            figures["folder"], wanted = _train(str(tokens))
            figures["bucket"], found = _train(f"s3://{BUCKET}/tokens", f"{folder}/cache")
            figures["bucket"]["same"] = found == wanted

            def away() -> None:
                nonlocal server
                _end(server)
                time.sleep(AWAY)
                server = _serve(tokens, port)

            killed = threading.Thread(target=away)
            figures["killed"], found = _train(f"s3://{BUCKET}/tokens", f"{folder}/other", killed)
            killed.join()
            figures["killed"]["same"] = found == wanted
        finally:
            _end(server)
    return figures


def _write(folder: Path) -> None:
    random = np.random.default_rng(0)
    with ShardWriter(folder, kind="tokens", samples_per_shard=CLIPS, tokenizer="visual") as writer:
        for i in range(SHARDS * CLIPS):
            about = {"caption": f"clip number {i}", "fps": 8.0, "tokenizer": "visual"}
            codes = random.integers(0, 64000, (5, 8, 8), dtype=np.int32)
            writer.write(f"clip-{i:05d}", {"codes.npy": codes, "json": about})
    writer.manifest().save(folder)


def _serve(tokens: Path, port: int) -> subprocess.Popen[bytes]:
    """A server that holds the folder. What it held before it was killed is gone with it."""
    import boto3

    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        with suppress(OSError):
            urllib.request.urlopen(os.environ["AWS_ENDPOINT_URL_S3"], timeout=5).close()
            break
        time.sleep(0.2)
    bucket = boto3.resource("s3").create_bucket(Bucket=BUCKET)
    for path in sorted(tokens.iterdir(), reverse=True):
        bucket.upload_file(str(path), f"tokens/{path.name}")
    return server


def _end(server: subprocess.Popen[bytes]) -> None:
    server.send_signal(signal.SIGKILL)
    server.wait()


def _train(path: str, cache: str = "", killed: threading.Thread | None = None) -> tuple[dict[str, Any], str]:
    """What waiting there was, and a hash of the packs."""
    config = StreamConfig(sources=[Source(path=path)], tasks={"t2v": 1.0}, length=4096, cache=cache)
    vocabulary = Vocabulary(300, (320, 200), "text", "visual")
    documents = Documents(config, vocabulary=vocabulary, text=spell, seed=0)
    seen, waited, began = hashlib.sha256(), [], time.perf_counter()
    with warnings.catch_warnings(record=True) as told, PackStream(documents, lanes=1, prefetch=2) as stream:
        warnings.simplefilter("always")
        for step in range(STEPS):
            if step == KILLED_AT and killed is not None:
                killed.start()
            asked = time.perf_counter()
            (pack,) = next(stream)
            waited.append(time.perf_counter() - asked)
            seen.update(pack.ids.tobytes())
            time.sleep(STEP)
    passed, start = time.perf_counter() - began, waited[0]
    late = sum(waited[1:])
    share = late / (passed - start)
    figures: dict[str, Any] = {"waited": round(late, 2), "share": round(share, 4), "start": round(start, 2)}
    return figures | ({"told": [str(one.message) for one in told]} if told else {}), seen.hexdigest()
