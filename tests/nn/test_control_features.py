"""What controls add: nothing at strength 0 or at the start, the same alone and in a pack, where they concern it."""

import numpy as np
import pytest
import torch

from vpoet.errors import ConfigError
from vpoet.nn.attention import backend
from vpoet.nn.control import places
from vpoet.nn.flash_attention import flash_backend
from vpoet.nn.nats import PackTensors, pack_nats
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.nn.visibility import Backend
from vpoet.sequence.arrangements import Given, Sample
from vpoet.sequence.controls import KINDS, Control
from vpoet.sequence.document import Document, build
from vpoet.sequence.packing import Pack, pack
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Vocabulary

CPU = torch.device("cpu")
VOCABULARY = Vocabulary(20, (6, 4), "t", "v", levels=(3, 2, 4))
SDPA = backend("sdpa", CPU, torch.float32)
SIZES = {"width": 16, "depth": 3, "heads": 2, "kv_heads": 1, "hidden": 24}


def varlen(q, k, v, *, cu_seqlens_q, causal, **_):
    """``flash_attn_varlen_func`` in pure torch."""
    out = []
    for start, stop in zip(cu_seqlens_q[:-1].tolist(), cu_seqlens_q[1:].tolist(), strict=True):
        part = (x[start:stop].transpose(0, 1)[None] for x in (q, k, v))
        made = torch.nn.functional.scaled_dot_product_attention(*part, is_causal=causal, enable_gqa=True)
        out.append(made[0].transpose(0, 1))
    return torch.cat(out)


BACKENDS = {
    "sdpa": SDPA,
    "flash": flash_backend(varlen),
    "products": backend("products", CPU, torch.float32),
}


def network(learned: bool = True, **sizes) -> Transformer:
    torch.manual_seed(0)
    found = Transformer(TransformerConfig(**{**SIZES, "controls": ["edges", "depth"], **sizes}), VOCABULARY)
    for features in found.controls.values() if learned else ():
        torch.nn.init.normal_(features.out.weight, std=0.1)
    return found


def documents(strength: float = 1.0, seed: int = 1) -> list[Document]:
    random = np.random.default_rng(0)
    told = np.random.default_rng(seed)

    def document(task: str, kinds: str, given: Given = Given()) -> Document:
        codes = random.integers(0, 24, (3, 2, 3), dtype=np.int32)
        plain = TABLE[task].document(Sample(random.integers(0, 20, 4, dtype=np.int32), codes, 8), given)
        known = tuple(
            Control(kind, told.integers(0, 24, codes.shape, dtype=np.int32), strength) for kind in kinds.split()
        )
        return Document(plain.task, plain.spans, controls=known)

    return [
        document("t2v", "edges depth"),
        document("t2i", "edges"),
        document("continuation", "depth", Given(2)),
        document("unconditional", ""),
    ]


def row_of(some: list[Document], bidirectional: bool = False) -> Pack:
    sequences = [build(document, VOCABULARY) for document in some]
    return pack(sequences, sum(map(len, sequences)) + 5, bidirectional=bidirectional)


def nats(transformer: Transformer, attention: Backend, some: list[Document], bidirectional: bool = False):
    return pack_nats(transformer, attention, PackTensors.of(row_of(some, bidirectional), CPU))


@pytest.mark.parametrize("attention", BACKENDS)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["causal", "prefix"])
def test_a_pack_is_its_documents_alone(attention: str, bidirectional: bool) -> None:
    """Losses, and the gradients of all weights."""
    transformer, some = network(), documents()
    packed = nats(transformer, BACKENDS[attention], some, bidirectional)
    packed.sum().backward()
    gradients = {
        name: weight.grad.clone() for name, weight in transformer.named_parameters() if weight.grad is not None
    }
    transformer.zero_grad()
    alone = torch.cat([nats(transformer, SDPA, [each], bidirectional) for each in some])
    alone.sum().backward()
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-5)
    for name, weight in transformer.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(gradients[name], weight.grad, atol=1e-4, rtol=1e-4)
    assert all(f"controls.{kind}.near.weight" in gradients for kind in ("edges", "depth"))


def test_strength_0_and_the_start_are_the_model_without_controls() -> None:
    bare = [Document(each.task, each.spans) for each in documents()]
    for learned, strength in ((True, 0.0), (False, 1.0)):
        transformer = network(learned)
        assert torch.equal(nats(transformer, SDPA, documents(strength)), nats(transformer, SDPA, bare))
    transformer = network()
    plain = Transformer(TransformerConfig(**SIZES), VOCABULARY)
    plain.load_state_dict({name: w for name, w in transformer.state_dict().items() if not name.startswith("controls.")})
    assert torch.equal(nats(transformer, SDPA, bare), nats(plain, SDPA, bare))
    assert not torch.allclose(nats(transformer, SDPA, documents()), nats(transformer, SDPA, bare), atol=0.1)


def test_strength_multiplies_and_kinds_add() -> None:
    transformer = network()

    def added(some: Document) -> torch.Tensor:
        row = row_of([some])
        found = transformer.control(PackTensors.of(row, CPU).controls, len(row))
        assert found is not None
        return found

    both = documents()[0]
    edges, depth = (Document(both.task, both.spans, controls=(control,)) for control in both.controls)
    torch.testing.assert_close(added(both), added(edges) + added(depth))
    half = Document(both.task, both.spans, controls=(Control("edges", edges.controls[0].codes, 0.5),))
    torch.testing.assert_close(added(half), added(edges) / 2)
    assert added(both).shape == (2, len(row_of([both])), 16)
    sequence = build(both, VOCABULARY)
    assert sequence.controls is not None
    told = np.zeros(len(row_of([both])), np.bool_)
    told[sequence.controls.at] = True
    assert np.array_equal((added(both) != 0).any(2).any(0).numpy(), told)


def test_a_cell_of_a_control_reaches_the_cells_around_it_and_later_ones_alone() -> None:
    """It is known before it is drawn, so it reaches back, too: one row, one column, one cell of time."""
    transformer, plain = network(), documents()[0]
    codes = plain.controls[0].codes.copy()
    codes[2, 1, 2] = (codes[2, 1, 2] + 1) % 24
    other = Document(plain.task, plain.spans, controls=(Control("edges", codes), plain.controls[1]))
    one, two = (nats(transformer, SDPA, [each]).view(3, 2, 3) for each in (plain, other))
    changed = (one != two).detach().numpy()
    assert not changed[0].any()
    assert not changed[1, 0, 0]
    assert changed[1, 0, 1]
    assert changed[2, 1, 2]


def test_a_piece_of_a_pack_has_its_own() -> None:
    """As for sequence parallelism: the pieces together are the whole."""
    transformer, row = network(), PackTensors.of(row_of(documents()), CPU)
    whole = transformer.control(row.controls, len(row.ids_T))
    length = len(row.ids_T) // 3
    parts = []
    for first in range(0, len(row.ids_T), length):
        piece = row.piece(first, min(length, len(row.ids_T) - first))
        parts.append(transformer.control(piece.controls, len(piece.ids_T)))
    torch.testing.assert_close(torch.cat(parts, 1), whole)


def test_a_pack_without_controls_still_reads_all_weights() -> None:
    """Processes that share weights out gather them together, whatever their packs hold."""
    transformer = network()
    bare = [Document(each.task, each.spans) for each in documents()]
    nats(transformer, SDPA, bare).sum().backward()
    for name, weight in transformer.controls.named_parameters():
        assert weight.grad is not None, name
        assert not weight.grad.any(), name


def test_codes_are_read_as_points_whose_digits_are_numbers_and_else_as_they_are_embedded() -> None:
    seen = network().controls._seen(torch.tensor([0, 23, 1, 3]), lambda codes: codes.new_zeros(1).float())
    expected = [[-1, -1, -1, 1], [1, 1, 1, 1], [0, -1, -1, 1], [-1, 1, -1, 1]]
    torch.testing.assert_close(seen, torch.tensor(expected, dtype=torch.float32))
    plain = Vocabulary(20, (6, 4), "t", "v", levels=(24,))
    assert (plain.hash, plain) == (VOCABULARY.hash, VOCABULARY)  # a model of one reads what was made for the other
    embedded = Transformer(TransformerConfig(**SIZES, controls=["edges"]), plain)
    torch.nn.init.normal_(embedded.controls["edges"].out.weight, std=0.1)
    (one,) = (Document(each.task, each.spans, controls=each.controls) for each in documents()[1:2])
    codes = (one.controls[0].codes + 1) % 24
    other = Document(one.task, one.spans, controls=(Control("edges", codes),))
    assert not torch.allclose(nats(embedded, SDPA, [one]), nats(embedded, SDPA, [other]), atol=1e-3)


def test_places_are_three_depths_and_kinds_are_known() -> None:
    assert [places(depth) for depth in (1, 2, 3, 4, 24)] == [(0,), (1,), (1, 2), (1, 2, 3), (1, 8, 16)]
    with pytest.raises(ConfigError, match=f"no kind 'heat'; there are {KINDS[0]}"):
        TransformerConfig(controls=["heat"])
    with pytest.raises(ConfigError, match="a kind comes twice"):
        TransformerConfig(controls=["edges", "edges"])
