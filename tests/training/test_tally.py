"""The one sum of a step: right, and not waited for before the device has done the step."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vpoet.errors import DataError
from vpoet.sequence.document import KINDS, Sequence
from vpoet.sequence.packing import Pack, pack
from vpoet.training.engine.plain import TorchEngine
from vpoet.training.engine.ulysses import Share
from vpoet.training.tally import Tally

VIDEO = KINDS.index("video")
META = torch.device("meta")


def row(predicted: int, length: int = 16) -> Pack:
    ids = np.arange(12, dtype=np.int32)
    kinds = np.full(12, VIDEO, np.uint8)
    return pack([Sequence(ids, np.zeros((12, 3), np.int64), kinds, np.arange(12) >= 12 - predicted)], length)


def tally(total: Callable[[Tensor], Tensor], share: Share, packs: list[Pack]) -> Tally:
    return Tally(SimpleNamespace(total=total), share, packs, flops=7.0, waited=0.5, signal=2)  # type: ignore[arg-type]


def test_everybodys_numbers_are_added_up() -> None:
    found = tally(lambda values: 2 * values, Share(0, 2, 1), [row(5), row(3)])
    assert found.divisor.dtype == torch.float32
    assert float(found.divisor) == 16
    assert found.targets.tolist() == [16.0 if kind == VIDEO else 0.0 for kind in range(len(KINDS))]
    assert (found.predicted, found.kind) == (16, "video")
    numbers = {part: found[part] for part in ("tokens", "padding", "flops", "waited", "signal")}
    assert numbers == {"tokens": 64, "padding": 16, "flops": 14, "waited": 1, "signal": 4}


def test_a_pack_that_two_processes_share_counts_once() -> None:
    codes = [Share(rank, 2, 2).code([row(5)]) for rank in range(2)]
    assert sum(codes) == 0 != codes[0]

    def both(values: Tensor) -> Tensor:
        return torch.cat((2 * values[:-1], torch.tensor([sum(codes)], dtype=values.dtype)))

    found = tally(both, Share(0, 2, 2), [row(5)])
    assert (float(found.divisor), found["tokens"]) == (5, 16)
    other = tally(lambda values: 2 * values, Share(0, 2, 2), [row(5)])
    with pytest.raises(DataError, match="have read different ones"):
        assert other.targets


def test_what_is_on_the_device_is_not_waited_for() -> None:
    """The meta device has nothing that could be read."""
    found = tally(lambda values: values.to(META), Share(0, 1, 1), [row(5)])
    assert found.divisor.device == META
    with pytest.raises(NotImplementedError):
        assert found.targets


def test_the_program_reads_no_number_before_its_step(
    tokens: Any, tmp_path: Path, program: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    at: list[str] = []

    def step(self: TorchEngine, *args: Any, accept: Callable[..., bool], **keys: Any) -> Any:
        def asked(*told: Any) -> bool:
            at.append("accept")
            return accept(*told)

        return stepped(self, *args, accept=asked, **keys)

    def read(self: Tally) -> Tensor:
        at.append("read")
        return reading(self)

    stepped, reading = TorchEngine.step, Tally.__dict__["_read"].func
    watched = cached_property(read)
    watched.__set_name__(Tally, "_read")
    monkeypatch.setattr(TorchEngine, "step", step)
    monkeypatch.setattr(Tally, "_read", watched)
    assert program("train/pretrain.py", tokens.recipe(tmp_path / "run.yaml", steps=3, heldout="[]"))[0] == 0
    assert at == ["accept", "read"] * 3
