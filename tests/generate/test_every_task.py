"""Every task through the model: what decoding reports is the training loss, and kept cells are fed, not drawn."""

import numpy as np
import pytest
import torch

from vpoet.generate.decode import decode
from vpoet.generate.decoder import Decoding
from vpoet.generate.sampling import Sampling
from vpoet.nn.attention import backend
from vpoet.nn.nats import PackTensors, pack_nats
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.sequence.actions import ActionSpace
from vpoet.sequence.arrangements import Painting, Sample, Segment
from vpoet.sequence.document import Document, build, parse
from vpoet.sequence.packing import pack
from vpoet.sequence.tasks import PAINTED, TABLE
from vpoet.sequence.vocabulary import Vocabulary

SPACE = ActionSpace(names=["left", "right"])
VOCABULARY = SPACE.vocabulary(Vocabulary(text=20, visual=(4, 6), text_hash="t", visual_hash="v"))
CPU = torch.device("cpu")
SDPA = backend("sdpa", CPU, torch.float32)


@pytest.fixture(scope="module")
def transformer() -> Transformer:
    torch.manual_seed(0)
    made = Transformer(TransformerConfig(width=32, depth=2, heads=2, kv_heads=1, hidden=48), VOCABULARY)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made.eval().requires_grad_(False)


def drawn(seed: int) -> list[Document]:
    """A document of each task, as training draws it."""
    random = np.random.default_rng(seed)
    documents = []
    for task in TABLE.values():
        codes = random.integers(0, 24, (1 if task.name == "t2i" else 4, 2, 3), dtype=np.int32)
        keyframes = np.concatenate([codes[:1], random.integers(0, 24, codes[1:].shape, dtype=np.int32)])
        text = random.integers(0, 20, int(random.integers(0, 6)), dtype=np.int32)
        hidden = np.zeros(codes.shape, np.bool_)
        hidden[seed % 2 :, :, -1 - seed % 2 :] = True
        shown = np.where(hidden, 0, random.integers(0, 24, codes.shape, dtype=np.int32))
        paintings = tuple(Painting(name, hidden, shown) for name in PAINTED)
        sample = Sample(
            text,
            codes,
            8 if len(codes) > 1 else 0,
            keyframes,
            paintings,
            actions=random.integers(1, 3, (3, 1), dtype=np.int32),
            outcomes=random.integers(2, 8, 3, dtype=np.int32),
            timeline=((0, text), (2, text[::-1])),
            segments=(
                *(Segment(text), Segment(codes[:1])),
                *(Segment(text[1:], target=seed == 0), Segment(codes[1:], 8, target=True)),
            ),
            coarse=codes[::-1] if task.needs == "coarse" else None,
        )
        documents.append(task.document(sample, task.draw(sample, random)))
    return documents


@pytest.mark.filterwarnings("ignore:a text was not ended:vpoet.errors.VpoetWarning")
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_every_task_decodes_what_it_declares_at_the_nats_of_training(
    transformer: Transformer, seed: int, guidance: float, bidirectional: bool
) -> None:
    documents = drawn(seed)
    decoding = Decoding(transformer=transformer, attention=SDPA, bidirectional=bidirectional)
    decoded = decode(decoding, documents, range(len(documents)), Sampling(guidance=guidance))
    changed = 0
    for asked, done in zip(documents, decoded, strict=True):
        sequence = build(done.document, VOCABULARY)
        row = pack([sequence], len(sequence), bidirectional=bidirectional)
        wanted = pack_nats(transformer, SDPA, PackTensors.of(row, CPU)).numpy()
        np.testing.assert_allclose(done.nats, wanted, atol=1e-4)
        assert parse(sequence.ids, VOCABULARY).equals(done.document)
        before, after = build(asked, VOCABULARY), sequence
        assert np.array_equal(before.ids[~before.targets], after.ids[~after.targets])
        changed += len(after) != len(before) or int((before.ids != after.ids).sum())
    assert changed > 20


@pytest.mark.parametrize("bidirectional", [False, True])
def test_packing_changes_nothing_for_any_task(transformer: Transformer, bidirectional: bool) -> None:
    sequences = [build(document, VOCABULARY) for document in drawn(5)]

    def nats(*parts: int) -> np.ndarray:
        chosen = [sequences[part] for part in parts]
        row = pack(chosen, sum(map(len, chosen)) + 3, bidirectional=bidirectional)
        return pack_nats(transformer, SDPA, PackTensors.of(row, CPU)).numpy()

    together = nats(*range(len(sequences)))
    np.testing.assert_allclose(together, np.concatenate([nats(i) for i in range(len(sequences))]), atol=1e-4)
