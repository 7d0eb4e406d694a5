"""The step captured as a CUDA graph: some hundred kernels that are started as one.

At batch 1 a GPU is done with a kernel before the next can be called from Python. A graph holds the kernels of a whole
step with the memory that they read and write, and starting it is one call. So all that a step reads must lie where it
lay when it was captured:

    cache       lent from here (`GraphedSteps.cache`), and lent again once its decoder is gone
    inputs      copied into buffers beside the cache
    reach       rounded up to a few lengths, each captured when it is first met, at most a quarter more than needed (all
                of the cache, where its kernel is told how much each slot holds)
    outputs     copied out of the graph's memory before the next step overwrites them

Nothing in a step waits for the GPU, so that Python lays out the steps to come while it works. The graph computes what
the step computes by the same kernels: the same bits, as far as these don't depend on how much is read. ``fuse``, where
it is handed in (`torch.compile`), compiles what each block does before and after its attention, once for all blocks,
and the draw; that rounds otherwise.

Shapes: those of `vpoet.generate.step`.
"""

import copy
import functools
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vpoet.errors import BackendError
from vpoet.generate.step import Run, Step
from vpoet.nn.cache import KVCache
from vpoet.nn.cache_attention import CacheBackend
from vpoet.nn.rope import Rotation
from vpoet.nn.transformer import Block
from vpoet.nn.visibility import Attend

Outputs = tuple[Tensor, Tensor]
Capture = Callable[[Callable[[], Outputs]], tuple[Outputs, Callable[[], None]]]
"""Runs a function of no arguments, and records it: its outputs, and what computes them anew in the same place."""

_ROOMS = 2
"""Caches that are kept for decoders to come, with what was captured on them."""
_LEAST = 256
"""Positions that lengths are told apart by, at least."""
_RECOMPILE = 64
"""Numbers of tokens that a function is compiled for."""


def rounded(length: int) -> int:
    """The lengths that are captured: four between a power of two and the next."""
    step = max(_LEAST, 1 << (length - 1).bit_length() >> 3)
    return -(-length // step) * step


def cuda_capture() -> Capture:
    """Capturing on this process's CUDA device. All graphs share one memory for what lives within a step."""
    pool = torch.cuda.graph_pool_handle()

    def capture(call: Callable[[], Outputs]) -> tuple[Outputs, Callable[[], None]]:
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # libraries choose kernels, and compilers compile, as they are first called
            for _ in range(2):
                call()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # other threads, which read files or decode videos, may go on
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            outputs = call()
        return outputs, graph.replay

    return capture


def cuda_fuse(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled for the sizes that it is called with; BackendError where it cannot be."""
    compiled = torch.compile(function, dynamic=False, fullgraph=True)

    def call(*inputs: Any) -> Any:
        try:
            with torch._dynamo.config.patch(recompile_limit=_RECOMPILE):
                return compiled(*inputs)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise BackendError(f"the step cannot be compiled here: {error}; decode uncompiled") from None

    return call


@dataclass(eq=False)
class _Room:
    """A cache, and what was captured on it."""

    cache: KVCache
    buffers: dict[tuple[int, int, int], list[Tensor]] = field(default_factory=dict)
    """The inputs of a step, by documents and tokens of each, and whether controls add to them (1, or 0)."""
    graphs: dict[tuple[int, int, int, bool, int], tuple[Outputs, Callable[[], None], Step]] = field(
        default_factory=dict
    )
    """By the same, whether its draw is filtered, and the positions that are read; the step holds the weights."""

    @property
    def place(self) -> int:
        return self.cache.keys[0].data_ptr()


class GraphedSteps:
    """Captures the steps of one model, or finds them captured: a `Build`, and where its caches come from."""

    def __init__(self, capture: Capture, through: CacheBackend, fuse: Callable[..., Any] | None = None) -> None:
        self._capture, self._through = capture, through
        self._fused = None if fuse is None else (fuse(Block.before), fuse(Block.after), fuse(Step.draw))
        self._rooms: dict[int, _Room] = {}
        """By where they are."""
        self._free: list[tuple[tuple[Any, ...], _Room]] = []
        """Those that no decoder has, with their sizes, the latest last."""

    def cache(self, *, size: int, like: Tensor, **sizes: Any) -> KVCache:
        """A `KVCache` of these sizes, or a longer one; the memory is taken back when it is gone."""
        shape = rounded(size), *sorted(sizes.items())
        fit = next((each for each in reversed(self._free) if each[0] == shape), None)
        if fit:
            self._free.remove(fit)
        room = fit[1] if fit else _Room(KVCache(size=rounded(size), like=like, **sizes))
        self._rooms[room.place] = room
        lent = copy.copy(room.cache)
        weakref.finalize(lent, self._take_back, shape, room).atexit = False
        return lent

    def _take_back(self, shape: tuple[Any, ...], room: _Room) -> None:
        self._free.append((shape, room))
        if len(self._free) > _ROOMS:
            del self._rooms[self._free.pop(0)[1].place]

    def __call__(self, step: Step, documents: int, slots: int, width: int) -> Run:
        """What is called in place of ``step``. A cache from elsewhere (a fork's) is served by the step itself."""
        return functools.partial(self._run, _FusedStep(step, *self._fused) if self._fused else step)

    def _run(
        self, step: Step, ids_BW: Tensor, turn_NW2P: Tensor, place_NW: Tensor, reach_S: Tensor, *rest: Any
    ) -> Outputs:
        noise_MV, settings, (keys, _), *control = rest
        room = self._rooms.get(keys[0].data_ptr())
        if room is None:
            return step(ids_BW, turn_NW2P, place_NW, reach_S, *rest)  # type: ignore[no-any-return]
        given = ids_BW, turn_NW2P, place_NW, noise_MV, settings, *control
        documents, width = ids_BW.shape
        kind = documents, width, len(control)
        if kind not in room.buffers:
            room.buffers[kind] = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in given]
        buffers = room.buffers[kind]
        for buffer, new in zip(buffers, given, strict=True):
            buffer.copy_(new)
        size = room.cache.size
        reach = size if self._through.by_length else min(rounded(len(reach_S)), size)
        key = *kind, step.filtered, reach
        if key not in room.graphs:
            *inputs, noise_MV, settings = buffers[:5]
            reach_S, held = room.cache.reach(reach), (room.cache.keys, room.cache.values)
            call = functools.partial(step, *inputs, reach_S, noise_MV, settings, held, *buffers[5:])
            room.graphs[key] = *self._capture(call), step
        outputs, replay, _ = room.graphs[key]
        replay()
        ids_M, nats_M = (output.clone() for output in outputs)
        return ids_M, nats_M


class _FusedStep(Step):
    """A step whose parts are compiled: of a block, what stands before and after its attention; and the draw."""

    def __init__(
        self, plain: Step, before: Callable[..., Any], after: Callable[..., Tensor], draw: Callable[..., Outputs]
    ) -> None:
        super().__init__(plain.transformer, filtered=plain.filtered, through=plain.through)
        self._plain, self._draw = plain, draw

        def run(block: Block, layer: int, x_TD: Tensor, rotation: Rotation, attend: Attend) -> Tensor:
            return after(block, x_TD, attend(layer, *before(block, x_TD, rotation)))

        self.blocks = run

    def draw(self, h_ND: Tensor, noise_BV: Tensor, settings: Tensor) -> Outputs:
        return self._draw(self._plain, h_ND, noise_BV, settings)
