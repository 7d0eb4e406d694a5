"""``python tests/bench/cached.py [CLIPS [FOLDER]]``: `vpoet compare` of two sets of so many clips, from the cache.

Made: two sets of clips of 3 frames of 16x16 pixels, in FOLDER, and their features, by a first run. Measured: a second
run, from the start of Python to its end, and the most memory that it took.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from vpoet.media.video import Video

ROOT = Path(__file__).parents[2]
UNIT = 2**30 if sys.platform == "darwin" else 2**20
"""Of the operating system's figures in a GiB: bytes there, kilobytes elsewhere."""


def main(count: int, folder: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("real", "fake"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            frames = random.integers(0, 256, (3, 16, 16, 3), np.uint8)
            if not (file := folder / name / f"{i}.mp4").exists():
                Video(frames, 8.0).write(file, lossless=True)
    words = (str(folder / "real"), str(folder / "fake"), "--frames=3", "--size=16", "--device=cpu", "--json")
    command = [sys.executable, str(ROOT / "sample/compare.py"), *words, f"--out={folder}/out", "--batch-size=64"]
    subprocess.run(command, check=True, capture_output=True)
    # of the first run more was needed: of the second alone the memory is that of a process between
    watch = (
        "import json, resource, subprocess, sys, time; start = time.perf_counter(); "
        "out = subprocess.run(sys.argv[1:], check=True, capture_output=True, text=True).stdout; "
        "used = resource.getrusage(resource.RUSAGE_CHILDREN); "
        "print(json.dumps([time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss, "
        "json.loads(out)['computed']]))"
    )
    found = subprocess.run([sys.executable, "-c", watch, *command], check=True, capture_output=True, text=True).stdout
    seconds, cpu, most, computed = json.loads(found)
    assert computed == 0, computed
    print(json.dumps({"clips": count, "seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2), "GiB": most / UNIT}))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000, Path(sys.argv[2] if len(sys.argv) > 2 else made))
