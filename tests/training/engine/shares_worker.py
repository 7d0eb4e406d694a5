"""One of the processes of test_shares: saves and loads checkpoints, and counts the bytes that it writes, reads, sends.

    shares_worker.py FOLDER SAVE,... LOAD,... FILL,...

SAVE is STAGE-TYPE, or STAGE-TYPE-offload: trained for three steps and saved in FOLDER. LOAD is FROM:STAGE-TYPE, a
checkpoint in FOLDER brought into another engine. FILL is STAGE-TYPE: a transformer laid out without memory,
started and filled.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vpoet.nn.attention import backend
from vpoet.nn.initial import Weightless, drawn
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.processes import Processes
from vpoet.sequence.vocabulary import Vocabulary
from vpoet.training.engine.base import Engine, EngineConfig
from vpoet.training.loss import PackLoss
from vpoet.training.optim import OptimizerConfig
from vpoet.training.run import checkpoint
from vpoet.training.run.folder import checkpoint_of
from vpoet.training.run.saver import Saver

PACKS = 4
WORDS = Vocabulary(37, (8, 5), "", "")
HASHES = {"vocabulary": "v"}


class Module(nn.Module):
    """Sizes that no number of processes divides, a frozen matrix, and one weight with fewer elements than processes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(101, 203), nn.RMSNorm(203), nn.Linear(203, 99)
        self.frozen = nn.Linear(99, 77, bias=False).requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.frozen(self.last(self.norm(self.first(x.to(self.first.weight.dtype)))))
        return (x.float().square().sum(0)[:3] * self.scale).float()


def engine(case: str, seed: int) -> Engine:
    from vpoet.training.engine.deepspeed import DeepSpeedEngine  # not where the test reads this file

    zero, dtype, *offload = case.split("-")
    torch.manual_seed(seed)
    with NamedTemporaryFile("w", suffix=".json") as file:
        offloaded = ["offload_optimizer", "offload_param"][: 2 if zero == "3" else 1] if offload else []
        json.dump({"zero_optimization": {name: {"device": "cpu"} for name in offloaded}}, file)
        file.flush()
        config = EngineConfig(name="deepspeed", zero=int(zero), dtype=dtype, timeout=60, deepspeed=file.name)
        return DeepSpeedEngine(Module(), config, OptimizerConfig(), lambda world: PACKS // world)


def filled(case: str, *, at_once: bool) -> Engine:
    """An engine of a transformer whose weights come one at a time, or are there before it starts."""
    from vpoet.training.engine.deepspeed import DeepSpeedEngine

    zero, dtype = case.split("-")
    torch.manual_seed(11)
    with nullcontext() if at_once else Weightless():
        transformer = Transformer(TransformerConfig(width=24, depth=2, heads=2, kv_heads=1, hidden=40), WORDS)
    config = EngineConfig(name="deepspeed", zero=int(zero), dtype=dtype, timeout=60)
    module = PackLoss(transformer, backend("sdpa", torch.device("cpu"), torch.float32))
    weights = None if at_once else drawn(transformer)
    return DeepSpeedEngine(module, config, OptimizerConfig(matrix_lr=1e-3), lambda world: 1, weights)


def groups(trainer: Engine) -> list[list[Any]]:
    """How the weights are trained: with the decay of each group, and the sizes of what it has here."""
    optimizer: Any = getattr(trainer, "engine").optimizer  # noqa: B009 (DeepSpeed's)
    return [
        [group["weight_decay"], group["muon"], [weight.numel() for weight in group["params"]]]
        for group in optimizer.param_groups
    ]


def train(trainer: Engine, first: int, last: int) -> list[float]:
    data = torch.randn(last, PACKS, 6, 101, generator=torch.Generator().manual_seed(5))
    mine = range(trainer.rank, PACKS, trainer.world)
    return [
        trainer.step([data[step, pack] for pack in mine], lambda output: output.sum() / 24, 1e-2)[1]
        for step in range(first, last)
    ]


def digest(trainer: Engine) -> str:
    """Of every bit of weights and states, read whole: by DeepSpeed's own means, which know nothing of slices."""
    found = hashlib.sha256()
    for name in trainer.shapes:
        for part in ("weight", *trainer.trained.get(name, ())):
            found.update(trainer.read(name, part).numpy().tobytes())  # type: ignore[arg-type]
    return found.hexdigest()


class Sent(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes that this process gives to collectives."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if call.namespace == "c10d":
            given = args[1] if "allgather" in call.name() else args[0]
            self.bytes += sum(t.numel() * t.itemsize for t in tree_leaves(given) if isinstance(t, Tensor))
        return call(*args, **(kwargs or {}))


@contextmanager
def counted(told: dict[str, int]) -> Iterator[None]:
    def now() -> dict[str, int]:
        lines = Path("/proc/self/io").read_text().splitlines()
        return {name: int(count) for name, count in (line.split(": ") for line in lines)}

    before, sent = now(), Sent()
    with sent:
        yield
    after = now()
    told |= {"written": after["wchar"] - before["wchar"], "read": after["rchar"] - before["rchar"], "sent": sent.bytes}


def main(folder: Path, saves: list[str], loads: list[str], fills: list[str]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for case in saves:
        trainer = engine(case, 0)
        train(trainer, 0, 3)
        seen: dict[str, Any] = {"digest": digest(trainer), "save": {}, "load": {}}
        with counted(seen["save"]):
            Saver(folder / case, trainer, keep=1).save({"step": 3, "hashes": HASHES}, last=True)
        again = engine(case, 1)
        with counted(seen["load"]):
            checkpoint.load(checkpoint_of(folder / case, 3), again, HASHES)
        seen["read back"] = digest(again) == seen["digest"]
        seen["goes on"] = train(again, 3, 6) == train(trainer, 3, 6)
        told[case] = seen
    for load in loads:
        source, case = load.split(":")
        trainer = engine(case, 1)
        checkpoint.load(checkpoint_of(folder / source, 3), trainer, HASHES)
        told[load] = {"digest": digest(trainer), "norms": train(trainer, 3, 5)}
    for case in fills:
        both = [filled(case, at_once=at_once) for at_once in (False, True)]
        told[f"filled {case}"] = [[digest(trainer), groups(trainer)] for trainer in both]
    Processes.joined().leave()
    return told


if __name__ == "__main__":
    print("\n" + json.dumps(main(Path(sys.argv[1]), *(words.split(",") if words else [] for words in sys.argv[2:5]))))
