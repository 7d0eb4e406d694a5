"""Memory for lists of sources that are long: MB of a process at the most, beyond that of a list of one row.

``list_memory``: lists of made rows, a .csv and a .jsonl, are read and divided as `vpoet ingest LIST --holdout 0.1` does
it before the first source is opened, and their jobs gone through one by one. ``in_memory`` is the bound beside it: the
same rows held as a list of Python's, which grows with the rows.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from vpoet.data.clips import ClipSettings
from vpoet.data.ingest import _Jobs, _listed
from vpoet.data.sources import divide, gather

ROWS = 1_000_000


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


def _most(path: Path, how: str) -> dict[str, float]:
    import footprint  # which imports torch, and the process that is measured does not

    done = subprocess.run([sys.executable, __file__, how, path], capture_output=True, text=True, check=True)
    most, seconds = json.loads(done.stdout)
    return {"MB": most / footprint.UNIT, "seconds": seconds}


def gathered(path: Path) -> None:
    sides = divide(gather([str(path)]), holdout=0.1 if path.name != "one.csv" else 0.0)
    jobs = _Jobs(sides, path.parent, ClipSettings(), 512)
    sum(len(jobs[at].items) for at in range(len(jobs)))
    sum(map(len, _listed(sides)))


def held(path: Path) -> None:
    list(gather([str(path)]))


if __name__ == "__main__":
    {"gathered": gathered, "held": held}[sys.argv[1]](Path(sys.argv[2]))
    print(json.dumps([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, round(time.process_time(), 1)]))
