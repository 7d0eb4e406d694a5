"""Guessed codes: the codes and nats of decoding one by one, in as many passes as the guesses deserve."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from vpoet.arrays import Floats
from vpoet.generate.decode import decode
from vpoet.generate.decoder import Decoding, automatic
from vpoet.generate.plan import Decoded
from vpoet.generate.sampling import Sampling
from vpoet.generate.speculate import origins
from vpoet.generate.step import Step
from vpoet.nn.attention import backend
from vpoet.nn.int8 import quantise
from vpoet.nn.nats import PackTensors, pack_nats
from vpoet.nn.steady import PackedLinear, steady
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.sequence.arrangements import Given, Painting, Sample
from vpoet.sequence.document import Document, build
from vpoet.sequence.packing import pack
from vpoet.sequence.tasks import PAINTED, TABLE
from vpoet.sequence.vocabulary import Vocabulary

CPU = torch.device("cpu")
SDPA = backend("sdpa", CPU, torch.float32)
VOCABULARY = Vocabulary(20, (6, 4), "t", "v")
FILTERED = Sampling(guidance=2.5, temperature=0.8, top_k=5, top_p=0.9, min_p=0.01)


def network(vocabulary: Vocabulary = VOCABULARY, scale: float = 4) -> Transformer:
    torch.manual_seed(0)
    config = TransformerConfig(width=32, depth=2, heads=4, kv_heads=2, hidden=48)
    transformer = Transformer(config, vocabulary).eval().requires_grad_(False)
    for parameter in transformer.parameters():
        parameter.mul_(scale if parameter.dim() > 1 else 1)
    return transformer


def every_task(seed: int) -> list[Document]:
    """A document of each task of images and videos alone as training draws it, with clips of several lengths, the
    longest of 72 codes."""
    random = np.random.default_rng(seed)
    documents = []
    for i, task in enumerate(task for task in TABLE.values() if task.flag):
        grid = (1, 2, 3) if task.name == "t2i" else (4 + i % 3, 2 + i % 2, 3 + i % 2)
        codes = random.integers(0, 24, grid, dtype=np.int32)
        keyframes = np.concatenate([codes[:1], random.integers(0, 24, codes[1:].shape, dtype=np.int32)])
        text = random.integers(0, 20, int(random.integers(1, 6)), dtype=np.int32)
        hidden = np.zeros(codes.shape, np.bool_)
        hidden[seed % 2 :, :, -1 - seed % 2 :] = True
        shown = np.where(hidden, 0, random.integers(0, 24, codes.shape, dtype=np.int32))
        paintings = tuple(Painting(name, hidden, shown) for name in PAINTED)
        coarse = codes[::-1] if task.needs == "coarse" else None
        sample = Sample(text, codes, 8 if len(codes) > 1 else 0, keyframes, paintings, coarse=coarse)
        documents.append(task.document(sample, task.draw(sample, random)))
    return documents


def blank(task: str, cells: int, height: int, width: int, words: int = 3) -> Document:
    sample = Sample(np.arange(words, dtype=np.int32), np.zeros((cells, height, width), np.int32), 8 if cells > 1 else 0)
    return TABLE[task].document(sample)


def filled(
    transformer: Transformer,
    documents: list[Document],
    guesses: int,
    sampling: Sampling = Sampling(),
    bidirectional: bool = False,
) -> tuple[list[Decoded], int]:
    """What comes out, and the passes after that over the prompts."""
    passes: list[None] = []
    hook = transformer.register_forward_hook(lambda *_: passes.append(None))
    decoding = Decoding(transformer=transformer, attention=SDPA, bidirectional=bidirectional, guesses=guesses)
    decoded = decode(decoding, documents, range(len(documents)), sampling)
    hook.remove()
    return decoded, len(passes) - 1


@pytest.mark.parametrize("bidirectional", [False, True], ids=["causal", "prefix"])
@pytest.mark.parametrize("sampling", [Sampling(), FILTERED, Sampling(temperature=0)], ids=["plain", "guided", "greedy"])
@pytest.mark.parametrize("seed", range(3))
def test_guessing_gives_the_codes_and_nats_of_one_by_one(seed: int, sampling: Sampling, bidirectional: bool) -> None:
    """Of every task, all in one batch, for guesses that end within the shortest document and beyond the longest."""
    transformer, documents = network(), every_task(seed)
    wanted, steps = filled(transformer, documents, 0, sampling, bidirectional)
    for guesses in (1, 4, 90):
        found, passes = filled(transformer, documents, guesses, sampling, bidirectional)
        for one, other in zip(wanted, found, strict=True):
            assert one.document.equals(other.document), (guesses, one.document.task)
            np.testing.assert_allclose(other.nats, one.nats, atol=1e-4)
        assert passes <= steps
    assert len({code for one in wanted for span in one.document.spans for code in span.values.flat}) > 15


def test_a_document_goes_at_its_own_pace_beside_others() -> None:
    """What one document is guessed does not hold another back: the batch takes the passes of its slowest alone."""
    transformer, documents = network(), every_task(6)
    together, passes = filled(transformer, documents, 5)
    alone = []
    for i, document in enumerate(documents):
        before: list[None] = []
        hook = transformer.register_forward_hook(lambda *_, seen=before: seen.append(None))
        (one,) = decode(Decoding(transformer=transformer, attention=SDPA, guesses=5), [document], [i])
        hook.remove()
        assert one.document.equals(together[i].document)
        alone.append(len(before) - 1)
    assert passes == max(alone) > min(alone)


def chain(add: int) -> Transformer:
    """A network whose likeliest code is the last one plus ``add``, and 0 for the first: its blocks add nothing."""
    transformer = network(Vocabulary(20, (24,), "t", "v"))
    for block in transformer.blocks:
        block.attention.out.weight.zero_()  # type: ignore[union-attr]
        block.mlp.out.weight.zero_()  # type: ignore[union-attr]
    transformer.language.weight.zero_()
    transformer.codes[0].weight.copy_(torch.eye(24, 32))  # type: ignore[operator, union-attr]
    transformer.visual.logits_of[0].weight.copy_(torch.eye(24, 32).roll(add, 0))  # type: ignore[operator, union-attr]
    return transformer


@pytest.mark.parametrize("guesses", [1, 2, 3, 5, 100])
def test_right_guesses_take_no_pass_of_their_own(guesses: int) -> None:
    (done,), passes = filled(chain(0), [blank("t2v", 4, 2, 3)], guesses, Sampling(temperature=0))
    assert not done.document.codes().any()
    assert passes == -(-23 // (guesses + 1))  # the first of 24 codes comes from the pass over the prompt


@pytest.mark.parametrize("guesses", [1, 2, 3, 5])
def test_wrong_guesses_cost_no_more_passes_than_none(guesses: int) -> None:
    """Each code follows from the last one alone, so what was drawn behind a wrong guess is wrong as well."""
    (done,), passes = filled(chain(1), [blank("t2v", 4, 2, 3)], guesses, Sampling(temperature=0))
    assert np.array_equal(done.document.codes().ravel(), np.arange(24))
    assert passes == 23


def _by_rows(self: PackedLinear, x_TI: Tensor) -> Tensor:
    """A kernel whose sums depend on how many rows there are."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x_TI, self.weight, None, "none", [], "")
    return out * (1 + 1e-6 * len(x_TI))


def probabilities(transformer: Transformer) -> Floats:
    """Of each image of three codes of 0 to 3, the exact one."""
    sequences = [
        build(
            TABLE["t2i"].document(Sample(np.arange(3, dtype=np.int32), np.int32([[codes]]), 0)), transformer.vocabulary
        )
        for codes in product(range(4), repeat=3)
    ]
    row = PackTensors.of(pack(sequences, sum(map(len, sequences))), CPU)
    found: Floats = pack_nats(transformer, SDPA, row).view(64, 3).sum(1).neg().exp().numpy()
    assert abs(found.sum() - 1) < 1e-3
    return found


def chi_squared(drawn: list[Decoded], probability: Floats) -> float:
    """Of images of three codes; rare ones are pooled."""
    found = np.bincount([int(one.document.codes().ravel() @ (16, 4, 1)) for one in drawn], minlength=64)
    expected = len(drawn) * probability
    rare = expected < 5
    assert (~rare).sum() > 10
    pooled = [(found[~rare], expected[~rare]), (found[rare].sum(), expected[rare].sum())]
    return float(sum(((f - e) ** 2 / np.maximum(e, 1)).sum() for f, e in pooled))


def test_guessed_images_have_the_distribution_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last two of three codes are guessed and tested, over 3,000 seeds. With at most 63 degrees of freedom
    chi-squared exceeds 135 with probability 4e-7. Where a kernel rounds by the number of rows, as on a GPU (here by
    0.6 to 0.9%, about as bf16 does), other samples come out, of the same distribution. Another temperature is found."""
    transformer, documents = network(Vocabulary(20, (2, 2), "t", "v"), 8), [blank("t2i", 1, 1, 3)] * 3000
    probability = probabilities(transformer)
    exact, _ = filled(transformer, documents, 2)
    assert chi_squared(exact, probability) < 135
    colder, _ = filled(transformer, documents[:1000], 2, Sampling(temperature=0.5))
    assert chi_squared(colder, probability) > 135
    monkeypatch.setattr(PackedLinear, "forward", _by_rows)
    rounded, _ = filled(transformer, documents, 2)
    assert not all(one.document.equals(other.document) for one, other in zip(exact, rounded, strict=True))
    assert chi_squared(rounded, probability) < 135


def test_a_first_guess_is_the_cell_before_in_time_then_to_the_left_then_above() -> None:
    sequence = build(blank("t2v", 3, 2, 3), VOCABULARY)
    first = sequence.prefix
    assert (origins(sequence)[first : first + 12] - first).tolist() == [-1, 0, 1, 0, 3, 4, 0, 1, 2, 3, 4, 5]
    assert not origins(sequence)[:first].any()


def test_a_continued_clip_is_first_guessed_from_what_is_given() -> None:
    codes = np.arange(18, dtype=np.int32).reshape(3, 2, 3)
    sequence = build(TABLE["i2v"].document(Sample(np.zeros(2, np.int32), codes, 8), Given(1)), VOCABULARY)
    guessed = sequence.ids[origins(sequence)[sequence.targets]]
    assert np.array_equal(guessed, VOCABULARY.ids(codes[:2].ravel(), "codes"))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_guessed_codes_and_nats_are_those_of_one_by_one_bit_for_bit(precision: str) -> None:
    """In every precision, alone and in a batch: no near tie can be turned, as no logit differs."""
    transformer, documents = network(), every_task(3)
    if precision == "bf16":
        transformer.bfloat16()
    elif precision == "int8":
        quantise(transformer)
    plain = Decoding(transformer=transformer, attention=SDPA)
    wanted = [decode(plain, [document], [i])[0] for i, document in enumerate(documents)]
    for guesses in (0, 3, 8, None):
        found = decode(replace(plain, guesses=guesses), documents, range(len(documents)))
        for one, other in zip(wanted, found, strict=True):
            assert one.document.equals(other.document), (guesses, one.document.task)
            assert np.array_equal(one.nats, other.nats), (guesses, one.document.task)


def test_guesses_are_automatic_where_they_keep_every_bit_and_none_where_not(monkeypatch: pytest.MonkeyPatch) -> None:
    transformer = network()
    step = Step(steady(transformer), filtered=False)
    assert [automatic(step, n, n) for n in (1, 2, 8, 9)] == [15, 7, 7, 0]
    assert automatic(Step(transformer, filtered=False, products=True), 1, 1) == 0
    monkeypatch.setattr(PackedLinear, "forward", _by_rows)
    assert not step.is_exact(1, 8)
    assert automatic(step, 1, 1) == 0
