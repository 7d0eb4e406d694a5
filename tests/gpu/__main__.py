"""Everything that only a card can prove, in under ten minutes, and one table at the end: ``make gpu``.

``python tests/gpu --rehearse`` goes through the same code on the CPU at toy size, in half a minute.
"""

import argparse
import os
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/gpu", description="Check a card, and fill a table about it.")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, at toy size: whether the checks run")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu/table.json"), help="[runs/gpu/table.json]")
    asked = parser.parse_args()
    if not asked.rehearse:
        os.environ["DS_ACCELERATOR"] = "cuda"
        os.environ.setdefault("OMP_NUM_THREADS", str(min(8, os.cpu_count() or 1)))  # the CPU's side of the comparisons
    import torch

    if not asked.rehearse and not torch.cuda.is_available():
        print(
            f"error: torch {torch.__version__} finds no CUDA device here; `nvidia-smi` should show a card, and "
            "`pip install torch` one with CUDA; `python tests/gpu --rehearse` goes through the checks on the CPU",
            file=sys.stderr,
        )
        return 2
    import pytest

    mark = "not gpu" if asked.rehearse else "gpu"
    return int(pytest.main([str(HERE), "-m", mark, "-q", "--no-showlocals", "--gpu-out", str(asked.out)]))


if __name__ == "__main__":
    sys.exit(main())
