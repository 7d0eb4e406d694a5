"""Guessed codes on a trained bundle: codes that a pass adds, and the gain over one code a pass in the same run.

The bundle is the newest of runs/demo/bundle and runs/platformer/bundle, or else the one that ships. Four clips are
made, one after the other or as one batch, with one code a pass and with K guesses; codes a second of processor time of
one thread, as other work only slows, the better of two. ``same`` is the share of clips whose codes are those that one
code a pass gives. ``compiled`` is the same with the compiled step, alone and with guesses, against the uncompiled step;
it stays in the folder vpoet-bench of the temporary files, for the next run.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vpoet.arrays import Ints
from vpoet.bundle import SHIPPED
from vpoet.generate.model import Model, Request, StepCompiler, load
from vpoet.generate.sampling import Sampling

GUESSES, COMPILED = (4, 8, 16, 32), (0, 8, 16)
PLAIN, GUIDED = Sampling(), Sampling(guidance=3.0, temperature=0.9, top_p=0.95)
PROMPTS = (
    "a robot walks right on grass",
    "a zombie jumps up and down on sand",
    "a man walks left on snow at night",
    "a hero stands on grass",
)
ROUNDS = 2


def guessing(_: float) -> dict[str, Any]:
    """4, 8, 16 and 32 guesses a pass."""
    runs = [folder for name in ("demo", "platformer") if (folder := Path("runs", name, "bundle")).is_dir()]
    bundle = max(runs, key=lambda folder: folder.stat().st_mtime, default=SHIPPED)
    return on(bundle) if bundle.is_dir() else {"skipped": "no trained bundle here; `make demo` makes one"}


def on(bundle: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    one = load(bundle, "cpu", guesses=0)
    line: dict[str, Any] = {"bundle": bundle.name}
    for name, sampling, batch in (("plain", PLAIN, 1), ("guided", GUIDED, 1), ("batch_4", PLAIN, 4)):
        rate, _, wanted = _best(one, sampling, batch)
        line[name] = {"codes_per_second": round(rate)}
        for guesses in GUESSES:
            faster, a_pass, found = _best(Model(one.bundle, guesses=guesses), sampling, batch)
            same = float(np.mean([np.array_equal(a, b) for a, b in zip(wanted, found, strict=True)]))
            line[name][str(guesses)] = {"codes_a_pass": a_pass, "times": round(faster / rate, 2), "same": same}
        if name == "plain":
            line["compiled"] = _compiled(one, rate, wanted)
    return line


def _compiled(one: Model, rate: float, wanted: list[Ints]) -> dict[str, Any]:
    os.environ["XDG_CACHE_HOME"] = str(Path(tempfile.gettempdir(), "vpoet-bench"))
    found = {}
    for guesses in COMPILED:
        faster, _, clips = _best(Model(one.bundle, StepCompiler(), guesses), PLAIN, 1)
        same = float(np.mean([np.array_equal(a, b) for a, b in zip(wanted, clips, strict=True)]))
        found[str(guesses)] = {"codes_per_second": round(faster), "times": round(faster / rate, 2), "same": same}
    return found


def _best(model: Model, sampling: Sampling, batch: int) -> tuple[float, float, list[Ints]]:
    """Codes a second, codes of a clip that a pass adds, and the clips."""
    documents = [model.document(Request(prompt=prompt)) for prompt in PROMPTS]
    passes = 0

    def count(*_: Any) -> None:
        nonlocal passes
        passes += 1

    rates, clips = [], []
    for _ in range(ROUNDS):
        passes = 0
        hook = model.bundle.transformer.register_forward_hook(count)
        began = time.process_time()
        clips = [
            decoded.document.codes()
            for start in range(0, len(documents), batch)
            for decoded in model.decode(
                documents[start : start + batch], range(start, min(start + batch, len(documents))), sampling
            )
        ]
        rates.append(sum(clip.size for clip in clips) / (time.process_time() - began))
        hook.remove()
    calls = -(-len(documents) // batch)
    drawn = sum(clips[start].size for start in range(0, len(documents), batch))
    return max(rates), round((drawn - calls) / max(1, passes - calls), 2), clips
