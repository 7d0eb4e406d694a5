"""Promises 1 and 2 for play, timelines and interleaved samples: a pack has the loss and the gradients of its documents
run alone, by kind; nothing comes from another document, nor from what follows. And what wrong actions cost."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from vpoet.nn.attention import backend
from vpoet.nn.nats import PackTensors
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.sequence.arrangements import Given, Sample, Segment
from vpoet.sequence.document import KINDS, Document, build, parse
from vpoet.sequence.packing import Pack, pack, unpack
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Vocabulary
from vpoet.training.engine.base import EngineConfig
from vpoet.training.engine.plain import TorchEngine
from vpoet.training.engine.ulysses import Share
from vpoet.training.loss import PackLoss, counts, heldout_losses, losses
from vpoet.training.optim import OptimizerConfig
from vpoet.training.wrong_keys import confused, wrong_key_bits

CPU = torch.device("cpu")
VOCABULARY = Vocabulary(20, (6, 4), "t", "v", appended=(("actions", 5), ("outcomes", 8)))
ACTION, OUTCOME, PLAY = (KINDS.index(name) for name in ("action", "outcome", "play"))
BIDIRECTIONAL = pytest.mark.parametrize("bidirectional", [False, True], ids=["causal", "prefix"])


def documents() -> list[Document]:
    random = np.random.default_rng(0)

    def codes(*shape: int) -> np.ndarray:
        return random.integers(0, 24, shape, dtype=np.int32)

    def words(n: int) -> np.ndarray:
        return random.integers(0, 20, n, dtype=np.int32)

    sample = Sample(
        words(4), codes(5, 2, 3), 8, actions=random.integers(1, 5, (4, 2), dtype=np.int32),
        outcomes=random.integers(2, 8, 4, dtype=np.int32), timeline=((0, words(2)), (3, words(5))),
    )  # fmt: skip
    parts = Segment(words(3)), Segment(codes(1, 2, 2)), Segment(words(4)), Segment(codes(2, 1, 3), 8)
    story = Sample(words(0), codes(0, 0, 0), 0, segments=parts)
    return [
        TABLE["play"].document(sample, Given(time=700)),
        TABLE["policy"].document(replace(sample, timeline=None)),
        TABLE["inverse"].document(sample, Given(stretch=(1, 4))),
        TABLE["timeline"].document(sample),
        TABLE["interleaved"].document(story, Given(produced=(False, True, True, True))),
        TABLE["t2v"].document(sample),
    ]


def row_of(documents: list[Document], bidirectional: bool = False, padding: int = 0) -> Pack:
    sequences = [build(document, VOCABULARY) for document in documents]
    return pack(sequences, sum(map(len, sequences)) + padding, bidirectional=bidirectional)


def loss_of() -> PackLoss:
    torch.manual_seed(0)
    transformer = Transformer(TransformerConfig(width=32, depth=2, heads=4, kv_heads=2, hidden=48), VOCABULARY)
    for parameter in transformer.parameters():
        parameter.data.mul_(3 if parameter.dim() > 1 else 1)  # attention and predictions far from uniform
    return PackLoss(transformer, backend("sdpa", CPU, torch.float32))


def gradients(loss: PackLoss, rows: list[Pack]) -> tuple[Tensor, list[Tensor]]:
    loss.zero_grad()
    total = torch.stack([loss(PackTensors.of(row, CPU)) for row in rows]).sum(0)
    total.sum().backward()
    return total.detach(), [p.grad.clone() if p.grad is not None else torch.zeros_like(p) for p in loss.parameters()]


@BIDIRECTIONAL
def test_packing_changes_neither_loss_nor_gradients_of_play(bidirectional: bool) -> None:
    loss, all_documents = loss_of(), documents()
    packed, packed_gradients = gradients(loss, [row_of(all_documents, bidirectional, padding=11)])
    alone, alone_gradients = gradients(loss, [row_of([document], bidirectional) for document in all_documents])
    assert (packed[1:] > 0).all(), "all kinds of token are predicted"
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=0)
    for (name, _), mine, theirs in zip(loss.named_parameters(), packed_gradients, alone_gradients, strict=True):
        scale = float(theirs.abs().max())
        assert scale > 0, name
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5 * max(1, scale), msg=name)


@BIDIRECTIONAL
def test_nothing_comes_across_a_border_of_play_nor_from_what_follows(bidirectional: bool) -> None:
    loss = loss_of()
    row = row_of(documents(), bidirectional, padding=4)
    tensors = PackTensors.of(row, CPU)
    embedded = loss.transformer.embed(tensors.ids_T).detach().requires_grad_()
    loss.transformer.embed = lambda ids_T: embedded  # type: ignore[method-assign]
    nats = loss.nats(tensors)
    bounds = np.cumsum((0, *row.lengths))
    for number, at in enumerate(np.flatnonzero(row.targets)):
        if number % 7:
            continue
        (gradient,) = torch.autograd.grad(nats[number], embedded, retain_graph=True)
        touched = gradient.abs().sum(-1) > 0
        start = bounds[np.searchsorted(bounds, at, side="right") - 1]
        assert bool(touched[start:at].all())
        assert not bool(touched[:start].any() | touched[at:].any())


def test_nats_of_actions_and_outcomes_are_those_of_a_softmax_over_their_range() -> None:
    loss, row = loss_of(), row_of(documents()[1:2])
    tensors = PackTensors.of(row, CPU)
    transformer = loss.transformer
    states = transformer(tensors.ids_T, tensors.positions_T3, loss.attention(tensors.visibility, CPU))
    nats, at = loss.nats(tensors), np.flatnonzero(row.targets)
    for kind, name in ((ACTION, "actions"), (OUTCOME, "outcomes")):
        mine = torch.from_numpy(row.kinds[at] == kind)
        log_p = (states @ transformer.appended[name].weight.T).log_softmax(-1)
        ids = torch.from_numpy(VOCABULARY.values(row.ids[at[mine]], name)).long()
        torch.testing.assert_close(nats[mine], -log_p[torch.from_numpy(at)[mine] - 1, ids])


def test_losses_of_play_have_names_of_their_own() -> None:
    row = row_of(documents())
    targets = counts(row)
    assert targets.tolist()[-3:] == [30 + 30, 4 * 2 + 2 * 2, 4 + 4]
    named = losses("train", loss_of()(PackTensors.of(row, CPU)).detach(), targets)
    assert {f"train/{kind}_{unit}" for kind in ("play", "action", "outcome") for unit in ("nats", "bits")} <= {*named}
    total = sum(
        named[f"train/{kind}_nats"] * count for kind, count in zip(KINDS, targets.tolist(), strict=True) if count
    )
    assert named["train/loss"] == pytest.approx(total / float(targets.sum()))


def test_confused_packs_have_another_action_at_every_step_and_nothing_else() -> None:
    row = row_of(documents(), padding=3)
    other = confused(row, VOCABULARY, 0)
    acted = (row.kinds == ACTION) & (row.ids != VOCABULARY.ids(0, "actions"))
    assert np.array_equal(row.ids != other.ids, acted)
    values = VOCABULARY.values(other.ids[acted], "actions")
    assert ((values >= 1) & (values <= 4)).all()
    assert (row.lengths, row.prefixes) == (other.lengths, other.prefixes)
    assert np.array_equal(other.ids, confused(row, VOCABULARY, 0).ids)
    assert not np.array_equal(other.ids, confused(row, VOCABULARY, 1).ids)
    for sequence in unpack(other):
        parse(sequence.ids, VOCABULARY)


def key_world(number: int, frames: int = 6) -> Document:
    """Each frame shows the key that led to it, in both of its cells."""
    random = np.random.default_rng(number)
    keys = random.integers(1, 5, (frames - 1, 1), dtype=np.int32)
    shown = np.concatenate([np.zeros((1, 1), np.int32), keys])
    codes = np.repeat(shown[:, :, None], 2, axis=2)
    sample = Sample(np.zeros(0, np.int32), codes, 8, actions=keys, outcomes=np.full(frames - 1, 3, np.int32))
    return TABLE["play"].document(sample)


def test_a_wrong_key_costs_nothing_at_first_and_bits_once_its_meaning_is_learnt() -> None:
    """In a world that shows the key: 2 bits and more a frame, as four keys are as likely."""
    trainer = TorchEngine(loss_of(), EngineConfig(dtype="fp32"), OptimizerConfig())
    share = Share(0, 1, 1)
    heldout = [row_of([key_world(number) for number in range(1000, 1004)])]

    def lost() -> float:
        right = heldout_losses(trainer, heldout, share)
        return wrong_key_bits(trainer, heldout, share, VOCABULARY, right)["heldout/wrong_key_bits"]

    assert abs(lost()) < 2
    for step in range(60):
        batch = PackTensors.of(row_of([key_world(8 * step + n) for n in range(8)]), CPU)
        trainer.step([batch], lambda nats: nats.sum() / len(batch.after_M), lr=1e-2)  # noqa: B023
    assert lost() > 4


def test_packs_without_play_have_no_such_figure() -> None:
    trainer = TorchEngine(loss_of(), EngineConfig(dtype="fp32"), OptimizerConfig())
    packs = [row_of(documents()[3:])]
    assert wrong_key_bits(trainer, packs, Share(0, 1, 1), VOCABULARY, {}) == {}
