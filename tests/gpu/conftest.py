"""What the checks of a card share: the card, sizes for it, and the table that they fill.

Each check runs twice: as a rehearsal on the CPU at toy size, which is an ordinary test, and on a card at full size,
marked ``gpu``. It is the same code; what needs CUDA says in a row of the table that it was not run.
"""

import gc
import json
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from vpoet.nn.transformer import TransformerConfig
from vpoet.training.sheets import DEVICES

BANDWIDTH = {"h100": 3.35e12, "h200": 4.8e12, "a100-80": 2.039e12, "l40s": 864e9, "rtx4090": 1008e9}
"""Bytes a second of a card's memory, by the data sheets that `DEVICES` names."""
NAMES = {"H100": "h100", "H200": "h200", "A100": "a100-80", "L40S": "l40s", "4090": "rtx4090"}
"""What torch's name of a card holds, and its key in `DEVICES`."""
NOT_RUN = "not run: needs CUDA"


@dataclass
class Row:
    """A line of the table."""

    what: str
    found: str
    expected: str
    verdict: str


@dataclass
class Card:
    """The device under test, and what was found of it."""

    real: bool
    rows: list[Row] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if self.real else "cpu")

    @property
    def name(self) -> str:
        return torch.cuda.get_device_name() if self.real else f"rehearsal on {platform.machine()}"

    def network(self, **real: int) -> TransformerConfig:
        """Sizes of a transformer: these, or those of a rehearsal."""
        toy = {"width": 32, "depth": 2, "heads": 4, "kv_heads": 2, "hidden": 48}
        return TransformerConfig(**(real if self.real else toy))

    @property
    def half(self) -> torch.dtype:
        """What a card computes in; a CPU rehearses in fp32."""
        return torch.bfloat16 if self.real else torch.float32

    def pick(self, real: Any, toy: Any) -> Any:
        """A size: for a card, or for a rehearsal."""
        return real if self.real else toy

    def sheet(self) -> tuple[float, float]:
        """bf16 operations and bytes of memory a second, by the card's data sheet; of one that is not known, what a
        product and a copy sustain."""
        key = next((NAMES[part] for part in NAMES if self.real and part in self.name), None)
        if key:
            return DEVICES[key].bf16, BANDWIDTH[key]
        size = self.pick(8192, 64)
        a = torch.ones(size, size, device=self.device, dtype=self.half)
        return 2 * size**3 / self.seconds(lambda: a @ a), self.bandwidth()

    def bandwidth(self) -> float:
        """Bytes a second that a copy reads and writes."""
        a = torch.ones(self.pick(2**30, 2**10), device=self.device, dtype=self.half)
        b = torch.empty_like(a)
        return 2 * a.nbytes / self.seconds(lambda: b.copy_(a))

    def seconds(self, call: Callable[[], object], rounds: int = 3) -> float:
        """The best of some calls, from an idle device to an idle device."""
        best = float("inf")
        for _ in range(rounds):
            self.wait()
            began = time.perf_counter()
            call()
            self.wait()
            best = min(best, time.perf_counter() - began)
        return best

    def wait(self) -> None:
        if self.real:
            torch.cuda.synchronize()

    def row(self, what: str, found: str, expected: str, holds: bool) -> None:
        """Something that a test holds or breaks; it fails with the row."""
        self.rows.append(Row(what, found, expected, "holds" if holds else "BROKEN"))
        assert holds, f"{what}: {found}, expected {expected}"

    def measured(self, what: str, found: float, unit: str, least: float, most: float = float("inf")) -> None:
        """A figure that was estimated before a card was there: the table says whether it came out so. A rehearsal
        measures nothing."""
        between = f"at least {least:.4g}" if most == float("inf") else f"{least:.4g} to {most:.4g}"
        verdict = "confirmed" if least <= found <= most else "REFUTED"
        if self.real:
            self.rows.append(Row(what, f"{found:.4g} {unit}", f"{between} {unit}", verdict))
        else:
            assert found > 0
            self.rows.append(Row(what, "not measured in a rehearsal", f"{between} {unit}", NOT_RUN))

    def missing(self, what: str, expected: str, reason: str = NOT_RUN) -> None:
        """Something that cannot be run here."""
        self.rows.append(Row(what, "", expected, reason))

    def table(self) -> str:
        """All rows, for people."""
        cells = [("check", "found", "expected", "verdict"), *(tuple(asdict(row).values()) for row in self.rows)]
        widths = [max(len(cell[i]) for cell in cells) for i in range(4)]
        return "\n".join(
            "  ".join(text.ljust(w) for text, w in zip(cell, widths, strict=True)).rstrip() for cell in cells
        )


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--gpu-out", type=Path, help="Write the table of the checks of a card to this JSON file.")


@pytest.fixture(
    scope="session", params=[pytest.param(False, id="rehearsal"), pytest.param(True, id="card", marks=pytest.mark.gpu)]
)
def card(request: pytest.FixtureRequest) -> Iterator[Card]:
    """The CPU for a rehearsal; or the card."""
    if request.param and not torch.cuda.is_available():
        pytest.skip("no CUDA device that torch can use here; `make gpu` runs this where there is one")
    found = Card(request.param)
    yield found
    reports = request.config.stash.setdefault(REPORTS, [])
    reports.append(found)
    if out := request.config.getoption("--gpu-out"):
        rows = [asdict(row) for row in found.rows]
        facts = {"card": found.name, "torch": torch.__version__, "cuda": torch.version.cuda, "rows": rows}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(facts, indent=1) + "\n")


REPORTS = pytest.StashKey[list[Card]]()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The table, at the end of what `python tests/gpu` runs."""
    if out := config.getoption("--gpu-out"):
        for found in config.stash.get(REPORTS, []):
            terminalreporter.write_line(
                f"\n{found.name}, torch {torch.__version__}\n\n{found.table()}\n\nalso in {out}"
            )


@pytest.fixture(autouse=True)
def room(card: Card) -> Iterator[None]:
    """Memory is given back between checks."""
    yield
    if card.real:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
