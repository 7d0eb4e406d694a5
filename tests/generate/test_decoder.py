"""The decoder: tokens that come late, and two futures of one past."""

from collections.abc import Sequence as Items

import numpy as np
import torch
from torch import Tensor

from vpoet.generate.decode import decode
from vpoet.generate.decoder import Decoder, Decoding
from vpoet.generate.logits import gumbel
from vpoet.generate.sampling import Sampling
from vpoet.nn.attention import backend
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.nn.visibility import Visibility
from vpoet.sequence.arrangements import Given, Sample
from vpoet.sequence.document import Document, Sequence, build
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Vocabulary

CPU = torch.device("cpu")
SDPA = backend("sdpa", CPU, torch.float32)
VOCABULARY = Vocabulary(20, (6, 4), "t", "v")
NOISE = sum(VOCABULARY.visual)
FIRST = VOCABULARY.ranges["codes"].start


def decoding() -> Decoding:
    torch.manual_seed(0)
    sizes = TransformerConfig(width=32, depth=2, heads=4, kv_heads=2, hidden=48)
    transformer = Transformer(sizes, VOCABULARY).eval().requires_grad_(False)
    for parameter in transformer.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.2)
    return Decoding(transformer=transformer, attention=SDPA)


def document() -> Document:
    """A cell of time that is given, and two to come: 8 codes."""
    codes = np.random.default_rng(0).integers(0, 24, (3, 2, 2), dtype=np.int32)
    return TABLE["continuation"].document(Sample(np.arange(5, dtype=np.int32), codes, 8), Given(1))


def tokens(slots: Items[Sequence], start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of the tokens from ``start`` on behind each slot's prompt: the first slot's ids, and all positions and places."""
    here = [np.arange(slot.prefix + start, slot.prefix + stop) for slot in slots]
    positions = np.stack([slot.positions[at] for slot, at in zip(slots, here, strict=True)])
    at = slots[0].ids[here[0]][None], positions, np.stack(here)
    ids_BW, positions_NW3, place_NW = (torch.from_numpy(values.astype(np.int64)) for values in at)
    return ids_BW, positions_NW3, place_NW


def test_tokens_that_nobody_knew_before_leave_the_states_of_a_full_pass() -> None:
    how, sequence = decoding(), build(document(), VOCABULARY)
    decoder = Decoder(how, [sequence], documents=1, size=len(sequence), sampling=Sampling())
    ids_T, positions_T3 = (torch.from_numpy(x.astype(np.int64)) for x in (sequence.ids, sequence.positions))
    whole_TD = how.transformer(ids_T, positions_T3, SDPA(Visibility((len(sequence),), (0,)), CPU))
    torch.testing.assert_close(decoder.state_ND[0], whole_TD[sequence.prefix - 1])
    for start, stop in ((0, 1), (1, 4), (4, 5)):
        decoder.extend(*tokens([sequence], start, stop))
        torch.testing.assert_close(decoder.state_ND[0], whole_TD[sequence.prefix + stop - 1], atol=1e-5, rtol=1e-5)


def test_driven_by_hand_it_draws_what_decode_draws() -> None:
    how, sampling = decoding(), Sampling(guidance=2.0)
    (wanted,) = decode(how, [document()], [7], sampling)
    slots = [build(document(), VOCABULARY), build(document().unprompted(), VOCABULARY)]
    noise = torch.from_numpy(gumbel(np.random.default_rng(7), 8, NOISE))
    decoder = Decoder(how, slots, documents=1, size=len(slots[0]), sampling=sampling)
    codes = []
    for step in range(8):
        (drawn,), _ = decoder.draw(noise[step : step + 1])
        codes.append(int(drawn) - FIRST)
        _, positions, places = tokens(slots, step, step + 1)
        decoder.extend(drawn.view(1, 1), positions, places)
    assert codes == wanted.document.codes()[1:].ravel().tolist()


def test_a_fork_goes_on_by_itself() -> None:
    how, sequence = decoding(), build(document(), VOCABULARY)
    decoder = Decoder(how, [sequence], documents=1, size=len(sequence), sampling=Sampling())
    noise = torch.from_numpy(gumbel(np.random.default_rng(0), 1, NOISE))

    def future(first: int) -> list[Tensor]:
        other = decoder.fork()
        other.extend(torch.tensor([[first, FIRST]]), *tokens([sequence], 0, 2)[1:])
        return [other.state_ND, *other.draw(noise)]

    one, another, again = future(FIRST), future(FIRST + 9), future(FIRST)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one[0], another[0])
