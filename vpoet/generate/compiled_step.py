"""The step compiled ahead of time for this machine's CPU, and kept on disk.

At batch 1 a step of a small model is a hundred short operations, and most of its time goes into calling them; with
weights packed for products with one row, the rest is reading each weight once. AOTInductor makes one native function of
the step. That takes half a minute or more, once: the function is kept in the user's cache folder under a name that says
all it depends on, and loading it compiles nothing.
"""

import contextlib
import functools
import hashlib
import io
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim

from vpoet.errors import BackendError, half_compiled
from vpoet.files import aside, cache_folder
from vpoet.generate import logits as logits_module
from vpoet.generate import play_step as play_step_module
from vpoet.generate import step as step_module
from vpoet.generate.play_step import PlayStep
from vpoet.generate.step import SETTINGS, Run, Step
from vpoet.nn import cache as cache_module
from vpoet.nn import int8 as int8_module
from vpoet.nn import rope as rope_module
from vpoet.nn import transformer as transformer_module
from vpoet.nn.cache import BLOCK, HEADS, LANES, KVCache

_SOURCES: tuple[ModuleType, ...] = (
    *(step_module, play_step_module, logits_module, cache_module, int8_module, rope_module, transformer_module),
)
_INDUCTOR = {
    "freezing": True,  # weights are constants: packed for the kernel that takes them
    "max_autotune": True,  # of the kernels for one row, the fastest is far from the default
    "max_autotune_gemm_backends": "CPP,ATEN",
}
_MOST_BLOCKS = 4096
_PLAIN_INPUTS = 7
"""Of a step to which controls add nothing."""
_RUNS = 20
"""Of a kernel that is timed, at least."""
Inputs = tuple[Any, ...]
"""Of a step, in order."""


class StepCompiler:
    """Compiles steps, or finds them compiled."""

    def __init__(self, on_compile: Callable[[Path], None] = lambda path: None) -> None:
        self.on_compile = on_compile
        """Called with the file's path before a step is compiled, which takes a while."""
        self._loaded: dict[Path, Run] = {}

    def __call__(self, model: str, step: Step, documents: int, slots: int, width: int) -> Run:
        """The compiled step for ``documents`` in ``slots``, of ``width`` tokens each; ``model`` is the hash of its
        weights and vocabulary. One that takes what controls add is another, made when there first are some.

        BackendError where it cannot be compiled.
        """

        def compiled(controls: bool) -> Run:
            path = compiled_file(model, step, documents, slots, width, *([len(step.transformer.places)] * controls))
            return self._run(path, lambda: _compile(step, *_example(step, (documents, slots, width), controls), path))

        if not step.transformer.config.controls:
            return compiled(False)

        runs: dict[bool, Run] = {}

        def run(*inputs: Any) -> tuple[Tensor, Tensor]:
            controls = len(inputs) > _PLAIN_INPUTS
            if controls not in runs:
                runs[controls] = compiled(controls)
            return runs[controls](*inputs)

        return run

    def play(self, model: str, step: PlayStep, documents: int, slots: int, width: int) -> Run:
        """The same of a pass of play, through a ring of any size."""
        path = compiled_file(model, step, documents, slots, width)
        return self._run(path, lambda: _compile(step, *_play_example(step, documents, slots, width), path))

    def _run(self, path: Path, compiles: Callable[[], None]) -> Run:
        if path not in self._loaded:
            if not path.is_file():
                self.on_compile(path)
                compiles()
            try:
                loader = torch._inductor.aoti_load_package(str(path)).loader
            except RuntimeError as error:
                raise BackendError(f"{path}: the compiled step cannot be loaded: {error}; remove the file") from None
            self._loaded[path] = functools.partial(_run, loader)
        return self._loaded[path]


def _run(loader: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
    """The loader's own call reads the program's signature from JSON each time: a tenth of a small model's step."""
    ids_M, nats_M = loader.boxed_run([*_tensors(inputs)])
    return ids_M, nats_M


def _tensors(inputs: Iterable[Any]) -> Iterator[Tensor]:
    """Those in lists of lists, in order."""
    for each in inputs:
        if isinstance(each, Tensor):
            yield each
        else:
            yield from _tensors(each)


def compiled_file(model: str, step: Step | PlayStep, *shape: int) -> Path:
    """Where a compiled step lies, or will: its name is a hash of all that it depends on."""
    weight = step.transformer.language.weight
    if weight.device.type != "cpu":
        raise BackendError(f"compiled decoding is for the CPU, and the model is on {weight.device.type}")
    kinds = sorted({type(part).__name__ for part in step.modules()})  # of 8 bits or of 16
    facts = [model, weight.dtype, kinds, *shape, step.filtered, _INDUCTOR, BLOCK]
    facts += [torch.__version__, torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()]
    digest = hashlib.sha256(repr(facts).encode())
    for module in _SOURCES:
        assert module.__file__ is not None
        digest.update(Path(module.__file__).read_bytes())
    return cache_folder() / f"step-{digest.hexdigest()[:24]}.pt2"


def _example(step: Step, counts: tuple[int, int, int], controls: bool) -> tuple[Inputs, Any]:
    """Inputs of the shapes that the compiled step takes, and which sizes of them are left open."""
    documents, slots, width = counts
    config, weight = step.transformer.config, step.transformer.language.weight
    cache = KVCache(
        layers=config.depth, slots=slots, size=4 * BLOCK, kv_heads=config.kv_heads, head=config.head,
        like=weight, order=LANES if width == 1 else HEADS,
    )  # fmt: skip
    inputs: Inputs = (
        torch.full((documents, width), step.transformer.ranges["codes"].start),
        torch.zeros(slots, width, 2, config.head // 2),
        torch.zeros(slots, width, dtype=torch.int64),
        cache.reach(2 * BLOCK),
        torch.zeros(documents * width, sum(step.transformer.visual.radices)),
        torch.zeros(len(SETTINGS)),
        (cache.keys, cache.values),
    )
    assert len(inputs) == _PLAIN_INPUTS
    # a cache of any size, read as far as it is filled: one compiled step serves clips of all lengths
    reach, size = (BLOCK * Dim(name, min=1, max=_MOST_BLOCKS) for name in ("reach", "size"))
    shapes = (None, None, None, {0: reach}, None, None, ([{2: size}] * config.depth, [{2: size}] * config.depth))
    if not controls:
        return inputs, shapes
    added = weight.new_zeros(len(step.transformer.places), slots * width, config.width)
    return (*inputs, added), (*shapes, None)


def _play_example(step: PlayStep, documents: int, slots: int, width: int) -> tuple[Inputs, Any]:
    """As `_example`: a ring grows where its game is told something."""
    config, weight = step.transformer.config, step.transformer.language.weight
    cache = [weight.new_zeros(slots, config.kv_heads, 4 * BLOCK, config.head) for _ in range(2 * config.depth)]
    places = Dim("places", min=2, max=BLOCK * _MOST_BLOCKS)
    each = [{2: places}] * config.depth
    inputs: Inputs = (
        torch.full((documents, width), step.transformer.ranges["codes"].start),
        torch.zeros(slots, width, 2, config.head // 2),
        torch.zeros(slots, width, dtype=torch.int64),
        torch.ones(slots, width, 4 * BLOCK, dtype=torch.bool),
        torch.zeros(documents * width, sum(step.transformer.visual.radices) + step.outcomes.out_features),
        torch.zeros(len(SETTINGS)),
        cache[: config.depth],
        cache[config.depth :],
    )
    return inputs, (None, None, None, {2: places}, None, None, each, each)


@contextlib.contextmanager
def _by_shortest_runs() -> Iterator[None]:
    """Kernels are compared by their shortest runs. Inductor takes the median, which beside another job on the same
    cores says more of that job than of the kernel, and the choice would stay for good."""

    def milliseconds(run: Callable[[], Any], warmup: int = 20, rep: int = 100, **_: Any) -> float:
        shortest, begun, runs = math.inf, time.perf_counter(), 0
        while runs < _RUNS or time.perf_counter() - begun < (warmup + rep) / 1000:
            before = time.perf_counter()
            run()
            shortest, runs = min(shortest, time.perf_counter() - before), runs + 1
        return 1000 * shortest

    from torch._inductor.runtime.benchmarking import benchmarker  # takes a second, and nothing else here needs it

    vars(benchmarker)["benchmark_cpu"] = milliseconds
    try:
        yield
    finally:
        del vars(benchmarker)["benchmark_cpu"]  # the class's own is there again


def _compile(step: Step | PlayStep, inputs: Inputs, shapes: Any, path: Path) -> None:
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        raise BackendError("compiling a step needs a C++ compiler (apt install g++); without it, decode uncompiled")
    level = logging.getLogger("torch._inductor").level
    logging.getLogger("torch._inductor").setLevel(logging.ERROR)
    said = io.StringIO()
    try:
        # it prints its timings of every kernel
        with aside(path) as fresh, torch.no_grad(), contextlib.redirect_stderr(said), _by_shortest_runs():
            program = torch.export.export(step, inputs, dynamic_shapes=shapes)
            torch._inductor.aoti_compile_and_package(program, package_path=str(fresh), inductor_configs=dict(_INDUCTOR))
    except Exception as error:
        if half := half_compiled(error):
            raise BackendError(half) from None
        raise BackendError(f"the step cannot be compiled here: {error}; decode uncompiled\n{said.getvalue()}") from None
    finally:
        logging.getLogger("torch._inductor").setLevel(level)
