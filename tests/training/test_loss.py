"""The loss of a pack is that of its documents (promise 1), by kind, and no document has a gradient from another (2)."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vpoet.nn.attention import Backend, backend, flash_backend
from vpoet.nn.packed import PackTensors
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.sequence.document import IMAGE, KINDS, STRUCTURE, TEXT, VIDEO, Document, Span, build
from vpoet.sequence.packing import Pack, pack
from vpoet.sequence.tasks import TABLE, Sample
from vpoet.sequence.vocabulary import Modality, Vocabulary
from vpoet.training.loss import PackLoss, counts

CPU = torch.device("cpu")
VOCABULARY = Vocabulary(20, (6, 4), "t", "v")


def twin(q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens_q: Tensor, causal: bool, **_: object) -> Tensor:
    """``flash_attn_varlen_func`` in pure torch."""
    out = []
    for start, stop in zip(cu_seqlens_q[:-1].tolist(), cu_seqlens_q[1:].tolist(), strict=True):
        part = (x[start:stop].transpose(0, 1)[None] for x in (q, k, v))
        out.append(F.scaled_dot_product_attention(*part, is_causal=causal, enable_gqa=True)[0].transpose(0, 1))
    return torch.cat(out)


ATTENTION = pytest.mark.parametrize(
    "attention", [backend("sdpa", CPU, torch.float32), flash_backend(twin)], ids=["sdpa", "flash"]
)
BIDIRECTIONAL = pytest.mark.parametrize("bidirectional", [False, True], ids=["causal", "prefix"])


def documents() -> list[Document]:
    random = np.random.default_rng(0)

    def sample(words: int, cells: int) -> Sample:
        codes = random.integers(0, 24, (cells, 2, 3), dtype=np.int32)
        return Sample(random.integers(0, 20, words, dtype=np.int32), codes, fps=8)

    caption = Document(
        "t2v",
        (
            Span(Modality.VIDEO, sample(0, 2).codes, fps=8),
            Span(Modality.TEXT, random.integers(0, 20, 5, dtype=np.int32), target=True),
        ),
    )
    return [
        TABLE["t2v"].document(sample(4, 3), 0),
        TABLE["t2i"].document(sample(7, 1), 0),
        TABLE["i2v"].document(sample(0, 3), 1),
        TABLE["continuation"].document(sample(2, 3), 2),
        TABLE["unconditional"].document(sample(0, 2), 0),
        caption,
    ]


def row_of(documents: list[Document], bidirectional: bool, padding: int = 0) -> Pack:
    sequences = [build(document, VOCABULARY) for document in documents]
    return pack(sequences, sum(map(len, sequences)) + padding, bidirectional=bidirectional)


def loss_of(attention: Backend, kv_heads: int = 2) -> PackLoss:
    torch.manual_seed(0)
    config = TransformerConfig(width=32, depth=2, heads=4, kv_heads=kv_heads, hidden=48)
    loss = PackLoss(Transformer(config, VOCABULARY), attention)
    for parameter in loss.parameters():
        parameter.data.mul_(3 if parameter.dim() > 1 else 1)  # attention and predictions far from uniform
    return loss


def gradients(loss: PackLoss, rows: list[Pack]) -> tuple[Tensor, list[Tensor]]:
    loss.zero_grad()
    total = torch.stack([loss(PackTensors.of(row, CPU)) for row in rows]).sum(0)
    total.sum().backward()
    return total.detach(), [p.grad.clone() if p.grad is not None else torch.zeros_like(p) for p in loss.parameters()]


@ATTENTION
@BIDIRECTIONAL
def test_packing_changes_neither_loss_nor_gradients(attention: Backend, bidirectional: bool) -> None:
    loss, all_documents = loss_of(attention), documents()
    packed, packed_gradients = gradients(loss, [row_of(all_documents, bidirectional, padding=11)])
    alone, alone_gradients = gradients(loss, [row_of([document], bidirectional) for document in all_documents])
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=0)
    for (name, _), mine, theirs in zip(loss.named_parameters(), packed_gradients, alone_gradients, strict=True):
        scale = float(theirs.abs().max())
        assert scale > 0, name
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5 * max(1, scale), msg=name)


@BIDIRECTIONAL
def test_the_backends_give_one_loss(bidirectional: bool) -> None:
    row = PackTensors.of(row_of(documents(), bidirectional, padding=5), CPU)
    sdpa, flash = (
        loss_of(attention).nats(row) for attention in (backend("sdpa", CPU, torch.float32), flash_backend(twin))
    )
    torch.testing.assert_close(sdpa, flash, rtol=0, atol=1e-5)


@ATTENTION
@BIDIRECTIONAL
def test_the_gradient_across_a_border_is_exactly_zero(attention: Backend, bidirectional: bool) -> None:
    loss, all_documents = loss_of(attention), documents()
    row = row_of(all_documents, bidirectional, padding=4)
    tensors = PackTensors.of(row, CPU)
    embedded = loss.transformer.embed(tensors.ids_T).detach().requires_grad_()
    loss.transformer.embed = lambda ids_T: embedded  # type: ignore[method-assign]
    nats = loss.nats(tensors)
    bounds = np.cumsum((0, *row.lengths))
    owner = np.searchsorted(bounds, np.flatnonzero(row.targets), side="right") - 1
    for document in range(len(all_documents)):
        (gradient,) = torch.autograd.grad(nats[torch.from_numpy(owner == document)].sum(), embedded, retain_graph=True)
        touched = gradient.abs().sum(-1) > 0
        inside = slice(bounds[document], bounds[document + 1])
        assert bool(touched[inside].any())
        touched[inside] = False
        assert not bool(touched.any())


def test_a_prediction_never_depends_on_what_it_predicts_or_on_what_follows() -> None:
    for bidirectional in (False, True):
        loss = loss_of(backend("sdpa", CPU, torch.float32))
        row = row_of([documents()[0]], bidirectional)
        tensors = PackTensors.of(row, CPU)
        embedded = loss.transformer.embed(tensors.ids_T).detach().requires_grad_()
        loss.transformer.embed = lambda ids_T, embedded=embedded: embedded  # type: ignore[misc]
        for nats, at in zip(loss.nats(tensors), np.flatnonzero(row.targets), strict=True):
            (gradient,) = torch.autograd.grad(nats, embedded, retain_graph=True)
            touched = gradient.abs().sum(-1) > 0
            assert bool(touched[:at].all())
            assert not bool(touched[at:].any())


def test_losses_by_kind_add_up_and_divide_by_their_counts() -> None:
    row = row_of(documents(), False, padding=9)
    loss = loss_of(backend("sdpa", CPU, torch.float32))
    tensors = PackTensors.of(row, CPU)
    sums, nats, number = loss(tensors).detach(), loss.nats(tensors).detach(), counts(row)
    # t2v 3x2x3, i2v 2x2x3, continuation 1x2x3, unconditional 2x2x3; an image of 2x3; five pieces and the closing token
    assert number.tolist() == [0, 6, 6, 48]
    assert int(number.sum()) == len(nats) == int(row.targets.sum())
    assert sums.dtype == torch.float32
    torch.testing.assert_close(sums.sum(), nats.sum())
    for kind in range(len(KINDS)):
        torch.testing.assert_close(sums[kind], nats[tensors.kinds_M == kind].sum())
    assert float(sums[STRUCTURE]) == 0
    assert min(float(sums[kind]) for kind in (TEXT, IMAGE, VIDEO)) > 0


def test_nats_are_those_of_the_softmax_written_out() -> None:
    """Flat head, one document: -log softmax of the state before each code, at that code."""
    vocabulary = Vocabulary(20, (24,), "t", "v")
    torch.manual_seed(0)
    transformer = Transformer(TransformerConfig(width=32, depth=2, heads=4, kv_heads=4, hidden=48), vocabulary)
    sequence = build(documents()[0], vocabulary)
    row = pack([sequence], len(sequence))
    loss = PackLoss(transformer, backend("sdpa", CPU, torch.float32))
    tensors = PackTensors.of(row, CPU)
    states = transformer(tensors.ids_T, tensors.positions_T3, loss.attention(tensors.visibility, CPU))
    log_p = (states @ transformer.visual.logits_of[0].weight.T).log_softmax(-1)
    at = np.flatnonzero(row.targets)
    codes = torch.from_numpy(vocabulary.to_codes(row.ids[at])).long()
    torch.testing.assert_close(loss.nats(tensors), -log_p[at - 1, codes])


def test_a_pack_without_text_or_without_visual_targets_has_a_gradient_for_every_weight_of_the_visual_head() -> None:
    """Sharded weights are gathered by all processes or by none."""
    *_, caption = documents()
    loss = loss_of(backend("sdpa", CPU, torch.float32))
    loss(PackTensors.of(row_of([caption], False), CPU)).sum().backward()
    assert all(p.grad is not None for p in loss.transformer.visual.parameters())


def test_the_loss_falls_when_a_pack_is_learned_by_heart() -> None:
    loss, row = loss_of(backend("sdpa", CPU, torch.float32)), PackTensors.of(row_of(documents(), True), CPU)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)
    losses = []
    for _ in range(80):
        optimizer.zero_grad()
        total = loss(row).sum()
        total.backward()
        optimizer.step()
        losses.append(float(total.detach()))
    assert losses[-1] < 0.1 * losses[0]
