"""The ring cache gives what the full pass gives, for ever, in memory that stays as it is."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vpoet.nn.attention import backend
from vpoet.nn.ring import RingCache, RingSizes
from vpoet.nn.rope import Rotation, rotations
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.nn.visibility import Visibility
from vpoet.sequence.vocabulary import Vocabulary

CPU = torch.device("cpu")
SDPA = backend("sdpa", CPU, torch.float32)
VOCABULARY = Vocabulary(20, (6, 4), "t", "v")
SINKS, TEXT, FRAME, WINDOW = (5, 3), 4, 3, 4
SIZES = RingSizes(max(SINKS), TEXT, WINDOW, FRAME)
Text = tuple[int, ...]
"""Tokens of a change of prompt, by slot."""


def model(kv_heads: int = 2, depth: int = 3) -> Transformer:
    torch.manual_seed(0)
    config = TransformerConfig(width=32, depth=depth, heads=4, kv_heads=kv_heads, hidden=48)
    transformer = Transformer(config, VOCABULARY)
    for parameter in transformer.parameters():
        parameter.data.mul_(4 if parameter.dim() > 1 else 1)  # so that attention is far from uniform
    return transformer.eval().requires_grad_(False)


class Document:
    """One slot's tokens: a sink, frames, and texts before some of them."""

    def __init__(self, slot: int, frames: int, texts: dict[int, Text]) -> None:
        self.parts = [("sink", 0, SINKS[slot])]
        for frame in range(frames):
            self.parts += [("text", frame, texts[frame][slot])] if frame in texts else []
            self.parts.append(("frame", frame, FRAME))
        self.bounds: list[int] = np.cumsum([0, *(count for _, _, count in self.parts)]).tolist()
        length = self.bounds[-1]
        self.ids = torch.from_numpy(np.random.default_rng(slot).integers(0, VOCABULARY.size, length))
        self.until = np.full(length, length, np.int32)
        self.starts = {(kind, number): at for (kind, number, _), at in zip(self.parts, self.bounds, strict=False)}
        positions = np.zeros((length, 3), np.int64)
        changes = [at for (kind, _), at in self.starts.items() if kind == "text"]
        for (kind, number, count), at in zip(self.parts, self.bounds, strict=False):
            here = slice(at, at + count)
            if kind == "frame":
                positions[here] = np.stack(np.broadcast_arrays(7 + number, [6, 7, 7], [6, 7, 8]), 1)
                self.until[here] = self.starts.get(("frame", number + WINDOW), length)
            else:
                positions[here] = (0 if kind == "sink" else 9 + number) + np.arange(count)[:, None]
            if kind == "text":
                self.until[here] = next((later for later in changes if later > at), length)
        self.positions = torch.from_numpy(positions)

    def full(self, transformer: Transformer) -> Tensor:
        visibility = Visibility((len(self.ids),), (0,), (self.until,))
        return transformer(self.ids, turned(transformer, self.positions), SDPA(visibility, CPU))


def turned(transformer: Transformer, positions: Tensor) -> Rotation:
    return rotations(positions.double(), transformer.config.head, transformer.config.rope_base)


def through(transformer: Transformer, documents: list[Document], width: int) -> list[Tensor]:
    """All states, by way of a ring: the sinks and the first token of the first frame as a pack, then texts whole, and
    frames ``width`` tokens at a time."""
    ring = RingCache(transformer.config, SIZES, slots=len(documents), like=torch.empty(0))
    columns = [one.ids for one in documents], [one.positions for one in documents]
    sinks = np.array([one.parts[0][2] for one in documents])
    lengths = tuple((sinks + 1).tolist())
    visibility = Visibility(lengths, (0,) * len(lengths))
    ids, positions = (torch.cat([x[:n] for x, n in zip(column, lengths, strict=True)]) for column in columns)
    attend = ring.prefill(visibility, SDPA(visibility, CPU), sinks)
    out = [[states] for states in transformer(ids, turned(transformer, positions), attend).split(lengths)]
    for number, (kind, frame, _) in enumerate(documents[0].parts[1:], 1):
        counts = [one.parts[number][2] for one in documents]
        done = int(number == 1)
        while done < max(counts):
            stop = max(counts) if kind == "text" else min(done + width, FRAME)
            # a slot whose text is shorter idles at its last token
            offset_NW = np.stack([np.minimum(np.arange(done, stop), count - 1) for count in counts])
            at_NW = torch.from_numpy(np.array([[one.bounds[number]] for one in documents]) + offset_NW)
            ids, positions = (torch.stack([x[at] for x, at in zip(column, at_NW, strict=True)]) for column in columns)
            attend = ring.attend_text(offset_NW) if kind == "text" else ring.attend_frame(offset_NW)
            states = transformer(ids.flatten(), turned(transformer, positions.flatten(0, 1)), attend)
            for mine, count, states_WD in zip(out, counts, states.view(*at_NW.shape, -1), strict=True):
                mine.append(states_WD[: count - done])
            done = stop
        ring.frames = frame + 1 if kind == "frame" else ring.frames
    return [torch.cat(states) for states in out]


@pytest.mark.parametrize("kv_heads", [4, 1])
@pytest.mark.parametrize("width", [1, 2, FRAME])
def test_over_ten_windows_and_changes_of_prompt_it_is_the_full_pass(width: int, kv_heads: int) -> None:
    transformer = model(kv_heads)
    documents = [Document(slot, 10 * WINDOW + 3, {2: (4, 2), 17: (1, 3), 18: (2, 2)}) for slot in range(2)]
    for found, one in zip(through(transformer, documents, width), documents, strict=True):
        wanted = one.full(transformer)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
        assert float(wanted.std()) > 0.3


def test_what_has_left_the_window_is_not_seen_and_what_has_not_is() -> None:
    transformer, frames = model(depth=1), 10 * WINDOW  # with more blocks, what saw it would tell of it
    document = Document(0, frames, {2: (4, 2), 17: (1, 3)})
    (before,) = through(transformer, [document], FRAME)

    def changes(part: tuple[str, int]) -> set[int]:
        """The frames whose states depend on the first token of a part."""
        kept = document.ids.clone()
        document.ids[document.starts[part]] = (kept[document.starts[part]] + 1) % VOCABULARY.size
        (after,) = through(transformer, [document], FRAME)
        document.ids = kept
        starts = {number: at for (kind, number), at in document.starts.items() if kind == "frame"}
        return {number for number, at in starts.items() if not torch.equal(after[at + 1], before[at + 1])}

    assert changes(("frame", 3)) == set(range(3, 3 + WINDOW))
    assert changes(("text", 2)) == set(range(2, 17))
    assert changes(("text", 17)) == set(range(17, frames))
    assert changes(("sink", 0)) == set(range(frames))


def test_far_from_the_beginning_angles_are_those_of_double_precision() -> None:
    """What is seen depends on distances alone: all positions moved by 100,000 change nothing, but for rounding."""
    transformer, document = model(), Document(0, 3 * WINDOW, {5: (2, 2)})
    (near,) = through(transformer, [document], FRAME)
    document.positions += 100_000
    (far,) = through(transformer, [document], FRAME)
    torch.testing.assert_close(far, near, rtol=0, atol=1e-4)
    visibility = Visibility((len(document.ids),), (0,), (document.until,))
    in_fp32 = transformer(document.ids, document.positions, SDPA(visibility, CPU))
    assert float((in_fp32 - near).abs().max()) > 3e-4


class Signature(TorchDispatchMode):
    """The operations that run, with the shapes of what goes in."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[tuple[int, ...]]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        flat = [x for arg in args for x in (arg if isinstance(arg, list | tuple) else [arg])]
        self.seen.append((str(func), [tuple(x.shape) for x in flat if isinstance(x, Tensor)]))
        return func(*args, **(kwargs or {}))


def test_memory_and_what_is_computed_stay_as_they_are_over_ten_thousand_frames() -> None:
    transformer = model()
    ring = RingCache(transformer.config, SIZES, slots=2, like=torch.empty(0))
    ring.sink_N = np.array(SINKS)
    q, kv = torch.randn(2 * FRAME, 4, 8), torch.randn(2 * FRAME, 2, 8)
    everywhere = np.tile(np.arange(FRAME), (2, 1))
    memory = [x.data_ptr() for x in (*ring.keys, *ring.values)]
    signatures = {}
    for frame in range(10_001):
        ring.frames = frame
        attend = ring.attend_frame(everywhere)
        attend(0, q, kv, kv)
        if frame in (0, WINDOW, 10_000):
            with Signature() as signature:
                positions = torch.zeros(2 * FRAME, 3, dtype=torch.double)
                transformer(torch.zeros(2 * FRAME, dtype=torch.long), turned(transformer, positions), attend)
            signatures[frame] = signature.seen
    assert signatures[0] == signatures[WINDOW] == signatures[10_000]
    assert [x.data_ptr() for x in (*ring.keys, *ring.values)] == memory
    assert sum(x.nbytes for x in (*ring.keys, *ring.values)) == 2 * 3 * 2 * 2 * SIZES.places * 8 * 4


def test_a_copy_goes_on_by_itself() -> None:
    ring = RingCache(model().config, SIZES, slots=1, like=torch.empty(0))
    q, kv = torch.randn(1, 4, 8), torch.randn(1, 2, 8)
    first = np.zeros((1, 1), np.int64)
    ring.attend_frame(first)(0, q, kv, kv)
    other = ring.copy()
    other.attend_frame(first)(0, q, kv + 1, kv + 1)
    other.frames = 1
    assert ring.frames == 0
    assert not torch.equal(ring.keys[0], other.keys[0])
