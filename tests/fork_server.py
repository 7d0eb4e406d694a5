"""``python tests/fork_server.py``: a process that has imported what programs import, and becomes them.

Most of the time of a short program goes into the import of torch and DeepSpeed. Here that is done once, and nothing
else: no thread, no tensor. Each line of JSON on standard input is a request, and is answered by one on standard output:

    {"file": "train/pretrain.py", "arguments": [...], "environment": {...}, "folder": PATH, "out": PATH, "err": PATH}
                                                           the process
    {"wait": PROCESS, "seconds": 60}                       its status, as subprocess has it; null if it still runs then

A process is forked off, and runs the file as Python would have: in that folder, with that environment and no other,
under the name __main__, its own folder first on the path, and standard output and error in these files.
"""

import json
import os
import runpy
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PROGRAMS = (
    *("tokenizers/train_video.py", "train/pretrain.py", "train/finetune.py"),
    *("sample/generate.py", "sample/score.py", "sample/evaluate.py", "sample/compare.py"),
)


def imports() -> None:
    for program in PROGRAMS:
        runpy.run_path(str(ROOT / program), run_name="imported")
    import deepspeed  # noqa: F401 (programs import these two late)
    import wandb  # noqa: F401

    assert threading.active_count() == 1, "a fork has none of its parent's threads"


def status(process: int, seconds: float) -> int | None:
    deadline = time.monotonic() + seconds
    while True:
        found, ended = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(ended)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.005)


def serve() -> dict[str, Any]:
    """Answers until there are no more requests; in a process that was forked off, what it shall be."""
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = status(request["wait"], request["seconds"])
        elif answer := os.fork():
            pass
        else:
            return request
        print(json.dumps(answer), flush=True)
    sys.exit()


if __name__ == "__main__":
    imports()
    shall = serve()
    for number, path in enumerate((os.devnull, shall["out"], shall["err"])):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    os.chdir(shall["folder"])
    os.environ.clear()
    os.environ.update(shall["environment"])
    sys.argv = [shall["file"], *shall["arguments"]]
    sys.path[0] = str(Path(shall["file"]).parent)
    runpy.run_path(shall["file"], run_name="__main__")
