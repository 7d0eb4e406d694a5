"""Play through the ring cache: its nats are the training loss's, whole frames guessed are those of one token a pass."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vpoet.errors import PromptError, ShapeError
from vpoet.generate.decoder import Decoding
from vpoet.generate.play_decoder import TEXT, PlayDecoder, Played, Scene
from vpoet.generate.sampling import Sampling
from vpoet.nn.attention import backend
from vpoet.nn.nats import PackTensors
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.sequence.actions import ActionSpace
from vpoet.sequence.document import Document, Part, Span, build
from vpoet.sequence.packing import pack
from vpoet.sequence.vocabulary import Modality, Vocabulary
from vpoet.sequence.windows import windowed
from vpoet.training.loss import PackLoss

CPU = torch.device("cpu")
SDPA = backend("sdpa", CPU, torch.float32)
SPACE = ActionSpace(names=["left", "right", "jump"])
VECTORS = ActionSpace(low=[-1.0, 0.0], high=[1.0, 2.0])
WINDOW = 3
BIDIRECTIONAL = pytest.mark.parametrize("bidirectional", [False, True], ids=["causal", "prefix"])


def model(space: ActionSpace = SPACE) -> Transformer:
    torch.manual_seed(0)
    config = TransformerConfig(width=32, depth=2, heads=4, kv_heads=2, hidden=48)
    transformer = Transformer(config, space.vocabulary(Vocabulary(20, (6, 4), "t", "v"))).eval().requires_grad_(False)
    for parameter in transformer.parameters():
        parameter.mul_(4 if parameter.dim() > 1 else 1)  # sharp predictions that depend on what came before
    return transformer


def scene(space: ActionSpace = SPACE) -> Scene:
    return Scene(fps=8, grid=(2, 2), actions=space.arity)


def decoding(space: ActionSpace = SPACE, **options: object) -> Decoding:
    return Decoding(transformer=model(space), attention=SDPA, **{"window": WINDOW} | options)  # type: ignore[arg-type]


def texts(*pieces: tuple[int, ...]) -> list[np.ndarray]:
    return [np.array(text, np.int32) for text in pieces]


def actions(frame: int, documents: int, space: ActionSpace = SPACE) -> np.ndarray:
    random = np.random.default_rng([frame, 7])
    return random.integers(1, space.ranges[0][1], (documents, space.arity), dtype=np.int32)


def play(
    how: Decoding,
    prompts: list[np.ndarray],
    frames: int,
    changes: dict[int, list[np.ndarray]] | None = None,
    space: ActionSpace = SPACE,
    **options: object,
) -> tuple[list[Document], list[Played], PlayDecoder]:
    """Play, with prompts that change before some frames, and what was played as documents."""
    decoder = PlayDecoder(how, scene(space), prompts, **{"length": 400} | options)  # type: ignore[arg-type]
    count, told, steps = len(prompts), [{0: text} for text in prompts], []
    rows: list[list[np.ndarray]] = [[] for _ in prompts]
    for frame in range(frames):
        if frame in (changes or {}):
            decoder.tell(changes[frame])  # type: ignore[index]
            for mine, text in zip(told, changes[frame], strict=True):  # type: ignore[index]
                mine[frame] = text
        done = actions(frame, count, space) if frame else np.zeros((count, space.arity), np.int32)
        steps.append(decoder.step(done if frame else None, [np.random.default_rng([i, frame]) for i in range(count)]))
        for i in range(count):
            codes = steps[-1].codes_Bhw[i].reshape(-1)
            rows[i].append(np.concatenate([done[i], steps[-1].outcome_B[i : i + 1], codes]))
    documents = []
    for mine, row in zip(told, rows, strict=True):
        spans: list[Span] = []
        for start, stop in zip(mine, [*list(mine)[1:], frames], strict=True):
            produced = Part.OUTCOMES | Part.FRAMES
            values = np.stack(row[start:stop]).astype(np.int32)
            spans += [
                Span(Modality.TEXT, mine[start]),
                Span(Modality.PLAY, values, True, fps=8, time=start, grid=(2, 2), produced=produced),
            ]
        documents.append(Document("play", tuple(spans)))
    return documents, steps, decoder


def loss_of(how: Decoding, document: Document) -> np.ndarray:
    sequence = windowed(build(document, how.transformer.vocabulary), document, how.window)
    row = pack([sequence], len(sequence), bidirectional=how.bidirectional)
    return PackLoss(how.transformer, SDPA).nats(PackTensors.of(row, CPU)).numpy()


def nats_of(steps: list[Played], document: int, space: ActionSpace = SPACE) -> np.ndarray:
    drawn = [step.nats_BR[document, space.arity + (frame == 0) :] for frame, step in enumerate(steps)]
    return np.concatenate(drawn)


@BIDIRECTIONAL
@pytest.mark.parametrize("space", [SPACE, VECTORS], ids=["indices", "vectors"])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_over_ten_windows_and_a_change_of_prompt_the_nats_are_those_of_the_full_pass(
    guidance: float, space: ActionSpace, bidirectional: bool
) -> None:
    how = decoding(space, bidirectional=bidirectional)
    prompts, changes = texts((3, 4, 5), (6,)), {7: texts((1,), ()), 20: texts((2, 2, 3), (9, 8))}
    sampling = Sampling(guidance=guidance, top_p=0.9)
    documents, steps, _ = play(how, prompts, 10 * WINDOW + 2, changes, space, sampling=sampling)
    for i, document in enumerate(documents):
        np.testing.assert_allclose(nats_of(steps, i, space), loss_of(how, document), atol=1e-4)
    assert nats_of(steps, 0, space).std() > 0.1


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("width", [2, 4, 6, 9])
def test_guessed_frames_are_those_of_one_token_a_pass_bit_for_bit(width: int, guidance: float) -> None:
    how = decoding()
    prompts, changes = texts((3, 4, 5), (6,)), {5: texts((1,), ())}
    sampling = Sampling(guidance=guidance, temperature=0.3)
    wanted, slow, one = play(how, prompts, 12, changes, sampling=sampling)
    found, fast, several = play(replace(how, guesses=width - 1), prompts, 12, changes, sampling=sampling)
    assert all(a.equals(b) for a, b in zip(wanted, found, strict=True))
    for a, b in zip(slow, fast, strict=True):
        assert np.array_equal(a.nats_BR, b.nats_BR)
    assert several.passes < one.passes == 5 + 11 * 6


def test_guesses_that_are_right_take_a_pass_a_frame() -> None:
    """Where all frames are alike: at temperature 0, of a model that sees nothing."""
    how = decoding()
    for block in how.transformer.blocks:
        for part in (block.attention.out, block.mlp.out):  # type: ignore[union-attr]
            part.weight.zero_()  # type: ignore[union-attr, operator]
    table = how.transformer.language.weight
    table.copy_(table[:1].expand_as(table))
    for part in (*how.transformer.codes, *how.transformer.appended.values()):
        part.weight.zero_()  # type: ignore[operator, union-attr]
    how.transformer.appended["outcomes"].weight[3] = 1  # type: ignore[index, operator]
    _, steps, decoder = play(replace(how, guesses=5), texts((3,)), 6, sampling=Sampling(temperature=0))
    assert all(np.array_equal(step.codes_Bhw, steps[0].codes_Bhw) for step in steps)
    assert decoder.passes <= 5 + 2 + 4


@BIDIRECTIONAL
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_frames_that_are_given_leave_what_frames_that_were_drawn_leave(guidance: float, bidirectional: bool) -> None:
    """Over two windows and a change of prompt, what is drawn next is equal bit for bit."""
    how, sampling = decoding(bidirectional=bidirectional, guesses=3), Sampling(guidance=guidance)
    prompts, changes = texts((3, 4, 5), (6,)), {5: texts((1,), ())}
    frames = 2 * WINDOW + 1
    _, steps, drawn = play(how, prompts, frames, changes, sampling=sampling)
    given = PlayDecoder(how, scene(), prompts, sampling=sampling, length=400)
    for frame, step in enumerate(steps):
        if frame in changes:
            given.tell(changes[frame])
        done = actions(frame, 2) if frame else np.zeros((2, 1), np.int32)
        given.give(np.concatenate([done, step.outcome_B[:, None], step.codes_Bhw.reshape(2, -1)], 1))
    assert given.passes == 0
    for _ in range(WINDOW + 1):
        at = drawn.frames
        one, other = (x.step(actions(at, 2), [np.random.default_rng([i, at]) for i in (0, 1)]) for x in (drawn, given))
        assert np.array_equal(one.nats_BR, other.nats_BR)
        assert np.array_equal(one.codes_Bhw, other.codes_Bhw)


def test_outcomes_and_codes_have_the_distribution_of_the_model() -> None:
    """Chi-squared of the second frame's outcome and of its first code over 600 documents, given the first one's."""
    how = decoding()
    count = 600
    decoder = PlayDecoder(how, scene(), texts((3,)) * count, length=400)
    first = decoder.step(None, [np.random.default_rng(0) for _ in range(count)])
    assert (first.codes_Bhw == first.codes_Bhw[0]).all()
    step = decoder.step(np.full((count, 1), 2, np.int32), [np.random.default_rng(i) for i in range(count)])
    row = np.concatenate([[2], [0], [0] * 4]).astype(np.int32)
    given = np.concatenate([[0], [0], first.codes_Bhw[0].reshape(-1)]).astype(np.int32)
    sizes = len(dict(SPACE.ranges)["outcomes"] * [0]), 24
    play_of = lambda last: Document(  # noqa: E731
        "play",
        (
            Span(Modality.TEXT, texts((3,))[0]),
            Span(
                Modality.PLAY, np.stack([given, last]), True, fps=8, grid=(2, 2), produced=Part.OUTCOMES | Part.FRAMES
            ),
        ),
    )

    def chi_squared(at: int, size: int, drawn: np.ndarray, weights: np.ndarray) -> float:
        expected = np.zeros(size)
        for outcome in np.flatnonzero(weights):
            for value in range(size):
                last = row.copy()
                last[1] = outcome
                last[at] = value
                expected[value] += weights[outcome] * np.exp(-loss_of(how, play_of(last))[4 + at - 1])
        found, expected = np.bincount(drawn, minlength=size), expected * count
        rare = expected < 5
        pooled = [(found[~rare], expected[~rare]), (found[rare].sum(), expected[rare].sum())]
        assert (~rare).sum() > 2
        return float(sum(((f - e) ** 2 / np.maximum(e, 1)).sum() for f, e in pooled))

    outcomes = np.bincount(step.outcome_B, minlength=sizes[0]) / count
    assert chi_squared(1, sizes[0], step.outcome_B, np.eye(sizes[0])[0]) < 40
    assert chi_squared(2, sizes[1], step.codes_Bhw[:, 0, 0], outcomes) < 70


def test_a_fork_that_is_told_the_same_shows_the_same_and_another_does_not() -> None:
    how = decoding()
    _, _, decoder = play(how, texts((3, 4)), 5, {2: texts((7,))}, sampling=Sampling(temperature=2.0))
    forks = [decoder.fork() for _ in range(3)]
    keys = [[1, 2, 3, 1, 2], [1, 2, 3, 1, 2], [3, 1, 1, 3, 1]]

    def go_on(one: PlayDecoder, pressed: list[int]) -> list[np.ndarray]:
        steps = [one.step(np.array([[key]], np.int32), [np.random.default_rng(one.frames)]) for key in pressed]
        return [step.nats_BR for step in steps]

    together = [go_on(fork, pressed) for fork, pressed in zip(forks, keys, strict=True)]
    assert all(np.array_equal(a, b) for a, b in zip(together[0], together[1], strict=True))
    assert not np.array_equal(together[0][-1], together[2][-1])
    assert all(np.array_equal(a, b) for a, b in zip(together[0], go_on(decoder, keys[0]), strict=True))


def test_a_model_without_a_window_plays_until_its_documents_are_full() -> None:
    how = replace(decoding(), window=0)
    prompts = texts((3, 4, 5))
    sink = 2 + 2 + 3 + 1 + 7
    documents, steps, decoder = play(how, prompts, 6, {3: texts((1,))}, length=sink + 12 + 6 * 6)
    np.testing.assert_allclose(nats_of(steps, 0), loss_of(how, documents[0]), atol=1e-4)
    with pytest.raises(ShapeError, match=r"play ends here: 6 frames fill the 63 tokens.*without a window"):
        decoder.step(actions(6, 1), [np.random.default_rng(0)])
    with pytest.raises(PromptError, match="its prompt can change once"):
        decoder.tell(texts((2,)))
    with pytest.raises(ShapeError, match="a prompt and a frame take more than the 20 tokens"):
        PlayDecoder(how, scene(), prompts, length=20)


def test_a_change_of_prompt_that_is_too_long_is_told() -> None:
    _, _, decoder = play(decoding(), texts((3,)), 1)
    with pytest.raises(PromptError, match=f"is 11 tokens too long: a change of prompt takes {TEXT} at most"):
        decoder.tell([np.zeros(TEXT, np.int32)])
    decoder.tell([np.zeros(TEXT - 11, np.int32)])


def test_what_a_pass_computes_does_not_depend_on_how_long_play_has_lasted(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    plain = F.scaled_dot_product_attention

    def watching(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **options: object) -> torch.Tensor:
        shapes.append((*q.shape, *k.shape))
        return plain(q, k, v, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(F, "scaled_dot_product_attention", watching)
    _, _, decoder = play(decoding(guesses=5), texts((3,)), 2, sampling=Sampling(temperature=0))
    held = [x.data_ptr() for x in (*decoder._cache.keys, *decoder._cache.values)]
    for _ in range(30):
        decoder.step(np.full((1, 1), 2, np.int32), [np.random.default_rng(0)])
    assert held == [x.data_ptr() for x in (*decoder._cache.keys, *decoder._cache.values)]
    assert len(set(shapes[-40:])) == 1
