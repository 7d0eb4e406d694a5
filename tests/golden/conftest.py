"""Golden values: what came out when they were recorded must come out ever after.

pytest tests/golden                      compares: integers and names exactly, floats to 1e-5, as CPUs round apart
pytest tests/golden --bits FILE          also writes the SHA-256 of every value's very bits: compare two such files
pytest tests/golden --record             writes anew what is meant to differ; say why in the commit
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

VALUES = Path(__file__).parent / "data" / "values.json"
TOLERANCE = 1e-5
"""Of floats, relative and absolute: the larger counts."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bits", type=Path, metavar="FILE", help="write the SHA-256 of every golden value's bits as JSON")
    parser.addoption("--record", action="store_true", help="take what comes out now as the golden values")


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the values were recorded."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Iterator[Callable[..., None]]:
    """``golden(name, value, way)`` compares a value with the kept one; ways that must agree share a name.

    A value is made of dicts, lists, arrays, numbers and strings. Of floats in an array the mean is kept, as single ones
    differ by more between CPUs, and of pixels that of each frame. What a dict has more than the kept one is new, and
    so not compared.
    """
    bits_file: Path | None = request.config.getoption("--bits", default=None)
    record: bool = request.config.getoption("--record", default=False)
    kept = json.loads(VALUES.read_text()) if VALUES.exists() else {}
    bits: dict[str, str] = {}

    def check(name: str, value: Any, way: str = "", tolerance: float = TOLERANCE) -> None:
        bits[f"{name}, {way}" if way else name] = hashlib.sha256(raw(value)).hexdigest()
        if record:
            kept[name] = plain(value)
        assert name in kept, f"no golden value {name}: record it"
        assert not (found := differences(kept[name], plain(value), name, tolerance)), "\n".join(found[:20])

    yield check
    if record:
        rows = (f"{json.dumps(name)}: {json.dumps(kept[name])}" for name in sorted(kept))
        VALUES.write_text("{\n" + ",\n".join(rows) + "\n}\n")
    if bits_file:
        bits_file.write_text(json.dumps(bits, indent=1, sort_keys=True) + "\n")


def raw(value: Any) -> bytes:
    """Every bit of a value."""
    if isinstance(value, dict):
        return b"".join(str(key).encode() + raw(value[key]) for key in sorted(value))
    if isinstance(value, list | tuple):
        return b"".join(map(raw, value))
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}".encode() + value.tobytes()
    return repr(value).encode()


def plain(value: Any) -> Any:
    """A value in JSON's types, floats in nine digits."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        if value.dtype == np.uint8:
            value = value.mean(axis=(-3, -2, -1))
        elif value.dtype.kind == "f":
            value = value.mean(dtype=np.float64)
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


def differences(kept: Any, now: Any, where: str, tolerance: float) -> list[str]:
    if isinstance(kept, dict) and isinstance(now, dict):
        lost = [f"{where}: no {key} any more" for key in kept.keys() - now.keys()]
        both = [key for key in kept if key in now]
        return lost + [line for key in both for line in differences(kept[key], now[key], f"{where}, {key}", tolerance)]
    if isinstance(kept, list) and isinstance(now, list) and len(kept) == len(now):
        pairs = enumerate(zip(kept, now, strict=True))
        return [line for i, (old, new) in pairs for line in differences(old, new, f"{where}[{i}]", tolerance)]
    if isinstance(kept, float) and isinstance(now, float):
        same = kept == pytest.approx(now, rel=tolerance, abs=tolerance)
    else:
        same = type(kept) is type(now) and kept == now
    return [] if same else [f"{where}: {kept!r}, now {now!r}"]
