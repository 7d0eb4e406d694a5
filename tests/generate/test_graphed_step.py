"""The captured step beside the plain one, by a stand-in for CUDA graphs: the same bits, from what lies in fixed places
alone.

The stand-in records the operations of a call and does them again, and nothing else. As on a card, what was an input
when the call was recorded is read where it lay then, whatever Python's variables hold now; and as memory that is gone
may hold anything, to need it is an error here. Reading a value back, or making a tensor of Python's numbers, would wait
for the device: no graph can be captured of that.
"""

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from vpoet.generate import decoder, graphed_step
from vpoet.generate.decode import decode
from vpoet.generate.decoder import Decoder, Decoding
from vpoet.generate.graphed_step import Capture, GraphedSteps, Outputs, rounded
from vpoet.generate.logits import gumbel
from vpoet.generate.plan import Plan
from vpoet.generate.sampling import Sampling
from vpoet.generate.step import Run, Step
from vpoet.nn.attention import backend
from vpoet.nn.cache import TOKENS
from vpoet.nn.cache_attention import SDPA, CacheBackend
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.nn.visibility import Attend
from vpoet.sequence.arrangements import Sample
from vpoet.sequence.document import Document, Span, build
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Modality, Vocabulary

CPU = torch.device("cpu")
PACKED = backend("sdpa", CPU, torch.float32)
FILTERED = Sampling(guidance=2.5, temperature=0.8, top_k=5, top_p=0.9, min_p=0.01)

WAITS = {"item", "is_nonzero", "nonzero", "equal", "lift_fresh", "masked_select", "repeat_interleave"}


class _Kept:
    """A tensor that is kept weakly: where it lies, and as what it is read."""

    def __init__(self, tensor: Tensor) -> None:
        self.memory = StorageWeakRef(tensor.untyped_storage())
        self.how = tensor.dtype, tensor.storage_offset(), tensor.shape, tensor.stride()

    def tensor(self) -> Tensor:
        assert not self.memory.expired(), "a graph reads memory that is gone"
        storage = torch.UntypedStorage._new_with_weak_ptr(self.memory.cdata)
        dtype, *place = self.how
        return torch.empty(0, dtype=dtype).set_(storage, *place)


class _Made:
    """What an operation of the graph gave, by its number."""

    def __init__(self, index: int) -> None:
        self.index = index


def _leaves(result: Any) -> list[Any]:
    return list(result) if isinstance(result, list | tuple) else [result]


class Recording(TorchDispatchMode):
    """The operations of one call."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[Any, Any, Any, list[int | None]]] = []
        self._made: dict[int, int] = {}
        self._alive: list[Any] = []

    def reference(self, tensor: Tensor) -> Any:
        if tensor.layout != torch.strided:  # weights as oneDNN packs them lie nowhere
            return tensor
        return _Made(self._made[id(tensor)]) if id(tensor) in self._made else _Kept(tensor)

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = operation.overloadpacket.__name__
        masked = name == "index" and any(x.dtype == torch.bool for x in args[1] if x is not None)
        assert name not in WAITS, f"{name} waits for the device"
        assert not masked, "a mask as an index waits for the device"
        given = tree_map_only(Tensor, self.reference, (args, kwargs or {}))
        result = operation(*args, **(kwargs or {}))
        numbers: list[int | None] = []
        for leaf in _leaves(result):
            fresh = isinstance(leaf, Tensor) and not any(leaf is x for x in tree_leaves((args, kwargs)))
            numbers.append(len(self._alive) if fresh else None)
            if fresh:
                self._made[id(leaf)] = len(self._alive)
                self._alive.append(leaf)  # so that no other tensor gets its id
        self.steps.append((operation, *given, numbers))
        return result

    def end(self) -> None:
        self._alive.clear()

    def play(self) -> dict[int, Tensor]:
        """Do all of it again."""
        made: dict[int, Tensor] = {}

        def value(given: Any) -> Any:
            if isinstance(given, list | tuple):
                return [value(each) for each in given]
            if isinstance(given, _Made):
                return made[given.index]
            return given.tensor() if isinstance(given, _Kept) else given

        for operation, args, kwargs, numbers in self.steps:
            result = operation(*value(args), **{name: value(given) for name, given in kwargs.items()})
            for leaf, number in zip(_leaves(result), numbers, strict=True):
                if number is not None:
                    made[number] = leaf
        return made


class Recorder:
    """A `vpoet.generate.graphed_step.Capture`."""

    def __init__(self) -> None:
        self.captured = self.replayed = 0

    def __call__(self, call: Callable[[], Outputs]) -> tuple[Outputs, Callable[[], None]]:
        self.captured += 1
        with Recording() as recording:
            outputs = call()
        where = [recording.reference(output) for output in outputs]
        recording.end()
        for output in outputs:  # a graph does nothing while it is captured
            output.fill_(-1)

        def replay() -> None:
            self.replayed += 1
            made = recording.play()
            for output, place in zip(outputs, where, strict=True):
                assert isinstance(place, _Made)
                output.copy_(made[place.index])

        return outputs, replay


@pytest.fixture(scope="module")
def transformer() -> Transformer:
    torch.manual_seed(0)
    config = TransformerConfig(width=16, depth=2, heads=4, kv_heads=2, hidden=24)
    network = Transformer(config, Vocabulary(20, (6, 4), "t", "v")).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.mul_(4 if parameter.dim() > 1 else 1)
    return network


def blank(cells: int, height: int, words: int = 3) -> Document:
    codes = np.zeros((cells, height, 4), np.int32)
    return TABLE["t2v"].document(Sample(np.arange(words, dtype=np.int32), codes, 8))


class Captured:
    """Decoding by captured steps, and by plain ones."""

    def __init__(
        self, transformer: Transformer, capture: Capture | None = None, through: CacheBackend = SDPA, **settings: Any
    ) -> None:
        self.recorder = Recorder()
        self.steps = GraphedSteps(capture or self.recorder, through, **settings)
        self.plain = partial(Decoding, transformer=transformer, attention=PACKED)
        self.graphed = partial(self.plain, through=through, build=self.steps, memory=self.steps.cache)

    def check(self, documents: list[Document], sampling: Sampling, guesses: int = 0, close: bool = False) -> None:
        wanted, found = (
            decode(how(guesses=guesses), documents, range(len(documents)), sampling)
            for how in (self.plain, self.graphed)
        )
        for one, other in zip(wanted, found, strict=True):
            assert one.document.equals(other.document)
            np.testing.assert_allclose(other.nats, one.nats, rtol=0, atol=1e-4 if close else 0)
        assert len({int(code) for one in wanted for code in one.document.codes().flat}) > 4


@pytest.fixture(autouse=True)
def short_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lengths that are captured are passed after a few steps."""
    monkeypatch.setattr(decoder, "TILE", 64)
    monkeypatch.setattr(graphed_step, "_LEAST", 64)


@pytest.mark.parametrize("sampling", [Sampling(), FILTERED], ids=["plain", "guided"])
def test_captured_steps_give_the_bits_of_plain_ones(transformer: Transformer, sampling: Sampling) -> None:
    """Past the first length that is captured, alone and in a batch, with and without guesses, and once more on a cache
    that is lent again, for another prompt and other settings."""
    both = Captured(transformer)
    long, short = blank(6, 4), [blank(3, 4, 7), blank(2, 2)]
    both.check([long], sampling)
    assert both.recorder.captured == 2  # 64 and 128 positions
    assert both.recorder.replayed == 95
    both.check([blank(6, 4, 5)], replace(sampling, temperature=0.5))
    assert both.recorder.captured == 2
    for guesses, captured in ((0, 3), (3, 5), (3, 5)):
        both.check(short, sampling, guesses)
        assert both.recorder.captured == captured


def test_a_kernel_that_is_told_lengths_is_captured_once_for_all(transformer: Transformer) -> None:
    """Here the oracle behind its interface, whose cache has room for guesses beyond the end, reads all of a slot."""
    told = CacheBackend(SDPA.through, TOKENS, by_length=True)
    both = Captured(transformer, through=told)
    both.check([blank(6, 4)], FILTERED, close=True)
    assert both.recorder.captured == 1
    both.check([blank(3, 4, 7), blank(2, 2)], Sampling(), 5, close=True)
    assert both.recorder.captured == 2


def test_a_kernel_that_takes_tokens_side_by_side_has_room_behind_the_last(transformer: Transformer) -> None:
    """Guesses stop at the clip's end, and a slot that fills its cache is read beyond."""
    every = (blank(2, h, n) for h in range(2, 6) for n in range(20))
    document = next(d for d in every if Plan.of(transformer, [d], False).size == 64)
    most = []

    def through(keys: list[Tensor], values: list[Tensor], place_NW: Tensor, reach_S: Tensor) -> Attend:
        most.append(int(place_NW[:, 0].max()) + place_NW.shape[1])
        assert most[-1] <= keys[0].shape[2]
        return SDPA.through(keys, values, place_NW, reach_S)

    how = Decoding(transformer=transformer, attention=PACKED, guesses=5)
    told = replace(how, through=CacheBackend(through, TOKENS, by_length=True))
    wanted, found = (decode(each, [document], [0])[0] for each in (how, told))
    assert found.document.equals(wanted.document)
    assert max(most) > 64


def test_lengths_that_are_captured_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphed_step, "_LEAST", 256)
    assert [rounded(n) for n in (1, 256, 257, 1024, 1025, 2048, 2049)] == [256, 256, 512, 1024, 1280, 2048, 2560]
    assert all(n <= rounded(n) <= max(n + 255, n * 1.25) for n in range(1, 20_000))
    assert len({rounded(n) for n in range(1, 32_769)}) == 24


@pytest.mark.parametrize("name", ["ids_BW", "turn_NW2P", "place_NW", "noise_MV", "settings"])
def test_an_input_that_is_not_copied_into_its_place_is_found(
    name: str, transformer: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each input in turn is read where it came from: memory that is gone by the next step, or holds what was."""
    index = list(inspect.signature(Step.forward).parameters).index(name) - 1
    both, latest, forward = Captured(transformer), [], Step.forward

    def build(*of: Any) -> Run:
        run = both.steps(*of)

        def leaky(*given: Any) -> Outputs:
            latest[:] = given
            return run(*given)

        return leaky

    def sneaking(step: Step, *inputs: Any) -> Outputs:
        return forward(step, *inputs[:index], latest[index] if latest else inputs[index], *inputs[index + 1 :])

    both.graphed = partial(both.graphed, build=build)
    monkeypatch.setattr(Step, "forward", sneaking)
    if name == "settings":  # they change between clips alone
        both.check([blank(2, 4)], replace(FILTERED, temperature=0.5))
        latest.clear()
    with pytest.raises(AssertionError):
        both.check([blank(2, 4)], FILTERED)


@pytest.mark.parametrize("read", [float, bool, lambda x: x[x > 0], torch.nonzero, lambda _: torch.tensor(1.0)])
def test_what_waits_for_the_device_cannot_be_captured(read: Callable[[Tensor], object]) -> None:
    with torch.inference_mode(), pytest.raises(AssertionError, match="waits for the device"):
        Recorder()(lambda: (torch.ones(1), torch.as_tensor(read(torch.ones(())))))


def test_a_cache_is_lent_again_once_its_decoder_is_gone_and_few_are_kept(transformer: Transformer) -> None:
    steps = GraphedSteps(Recorder(), SDPA)
    sizes: dict[str, Any] = {"layers": 1, "kv_heads": 2, "head": 4, "like": torch.empty(0)}
    one = steps.cache(size=64, slots=1, **sizes)
    other = steps.cache(size=60, slots=1, **sizes)
    places = [each.keys[0].data_ptr() for each in (one, other)]
    assert places[0] != places[1]
    one = None
    assert steps.cache(size=50, slots=1, **sizes).keys[0].data_ptr() == places[0]
    for slots in range(1, 10):
        steps.cache(size=64, slots=slots, **sizes)
    assert len(steps._rooms) == graphed_step._ROOMS + 1  # and that of `other`
    assert other.keys[0].data_ptr() in steps._rooms


def test_a_fork_goes_on_by_itself(transformer: Transformer) -> None:
    """Its cache is a copy, of which no graph knows: plain steps serve it."""
    both = Captured(transformer)
    sequence = build(blank(2, 2), transformer.vocabulary)
    decoder = Decoder(both.graphed(), [sequence], documents=1, size=len(sequence), sampling=Sampling())
    plain = Decoder(both.plain(), [sequence], documents=1, size=len(sequence), sampling=Sampling())
    noise = torch.from_numpy(gumbel(np.random.default_rng(0), 1, 10))
    at = np.array([[sequence.prefix]])
    turn = torch.stack(transformer.rotation(torch.from_numpy(sequence.positions[at[0]].astype(np.int64))), 1)[None]

    def step(one: Decoder, code: int) -> list[Tensor]:
        ids = torch.full((1, 1), transformer.ranges["codes"].start + code)
        return [*one.step(ids, turn, torch.from_numpy(at), sequence.prefix + 1, noise)]

    first, fork = step(decoder, 3), decoder.fork()
    assert both.recorder.replayed == 1
    other = step(fork, 5)
    assert both.recorder.replayed == 1
    again = step(decoder, 3)
    for found, code in ((first, 3), (other, 5), (again, 3)):
        assert all(torch.equal(a, b) for a, b in zip(found, step(plain, code), strict=True))


def test_texts_are_filled_by_plain_steps(transformer: Transformer) -> None:
    """A captured step draws codes alone."""
    text = Span(Modality.TEXT, np.zeros(0, np.int32), target=True)
    documents, both = [Document("interleaved", (text, *blank(2, 2).spans[1:]))], Captured(transformer)
    wanted, found = (decode(how(), documents, [0])[0] for how in (both.plain, both.graphed))
    assert found.document.equals(wanted.document)
    assert both.recorder.captured == 0


def test_blocks_are_compiled_once_for_all(transformer: Transformer) -> None:
    """What stands before and after attention and the draw, without a break; not once more for the next decoder."""
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    def again(call: Callable[[], Outputs]) -> tuple[Outputs, Callable[[], None]]:
        outputs = call()
        return outputs, lambda: [output.copy_(new) for output, new in zip(outputs, call(), strict=True)] and None

    torch._dynamo.reset()
    both = Captured(transformer, again, fuse=partial(torch.compile, backend=backend, dynamic=False, fullgraph=True))
    both.check([blank(2, 4)], FILTERED)
    assert len(graphs) == 3
    both.check([blank(5, 4, 9)], FILTERED)
    assert len(graphs) == 3
    torch._dynamo.reset()
