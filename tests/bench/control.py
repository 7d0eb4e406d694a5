"""What controls cost in decoding: the bundle that ships, made to read three kinds, with all of them and without.

``ratio`` is the time with controls over that without, each the shortest of some turns that alternate; what is made of
the controls before the first step is counted in.
"""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from vpoet.generate.model import Model, load
from vpoet.generate.request import Request
from vpoet.nn.transformer import Transformer
from vpoet.sequence.controls import Control

TURNS = 5
KINDS = ("edges", "segmentation", "depth")


def control_decoding(_: float) -> dict[str, Any]:
    torch.set_num_threads(1)
    model = load(device="cpu")
    found = {}
    for guesses, name in ((0, "one code a pass"), (None, "guesses")):
        follows = reading(model, guesses)
        bare = follows.document(Request(prompt="a robot walks right on grass"))
        random = np.random.default_rng(0)
        codes = [random.integers(0, 64000, bare.codes().shape, dtype=np.int32) for _ in KINDS]
        told = replace(bare, controls=tuple(map(Control, KINDS, codes)))
        took: dict[str, list[float]] = {"with": [], "without": []}
        for _ in range(TURNS):
            for label, document in (("without", bare), ("with", told)):
                began = time.process_time()
                follows.decode([document], [0], follows.sampling())
                took[label].append(time.process_time() - began)
        shortest = {label: min(each) for label, each in took.items()}
        found[name] = {label: round(seconds, 3) for label, seconds in shortest.items()}
        found[name]["ratio"] = round(shortest["with"] / shortest["without"], 3)
    return found


def reading(model: Model, guesses: int | None) -> Model:
    """The model with maps for controls that are new and add nothing: so both decode the same codes."""
    plain = model.bundle.transformer
    transformer = Transformer(replace(plain.config, controls=list(KINDS)), plain.vocabulary)
    learnt = {name: each for name, each in plain.state_dict().items() if not name.startswith("controls.")}
    transformer.load_state_dict({**transformer.state_dict(), **learnt})
    bundle = replace(model.bundle, transformer=transformer.eval().requires_grad_(False))
    return Model(bundle, guesses=guesses)
