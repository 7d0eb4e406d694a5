"""Documents of any targets: what is drawn has the model's distribution, and its nats are the training loss's."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from vpoet.errors import VpoetWarning
from vpoet.generate import in_order
from vpoet.generate.decode import decode
from vpoet.generate.decoder import Decoding
from vpoet.generate.logits import guide
from vpoet.generate.plan import Decoded
from vpoet.generate.sampling import Sampling
from vpoet.nn.attention import backend
from vpoet.nn.nats import PackTensors
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.sequence.actions import ActionSpace
from vpoet.sequence.arrangements import Given, Sample
from vpoet.sequence.document import Document, Part, Span, build, parse
from vpoet.sequence.packing import pack
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Modality, Vocabulary
from vpoet.sequence.windows import windowed
from vpoet.training.loss import PackLoss

CPU = torch.device("cpu")
SDPA = backend("sdpa", CPU, torch.float32)
SPACE = ActionSpace(names=["left", "right", "jump"])
VOCABULARY = SPACE.vocabulary(Vocabulary(5, (6, 4), "t", "v"))
LONGEST = 12
UNENDED = pytest.mark.filterwarnings("ignore:a text was not ended:vpoet.errors.VpoetWarning")


def model() -> Transformer:
    torch.manual_seed(0)
    config = TransformerConfig(width=32, depth=2, heads=4, kv_heads=2, hidden=48)
    transformer = Transformer(config, VOCABULARY).eval().requires_grad_(False)
    for parameter in transformer.parameters():
        parameter.mul_(4 if parameter.dim() > 1 else 1)  # sharp predictions that depend on what came before
    return transformer


def text(*pieces: int, target: bool = False) -> Span:
    return Span(Modality.TEXT, np.array(pieces, np.int32), target)


def visual(cells: int, fps: int = 0, target: bool = True, time: int = 0) -> Span:
    codes = np.zeros((cells, 2, 2), np.int32) if target else np.arange(4 * cells, dtype=np.int32).reshape(-1, 2, 2)
    return Span(Modality.VIDEO if fps else Modality.IMAGE, codes, target, fps=fps, time=time)


def played(produced: Part, frames: int = 5) -> Span:
    values = np.random.default_rng(0).integers(2, 4, (frames, 6), dtype=np.int32)
    values[0, :2] = 0
    return Span(Modality.PLAY, values, True, fps=8, grid=(2, 2), produced=produced)


SHOWN = visual(1, target=False)
DOCUMENTS = {
    "text, image, video, text": (text(1, 2, 3), SHOWN, text(target=True), visual(3, 8), text(target=True)),
    "a text first": (text(target=True), visual(1), text(4), text(target=True)),
    "a clip in pieces": (
        *(text(3), visual(3, 8, False), text(target=True)),
        *(visual(2, 8, time=3), text(2), visual(2, 8, time=5)),
    ),
    "inverse": (text(1, 2), played(Part.ACTIONS)),
    "policy": (text(1, 2), played(Part.ACTIONS | Part.OUTCOMES | Part.FRAMES)),
}
EACH = pytest.mark.parametrize("name", DOCUMENTS)


def document(name: str) -> Document:
    return Document("interleaved", DOCUMENTS[name])


def run(one: Document, seed: int = 0, sampling: Sampling = Sampling(), **how: Any) -> Decoded:
    decoding = Decoding(transformer=how.pop("transformer", None) or model(), attention=SDPA, **how)
    (done,) = in_order.fill(decoding, [one], [seed], sampling, longest=LONGEST)
    return done


def loss_of(one: Document, transformer: Transformer, bidirectional: bool = False, window: int = 0) -> np.ndarray:
    sequence = windowed(build(one, VOCABULARY), one, window)
    row = pack([sequence], len(sequence), bidirectional=bidirectional)
    return PackLoss(transformer, SDPA).nats(PackTensors.of(row, CPU)).numpy()


@EACH
@pytest.mark.parametrize(
    ("bidirectional", "guidance", "window"), [(False, 1.0, 0), (True, 3.0, 0), (False, 2.0, 1), (True, 1.0, 1)]
)
def test_targets_come_in_their_order_with_the_nats_of_the_training_loss(
    name: str, bidirectional: bool, guidance: float, window: int
) -> None:
    transformer, asked = model(), document(name)
    how: dict[str, Any] = {"bidirectional": bidirectional, "window": window}
    done = run(asked, 3, Sampling(guidance=guidance, top_p=0.95), transformer=transformer, **how)
    for before, after in zip(asked.spans, done.document.spans, strict=True):
        assert replace(before, values=after.values).equals(after)
        if not before.target:
            assert before.equals(after)
    sequence = build(done.document, VOCABULARY)
    assert parse(sequence.ids, VOCABULARY).equals(done.document)
    assert len(done.nats) == sequence.targets.sum()
    np.testing.assert_allclose(done.nats, loss_of(done.document, transformer, **how), atol=1e-4)
    assert done.nats.std() > 0.05
    if window and name != "a text first":
        assert np.abs(done.nats - loss_of(done.document, transformer, bidirectional)).max() > 1e-3


@UNENDED
def test_texts_have_the_distribution_of_the_model() -> None:
    """Chi-squared of the first two tokens of a text, over 250 seeds. With at most 30 degrees of freedom the statistic
    exceeds 80 with probability 1e-6."""
    transformer, count = model(), 250
    asked = Document("interleaved", (text(1, 2), visual(1, target=False), text(target=True)))
    decoding = Decoding(transformer=transformer, attention=SDPA)
    drawn = in_order.fill(decoding, [asked] * count, range(count), Sampling(), longest=2)
    found = [tuple(one.document.spans[2].values[:2].tolist()) for one in drawn]
    expected, seen = [], []
    for start in [(), *((a,) for a in range(5)), *itertools.product(range(5), repeat=2)]:
        nats = loss_of(Document("interleaved", (*asked.spans[:2], text(*start, target=True))), transformer)
        probability = float(np.exp(-nats[:2].sum())) if len(start) == 2 else float(np.exp(-nats.sum()))
        expected.append(count * probability)
        seen.append(found.count(start))
    assert sum(expected) == pytest.approx(count, rel=1e-4)
    wanted, got = np.array(expected), np.array(seen)
    rare = wanted < 5
    pooled = [(got[~rare], wanted[~rare]), (got[rare].sum(), wanted[rare].sum())]
    assert sum(((f - e) ** 2 / np.maximum(e, 1)).sum() for f, e in pooled) < 80
    assert (~rare).sum() > 5
    assert {len(one.document.spans[2].values) for one in drawn} == {0, 1, 2}


def test_actions_have_the_distribution_of_the_model() -> None:
    transformer, count = model(), 200
    asked = Document("inverse", (text(1, 2), played(Part.ACTIONS, 2)))
    decoding = Decoding(transformer=transformer, attention=SDPA)
    done = in_order.fill(decoding, [asked] * count, range(count), Sampling())
    drawn = [one.document.spans[1].values[1, 0] for one in done]

    def probability(action: int) -> float:
        values = asked.spans[1].values.copy()
        values[1, 0] = action
        return float(
            np.exp(
                -loss_of(Document("inverse", (asked.spans[0], replace(asked.spans[1], values=values))), transformer)[0]
            )
        )

    expected = count * np.array([probability(action) for action in range(4)])
    assert expected.sum() == pytest.approx(count, rel=1e-4)
    found = np.bincount(drawn, minlength=4)
    assert ((found - expected) ** 2 / np.maximum(expected, 1)).sum() < 35  # 3 degrees of freedom: probability 1e-7


@UNENDED
def test_guidance_of_texts_is_two_separate_passes() -> None:
    """Greedy: each token is the largest of the guided logits of full passes over the document and its null prompt."""
    transformer, scale = model(), 2.5
    differ = 0
    for name in ("text, image, video, text", "a clip in pieces"):
        done = run(document(name), 0, Sampling(guidance=scale, temperature=0), transformer=transformer)
        logits, chosen = [], []
        for one in (done.document, done.document.unprompted()):
            sequence = build(one, VOCABULARY)
            tensors = PackTensors.of(pack([sequence], len(sequence)), CPU)
            mine = tensors.kinds_M == 1
            states = transformer(tensors.ids_T, tensors.positions_T3, SDPA(tensors.visibility, CPU))
            logits.append(states[tensors.before_M[mine]] @ transformer.text_rows().T)
            chosen.append(tensors.after_M[mine])
        assert torch.equal(*chosen)
        close, first = VOCABULARY.special("<close:text>"), VOCABULARY.ranges["text"].start
        rows = torch.where(chosen[0] == close, 0, chosen[0] - first + 1)
        full = len(rows) > LONGEST
        guided = guide(*logits, scale).argmax(-1)
        assert torch.equal(guided[: LONGEST if full else None], rows[: LONGEST if full else None])
        differ += int((logits[0].argmax(-1) != rows).sum())
    assert differ > 0


@pytest.mark.parametrize("task", ["t2v", "i2v", "continuation"])
def test_images_and_videos_alone_are_what_batches_of_steps_draw(task: str) -> None:
    """With the same noise: the slow twin of `vpoet.generate.decode`."""
    codes = np.random.default_rng(1).integers(0, 24, (4, 2, 2), dtype=np.int32)
    asked = TABLE[task].document(Sample(np.array([1, 2], np.int32), codes, 8), Given(1))
    decoding, sampling = Decoding(transformer=model(), attention=SDPA), Sampling(guidance=2.0, top_k=7)
    (wanted,) = decode(decoding, [asked], [5], sampling)
    (found,) = in_order.fill(decoding, [asked], [5], sampling)
    assert found.document.equals(wanted.document)
    np.testing.assert_allclose(found.nats, wanted.nats, atol=1e-5)


def test_decoding_hands_over_what_needs_it_and_tells_of_each_step() -> None:
    asked, seen = document("a text first"), []
    decoding = Decoding(transformer=model(), attention=SDPA)
    (found,) = decode(decoding, [asked], [1], on_step=lambda done, total: seen.append((done, total)))
    (wanted,) = in_order.fill(decoding, [asked], [1], Sampling())
    assert found.document.equals(wanted.document)
    total = 2 * (in_order.LONGEST + 1) + 4
    assert seen[:3] == [(0, total), (1, total), (2, total)]
    assert seen[-1] == (total, total)
    plain = TABLE["t2v"].document(Sample(np.zeros(1, np.int32), np.zeros((3, 2, 2), np.int32), 8))
    assert not in_order.needed(decoding, [plain])
    assert in_order.needed(replace(decoding, window=2), [plain])


def test_a_text_without_an_end_is_cut_and_told() -> None:
    transformer = model()
    close = VOCABULARY.special("<close:text>")
    transformer.language.weight[close] = 0
    first = VOCABULARY.ranges["text"].start
    transformer.language.weight[first:] = 30 * torch.eye(32)[:5] + 30 * torch.eye(32)[5:10]
    asked = Document("interleaved", (text(1), text(target=True), visual(1)))
    with pytest.warns(VpoetWarning, match=f"a text was not ended after {LONGEST} pieces"):
        done = run(asked, 1, Sampling(temperature=0), transformer=transformer)
    assert len(done.document.spans[1].values) == LONGEST
    np.testing.assert_allclose(done.nats, loss_of(done.document, transformer), rtol=1e-4, atol=1e-4)
