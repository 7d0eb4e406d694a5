"""Decoding against the definition: one full forward pass a token, and the training loss."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from vpoet.errors import PromptError
from vpoet.generate.decode import decode
from vpoet.generate.decoder import Decoding
from vpoet.generate.logits import guide
from vpoet.generate.plan import Decoded, Plan
from vpoet.generate.sampling import Sampling
from vpoet.nn.attention import backend
from vpoet.nn.nats import PackTensors
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.nn.visibility import Visibility
from vpoet.sequence.arrangements import Given, Sample
from vpoet.sequence.document import Document, Span, build, parse
from vpoet.sequence.packing import pack
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Modality, Vocabulary
from vpoet.training.loss import PackLoss

CPU = torch.device("cpu")
SDPA = backend("sdpa", CPU, torch.float32)
VOCABULARY = Vocabulary(20, (6, 4), "t", "v")
BIDIRECTIONAL = pytest.mark.parametrize("bidirectional", [False, True], ids=["causal", "prefix"])


def model(vocabulary: Vocabulary = VOCABULARY) -> Transformer:
    torch.manual_seed(0)
    config = TransformerConfig(width=32, depth=2, heads=4, kv_heads=2, hidden=48)
    transformer = Transformer(config, vocabulary).eval().requires_grad_(False)
    for parameter in transformer.parameters():
        parameter.mul_(4 if parameter.dim() > 1 else 1)  # sharp predictions that depend on what came before
    return transformer


def request(task: str, words: int, cells: int, given: int = 0, height: int = 2, width: int = 3) -> Document:
    """A document whose given cells are random, and whose target is blank."""
    random = np.random.default_rng(words + 10 * cells)
    codes = np.zeros((cells, height, width), np.int32)
    codes[:given] = random.integers(0, 24, codes[:given].shape)
    fps = 0 if task == "t2i" else 8
    return TABLE[task].document(Sample(random.integers(0, 20, words, dtype=np.int32), codes, fps), Given(given))


REQUESTS = [
    request("t2v", 5, 3),
    request("t2i", 1, 1, height=3),
    request("i2v", 9, 4, 1),
    request("continuation", 3, 5, 3),
    request("unconditional", 0, 2),
]


def run(
    documents: Sequence[Document],
    seeds: Sequence[int],
    sampling: Sampling = Sampling(),
    bidirectional: bool = False,
    transformer: Transformer | None = None,
) -> list[Decoded]:
    decoding = Decoding(transformer=transformer or model(), attention=SDPA, bidirectional=bidirectional)
    return decode(decoding, documents, seeds, sampling)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_declared_shape_comes_out_and_what_was_given_is_untouched(guidance: float) -> None:
    for asked, done in zip(REQUESTS, run(REQUESTS, range(5), Sampling(guidance=guidance)), strict=True):
        assert done.document.task == asked.task
        assert done.nats.shape == (sum(span.values.size for span in asked.spans if span.target),)
        for before, after in zip(asked.spans, done.document.spans, strict=True):
            assert replace(before, values=after.values).equals(after)
            assert after.values.shape == before.values.shape
            assert after.values.dtype == np.int32
            if before.target:
                assert after.values.min() >= 0
                assert after.values.max() < VOCABULARY.codes
                assert after.values.any()
            else:
                assert np.array_equal(after.values, before.values)
        assert parse(build(done.document, VOCABULARY).ids, VOCABULARY).equals(done.document)


@BIDIRECTIONAL
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_a_sample_does_not_depend_on_the_batch_around_it(guidance: float, bidirectional: bool) -> None:
    sampling = Sampling(guidance=guidance, temperature=0.9, top_k=5, top_p=0.95)
    together = run(REQUESTS, [7, 8, 9, 10, 11], sampling, bidirectional)
    for i, document in enumerate(REQUESTS):
        (alone,) = run([document], [7 + i], sampling, bidirectional)
        assert alone.document.equals(together[i].document)
        np.testing.assert_allclose(alone.nats, together[i].nats, atol=1e-4)


def test_seeds_reproduce_and_differ() -> None:
    document = REQUESTS[0]
    first, again, other = run([document] * 3, [1, 1, 2])
    assert first.document.equals(again.document)
    assert not first.document.equals(other.document)
    assert run([document], [1])[0].document.equals(first.document)


@BIDIRECTIONAL
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_nats_are_those_of_the_training_loss(bidirectional: bool, guidance: float) -> None:
    transformer = model()
    loss = PackLoss(transformer, SDPA)
    for done in run(REQUESTS, range(5), Sampling(guidance=guidance, top_p=0.8), bidirectional, transformer):
        sequence = build(done.document, VOCABULARY)
        row = pack([sequence], len(sequence), bidirectional=bidirectional)
        wanted = loss.nats(PackTensors.of(row, CPU)).numpy()
        np.testing.assert_allclose(done.nats, wanted, atol=1e-4)
        assert done.nats.std() > 0.1


@BIDIRECTIONAL
def test_guidance_in_one_batch_is_two_separate_passes(bidirectional: bool) -> None:
    """Greedy, so the codes follow from the logits alone: each digit of the guided sample is the largest of the guided
    logits of two full forward passes, of the document and of its null prompt."""
    transformer, scale = model(), 2.5
    documents = REQUESTS[:4]
    guided = run(documents, range(4), Sampling(guidance=scale, temperature=0), bidirectional, transformer)
    differ = 0
    for done in guided:
        logits = []
        for document in (done.document, done.document.unprompted()):
            sequence = build(document, VOCABULARY)
            row = PackTensors.of(pack([sequence], len(sequence), bidirectional=bidirectional), CPU)
            states = transformer(row.ids_T, row.positions_T3, SDPA(row.visibility, CPU))[row.before_M]
            digits = transformer.visual.digits(row.after_M - VOCABULARY.language)
            logits.append((transformer.visual.first(states), transformer.visual.following(1, states, digits[0])[1]))
        for group, digit in enumerate(digits):
            mixed = guide(logits[0][group], logits[1][group], scale)
            assert torch.equal(mixed.argmax(-1), digit)
            differ += int((logits[0][group].argmax(-1) != digit).sum())
    assert differ > 0  # guidance did change something


def test_greedy_decoding_is_the_full_forward_pass_token_by_token() -> None:
    transformer, document = model(), REQUESTS[2]
    (done,) = run([document], [0], Sampling(temperature=0), transformer=transformer)
    sequence = build(document, VOCABULARY)
    ids, positions = (torch.from_numpy(x.astype(np.int64)) for x in (sequence.ids, sequence.positions))
    for at in np.flatnonzero(sequence.targets):
        state = transformer(ids[:at], positions[:at], SDPA(Visibility((int(at),), (0,)), CPU))[-1:]
        first = transformer.visual.first(state).argmax(-1)
        second = transformer.visual.following(1, state, first)[1].argmax(-1)
        ids[at] = transformer.visual.codes([first, second])[0] + VOCABULARY.language
    assert parse(ids, VOCABULARY).equals(done.document)


def test_first_codes_have_the_distribution_of_the_model() -> None:
    """Chi-squared of the first code over 1,500 seeds against p(code); rare codes are pooled. With at most
    23 degrees of freedom the statistic exceeds 70 with probability 1e-6."""
    transformer = model()
    document = request("t2i", 3, 1, height=1, width=1)
    sequence = build(document, VOCABULARY)
    prefix = sequence.prefix
    ids, positions = (torch.from_numpy(x[:prefix].astype(np.int64)) for x in (sequence.ids, sequence.positions))
    state = transformer(ids, positions, SDPA(Visibility((prefix,), (0,)), CPU))[-1:]
    n = 1500
    expected = transformer.visual.nats(state.expand(24, -1), torch.arange(24)).neg().exp().numpy() * n
    drawn = [int(d.document.spans[1].values[0, 0, 0]) for d in run([document] * n, range(n), transformer=transformer)]
    found = np.bincount(drawn, minlength=24)
    rare = expected < 5
    pooled = [(found[~rare], expected[~rare]), (found[rare].sum(), expected[rare].sum())]
    assert sum(((f - e) ** 2 / np.maximum(e, 1)).sum() for f, e in pooled) < 70
    assert (~rare).sum() > 3


def test_several_targets_with_known_tokens_between_them() -> None:
    """Two targets in one document: the second one's opening and header are fed, not sampled."""
    blank = np.zeros((1, 2, 3), np.int32)
    text = Span(Modality.TEXT, np.arange(4, dtype=np.int32))
    image, video = (
        Span(Modality.IMAGE, blank, True),
        Span(Modality.VIDEO, np.tile(blank, (2, 1, 1)), True, fps=8, time=1),
    )
    document = Document("t2v", (text, image, video))
    transformer = model()
    together = run([document, REQUESTS[0]], [3, 4], Sampling(guidance=2.0), transformer=transformer)
    (alone,) = run([document], [3], Sampling(guidance=2.0), transformer=transformer)
    assert alone.document.equals(together[0].document)
    assert [span.values.shape for span in alone.document.spans] == [(4,), (1, 2, 3), (2, 2, 3)]
    sequence = build(alone.document, VOCABULARY)
    row = PackTensors.of(pack([sequence], len(sequence)), CPU)
    np.testing.assert_allclose(alone.nats, PackLoss(transformer, SDPA).nats(row).numpy(), atol=1e-4)


@pytest.mark.parametrize("radices", [(24,), (2, 3, 4)])
def test_any_number_of_digit_groups_decodes(radices: tuple[int, ...]) -> None:
    vocabulary = Vocabulary(20, radices, "t", "v")
    transformer = model(vocabulary)
    (done,) = run(REQUESTS[:1], [0], transformer=transformer)
    sequence = build(done.document, vocabulary)
    row = PackTensors.of(pack([sequence], len(sequence)), CPU)
    np.testing.assert_allclose(done.nats, PackLoss(transformer, SDPA).nats(row).numpy(), atol=1e-4)


def test_steps_are_reported_from_the_end_of_the_prompt_to_the_end() -> None:
    seen: list[tuple[int, int]] = []
    decode(
        Decoding(transformer=model(), attention=SDPA),
        REQUESTS[:2],
        [0, 1],
        on_step=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(i, 18) for i in range(19)]


def test_bf16_decodes_and_its_nats_are_near_the_loss() -> None:
    """Between two ways through the same bf16 network, a prediction's nats differ by rounding: 0.1 on average here."""
    transformer = model().bfloat16()
    (done,) = run(REQUESTS[:1], [0], transformer=transformer)
    sequence = build(done.document, VOCABULARY)
    wanted = PackLoss(transformer, SDPA).nats(PackTensors.of(pack([sequence], len(sequence)), CPU)).numpy()
    assert np.abs(done.nats - wanted).mean() < 0.1


def test_a_null_prompt_is_the_document_without_its_text() -> None:
    null = REQUESTS[2].unprompted()
    assert null.spans[0].values.shape == (0,)
    assert all(a.equals(b) for a, b in zip(null.spans[1:], REQUESTS[2].spans[1:], strict=True))


def test_what_batches_of_steps_cannot_sample_is_refused_by_their_plan() -> None:
    text = Document("t2v", (Span(Modality.TEXT, np.zeros(3, np.int32), target=True),))
    with pytest.raises(PromptError, match="has targets that are no images or videos"):
        Plan.of(model(), [text], guided=False)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": -1.0}, r"temperature = -1\.0: it must be 0 to 1e\+06"),
        ({"temperature": float("nan")}, "temperature = nan"),
        ({"top_k": -1}, "top_k = -1"),
        ({"top_p": 0.0}, r"top_p = 0\.0: it must be above 0"),
        ({"top_p": 1.5}, r"top_p = 1\.5"),
        ({"guidance": -0.5}, r"guidance = -0\.5"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        Sampling(**wrong)  # type: ignore[arg-type]
