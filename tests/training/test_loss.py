"""The loss of a pack is that of its documents (promise 1), by kind, and no document has a gradient from another (2)."""

import shutil
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vpoet.nn.attention import backend
from vpoet.nn.flash_attention import flash_backend
from vpoet.nn.nats import CHUNK, PackTensors
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.nn.visibility import Attend, Backend, Visibility
from vpoet.sequence.arrangements import Given, Sample
from vpoet.sequence.document import KINDS, STRUCTURE, Document, Span, build
from vpoet.sequence.packing import Pack, pack
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Modality, Vocabulary
from vpoet.sequence.windows import windowed
from vpoet.training.engine.ulysses import Share
from vpoet.training.loss import PackLoss, counts, heldout_losses, losses

TEXT, IMAGE, VIDEO = (KINDS.index(name) for name in ("text", "image", "video"))

CPU = torch.device("cpu")
VOCABULARY = Vocabulary(20, (6, 4), "t", "v")
SDPA = backend("sdpa", CPU, torch.float32)


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
        TABLE["t2v"].document(sample(4, 3)),
        TABLE["t2i"].document(sample(7, 1)),
        TABLE["i2v"].document(sample(0, 3), Given(1)),
        TABLE["continuation"].document(sample(2, 3), Given(2)),
        TABLE["unconditional"].document(sample(0, 2)),
        caption,
    ]


def row_of(documents: list[Document], bidirectional: bool, padding: int = 0, window: int = 0) -> Pack:
    sequences = [windowed(build(document, VOCABULARY), document, window) for document in documents]
    return pack(sequences, sum(map(len, sequences)) + padding, bidirectional=bidirectional)


def loss_of(attention: Backend, kv_heads: int = 2, **options: float) -> PackLoss:
    torch.manual_seed(0)
    config = TransformerConfig(width=32, depth=2, heads=4, kv_heads=kv_heads, hidden=48)
    loss = PackLoss(Transformer(config, VOCABULARY), attention, **options)
    for parameter in loss.parameters():
        parameter.data.mul_(3 if parameter.dim() > 1 else 1)  # attention and predictions far from uniform
    return loss


def gradients(loss: PackLoss, rows: list[Pack]) -> tuple[Tensor, list[Tensor]]:
    loss.zero_grad()
    total = torch.stack([loss(PackTensors.of(row, CPU)) for row in rows]).sum(0)
    total.sum().backward()
    return total.detach(), [p.grad.clone() if p.grad is not None else torch.zeros_like(p) for p in loss.parameters()]


def packed_and_alone(attention: Backend, bidirectional: bool, tolerance: float = 1e-5, window: int = 0) -> None:
    """Promise 1: AssertionError unless a pack has the loss and the gradients of its documents run alone with sdpa."""
    all_documents = documents()
    loss, alone_loss = loss_of(attention), loss_of(SDPA)
    packed, packed_gradients = gradients(loss, [row_of(all_documents, bidirectional, padding=11, window=window)])
    rows = [row_of([document], bidirectional, window=window) for document in all_documents]
    alone, alone_gradients = gradients(alone_loss, rows)
    torch.testing.assert_close(packed, alone, rtol=tolerance, atol=0)
    for (name, _), mine, theirs in zip(loss.named_parameters(), packed_gradients, alone_gradients, strict=True):
        scale = float(theirs.abs().max())
        assert scale > 0, name
        torch.testing.assert_close(mine, theirs, rtol=0, atol=tolerance * max(1, scale), msg=name)


@ATTENTION
@BIDIRECTIONAL
def test_packing_changes_neither_loss_nor_gradients(attention: Backend, bidirectional: bool) -> None:
    packed_and_alone(attention, bidirectional)


@BIDIRECTIONAL
def test_packing_changes_nothing_with_a_window_either(bidirectional: bool) -> None:
    packed_and_alone(SDPA, bidirectional, window=1)
    windows = row_of(documents(), bidirectional, window=1)
    assert Visibility.of(windows).pairs < Visibility(windows.lengths, windows.prefixes).pairs


@ATTENTION
@BIDIRECTIONAL
def test_packing_changes_neither_loss_nor_gradients_in_bf16(attention: Backend, bidirectional: bool) -> None:
    """Products are rounded to 2^-9, and a pack's are summed in another order: 0.2% of a loss, and of a gradient's
    largest value 4%."""
    with torch.autocast("cpu", torch.bfloat16):
        all_documents, loss = documents(), loss_of(attention)
        packed, packed_gradients = gradients(loss, [row_of(all_documents, bidirectional, padding=11)])
        alone, alone_gradients = gradients(loss, [row_of([document], bidirectional) for document in all_documents])
    torch.testing.assert_close(packed, alone, rtol=2e-3, atol=0)
    for (name, _), mine, theirs in zip(loss.named_parameters(), packed_gradients, alone_gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0.04 * float(theirs.abs().max()), msg=name)


WRONG = {
    "a neighbour is seen": lambda v: Visibility((v.lengths[0] + v.lengths[1], *v.lengths[2:]), (0, *v.prefixes[2:])),
    "borders are one token late": lambda v: Visibility(
        (v.lengths[0] + 1, v.lengths[1] - 1, *v.lengths[2:]), v.prefixes
    ),
    "a prefix is one token too long": lambda v: Visibility(v.lengths, (v.prefixes[0] + 1, *v.prefixes[1:])),
    "a prefix is read one way": lambda v: Visibility(v.lengths, (*v.prefixes[:2], 0, *v.prefixes[3:])),
    "all see the future": lambda v: Visibility(v.lengths, v.lengths),
    "windows are not looked at": lambda v: Visibility(v.lengths, v.prefixes),
    "windows are another document's": lambda v: Visibility(
        v.lengths, v.prefixes, tuple(np.arange(1, n + 1) + n // 2 for n in v.lengths)
    ),
}


@pytest.mark.parametrize("fault", WRONG)
def test_the_comparison_of_packed_and_alone_finds_a_wrong_mask(fault: str) -> None:
    def wrong(visibility: Visibility, device: torch.device) -> Attend:
        return SDPA(WRONG[fault](visibility), device)

    window = int(fault.startswith("windows"))
    packed_and_alone(SDPA, True, window=window)
    with pytest.raises(AssertionError, match="not close"):
        packed_and_alone(wrong, True, window=window)


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="FlexAttention needs a C++ compiler")
@BIDIRECTIONAL
def test_flex_gives_a_pack_the_nats_of_its_documents_run_alone(bidirectional: bool) -> None:
    """Forward: FlexAttention has no backward pass on a CPU."""
    all_documents = documents()
    with torch.no_grad():
        packed = loss_of(backend("flex", CPU, torch.float32)).nats(
            PackTensors.of(row_of(all_documents, bidirectional, padding=11), CPU)
        )
        alone = [loss_of(SDPA).nats(PackTensors.of(row_of([one], bidirectional), CPU)) for one in all_documents]
    torch.testing.assert_close(packed, torch.cat(alone), rtol=0, atol=1e-4)


def written_out(loss: PackLoss, tensors: PackTensors, z_loss: float) -> tuple[Tensor, Tensor]:
    """-log p of the predicted tokens from whole logits, and ``z_loss`` times log(Z)^2 of every softmax, summed."""
    transformer = loss.transformer
    states = transformer(tensors.ids_T, tensors.positions_T3, SDPA(tensors.visibility, CPU))[tensors.before_M]
    is_text = tensors.kinds_M == TEXT
    text_logits = states[is_text] @ transformer.text_rows().T
    first = VOCABULARY.language - VOCABULARY.text
    choice = torch.where(tensors.after_M < first, 0, tensors.after_M - first + 1)[is_text]
    digits = transformer.visual.digits(tensors.after_M[~is_text] - VOCABULARY.language)
    head = transformer.visual
    _, second = head.following(1, states[~is_text], digits[0])
    softmaxes = ((text_logits, choice), (head.first(states[~is_text]), digits[0]), (second, digits[1]))
    nats = [logits.logsumexp(-1) - logits.gather(1, at[:, None])[:, 0] for logits, at in softmaxes]
    z = sum(logits.logsumexp(-1).square().sum() for logits, _ in softmaxes)
    return torch.stack([part.sum() for part in nats]).sum(), z_loss * z


@BIDIRECTIONAL
@pytest.mark.parametrize("z_loss", [0.0, 0.01])
@pytest.mark.parametrize("chunk", [CHUNK, 64, 128])
def test_chunks_filled_rows_and_z_loss_give_what_is_written_out(chunk: int, z_loss: float, bidirectional: bool) -> None:
    """The reported nats are free of the z-loss, the gradients have it; chunks and the rows that fill them leave no
    trace in either."""
    tensors = PackTensors.of(row_of(documents(), bidirectional, padding=30), CPU)
    loss = loss_of(SDPA, z_loss=z_loss, chunk=chunk)
    assert len(tensors.ids_T) > 128
    assert len(tensors.after_M) % 64
    nats, penalty = written_out(loss, tensors, z_loss)
    wanted = torch.autograd.grad(nats + penalty, list(loss.parameters()))
    found = loss(tensors).sum()
    torch.testing.assert_close(found, nats, rtol=1e-6, atol=0)
    for (name, _), mine, theirs in zip(
        loss.named_parameters(), torch.autograd.grad(found, list(loss.parameters())), wanted, strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5 * max(1, float(theirs.abs().max())), msg=name)
    if z_loss:
        assert float(penalty.detach()) > 1
        assert torch.equal(loss(tensors), loss_of(SDPA, chunk=chunk)(tensors))


class Sizes(TorchDispatchMode):
    """Elements of the largest tensor that any operation gives."""

    largest = 0

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        out = function(*args, **(kwargs or {}))
        tensors = [x for x in torch.utils._pytree.tree_leaves(out) if isinstance(x, Tensor)]
        self.largest = max([self.largest, *(x.numel() for x in tensors)])
        return out


@pytest.mark.parametrize("flat", [True, False], ids=["codes", "text"])
def test_no_more_logits_than_a_chunks_exist_at_a_time(flat: bool) -> None:
    """Forward and backward, for a vocabulary in which they would be larger than everything else."""
    pieces, codes = (20, 5000) if flat else (5000, 20)
    vocabulary, length, chunk = Vocabulary(pieces, (codes,), "t", "v"), 1000, 128
    if flat:
        document = TABLE["unconditional"].document(Sample(np.empty(0, int), np.zeros((1, 30, 30), int), 0))
    else:
        document = Document("t2v", (Span(Modality.TEXT, np.zeros(900, np.int32), target=True),))
    row = PackTensors.of(pack([build(document, vocabulary)], length), CPU)
    transformer = Transformer(TransformerConfig(width=8, depth=1, heads=2, kv_heads=2, hidden=8), vocabulary)
    largest = {}
    for size in (chunk, 1024):
        with Sizes() as sizes:
            PackLoss(transformer, SDPA, chunk=size)(row).sum().backward()
        largest[size] = sizes.largest
    assert largest[chunk] <= 128 * 5001
    assert largest[1024] >= 900 * 5000  # the measure sees logits


def test_heads_are_given_few_shapes() -> None:
    """oneDNN keeps the bf16 kernels of each shape: 400 numbers of tokens took 1.2 GB, and take 50 MB so."""
    loss, rows = loss_of(SDPA), set()
    for module in (*loss.transformer.visual.logits_of, *loss.transformer.visual.mixers):
        module.register_forward_pre_hook(lambda _, inputs: rows.add(len(inputs[0])))
    for cells in range(1, 20):
        sample = Sample(np.zeros(3, int), np.zeros((cells, 2, 3), int), fps=8)
        row = pack([build(TABLE["unconditional"].document(sample), VOCABULARY)], 160)
        loss(PackTensors.of(row, CPU))
    assert rows == {64, 128}


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
    assert number.tolist() == [0, 6, 6, 48, 0, 0, 0]
    assert int(number.sum()) == len(nats) == int(row.targets.sum())
    assert sums.dtype == torch.float32
    torch.testing.assert_close(sums.sum(), nats.sum())
    for kind in range(len(KINDS)):
        torch.testing.assert_close(sums[kind], nats[tensors.kinds_M == kind].sum())
    assert float(sums[STRUCTURE]) == 0
    assert min(float(sums[kind]) for kind in (TEXT, IMAGE, VIDEO)) > 0


def test_a_process_without_a_pack_held_out_adds_nothing_to_the_others() -> None:
    """Of four processes and three packs the last one's pass is there for sharded weights alone."""
    rows = [row_of(documents(), False)] * 3
    others = iter((6.0, 2.0))  # nats and predicted tokens of the other three, by kind

    def total(values: Tensor) -> Tensor:
        assert not values.any(), "nothing of its own"
        return values.add_(next(others))

    trainer = SimpleNamespace(device=torch.device("cpu"), evaluate=lambda _: torch.ones(len(KINDS)), total=total)
    found = heldout_losses(trainer, rows, Share(3, 4, 1))  # type: ignore[arg-type]
    assert found["heldout/loss"] == 3


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
    codes = torch.from_numpy(vocabulary.values(row.ids[at], "codes")).long()
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


class OneOfTwo:
    """What `heldout_losses` asks of a trainer, of two processes of which the other one's sums are told."""

    device = CPU

    def __init__(self, loss: PackLoss, others: list[Tensor]) -> None:
        self.loss, self.others = loss, others

    def evaluate(self, tensors: PackTensors) -> Tensor:
        return self.loss(tensors).detach()

    def total(self, values: Tensor) -> Tensor:
        values += self.others.pop(0)  # in place, as a sum over processes is
        return values


def test_held_out_losses_count_each_pack_once_also_where_a_process_has_none() -> None:
    loss, row = loss_of(SDPA), row_of(documents(), False)
    sums = loss(PackTensors.of(row, CPU)).detach().double()
    wanted = losses("heldout", sums, counts(row))
    without_packs = OneOfTwo(loss, [sums, counts(row)])
    assert heldout_losses(without_packs, [row], Share(1, 2, 1)) == wanted  # type: ignore[arg-type]
    with_all = OneOfTwo(loss, [torch.zeros(len(KINDS)), torch.zeros(len(KINDS))])
    assert heldout_losses(with_all, [row], Share(0, 2, 1)) == wanted  # type: ignore[arg-type]
