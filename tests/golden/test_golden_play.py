"""The world that ships, played by its public face: what keys show, at what cost, by codes and by guesses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vpoet
from vpoet import config

PLAYGROUND = Path(vpoet.__file__).parent / "weights" / "playground-64"
KEYS = ("right", "right", "jump", "noop", "left")


@pytest.mark.parametrize("guesses", [0, 16])
@pytest.mark.parametrize("sampling", [{}, {"cfg": 1.5, "temperature": 1.0}], ids=["default", "warm and guided"])
def test_keys_show_what_they_showed(
    golden: Callable[..., None], sampling: dict[str, Any], guesses: int, request: pytest.FixtureRequest
) -> None:
    model = vpoet.load(PLAYGROUND, device="cpu", precision="fp32", guesses=guesses)
    session = model.play("a robot on grass", seed=4, **sampling)
    shown = [(session.frame, session.codes, session.nats, session.outcome)]
    for key in KEYS:
        session.step(session.actions.index(key))
        shown.append((session.frame, session.codes, session.nats, session.outcome))
    frames, codes, nats, outcomes = zip(*shown, strict=True)
    golden(
        f"play {request.node.callspec.id.rpartition('-')[0]}",
        {
            "hash": model.bundle.hash, "config": config.to_dict(model.bundle.config), "outcomes": list(outcomes),
            "codes": np.stack(codes), "nats": np.stack(nats).sum(1, dtype=np.float64), "frames": np.stack(frames),
        },
        f"guesses {guesses}",
    )  # fmt: skip
