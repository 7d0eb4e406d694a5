"""Decoding: documents with blank targets in, the same documents with what was sampled out.

Shapes: B documents; S steps.

The prompts are prefilled as one pack. Then each step brings one token to every slot of the cache:

    slot 0   <bos> .. text .. <open> header | c0 c1 c2 c3 c4 c5
    slot 1   <bos> .. longer text ... header | c0 c1 c2            a finished slot idles at its last token
             one pack                         one token of each slot a step

Positions and known tokens of all steps are laid out before the first one (`vpoet.generate.plan`): the loop holds only
the network and the draw.
"""

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items

import numpy as np
import torch
from torch import Tensor

from vpoet.generate import in_order
from vpoet.generate.decoder import Decoder, Decoding
from vpoet.generate.logits import gumbel
from vpoet.generate.plan import Decoded, Plan, filled
from vpoet.generate.sampling import Sampling
from vpoet.generate.speculate import speculate
from vpoet.generate.transfer import send
from vpoet.sequence.document import Document

OnStep = Callable[[int, int], None]
"""(steps done, steps in all); first called with 0, when the prompts have been read."""

_NOISE_STEPS = 32
"""Steps that noise is drawn for at once: few calls, little memory."""


def decode(
    decoding: Decoding,
    documents: Items[Document],
    seeds: Items[int],
    sampling: Sampling = Sampling(),
    on_step: OnStep | None = None,
) -> list[Decoded]:
    """Fill the targets of ``documents``, whose values are ignored; everything else in them is kept as it is.

    Each document has its seed: what is drawn for it does not depend on the batch around it (but for rounding, which may
    turn a near tie where the batch changes the shape of products). `vpoet.generate.speculate` says where guessed codes
    are the same bit for bit. Texts, actions and outcomes are filled by `vpoet.generate.in_order`, and so is all for a
    model with a window.
    """
    if in_order.needed(decoding, documents):
        return in_order.fill(decoding, documents, seeds, sampling, on_step)
    plan = Plan.of(decoding.transformer, documents, guided=sampling.guidance != 1)
    ids, nats = [], []
    for done, (ids_B, nats_B) in enumerate(stream(decoding, plan, seeds, sampling)):
        if on_step:
            on_step(done, plan.steps)
        ids.append(ids_B)
        nats.append(nats_B)
    first = decoding.transformer.ranges["codes"].start
    codes = (torch.stack(ids).cpu().numpy() - first).astype(np.int32)
    surprise = torch.stack(nats).cpu().numpy()
    if on_step:  # now that the device is done, too
        on_step(plan.steps, plan.steps)
    return [
        filled(document, sequence, codes[:, i], surprise[:, i])
        for i, (document, sequence) in enumerate(zip(documents, plan.slots, strict=False))
    ]


@torch.inference_mode()
def stream(
    decoding: Decoding, plan: Plan, seeds: Items[int], sampling: Sampling = Sampling()
) -> Iterator[tuple[Tensor, Tensor]]:
    """The tokens of each step as soon as they are drawn, and their nats: [B], [B], ``plan.steps`` times.

    On a GPU a step is handed out before it is done, and nothing here waits for it (but for speculative decoding, whose
    next pass depends on what the last one drew).
    """
    assert len(seeds) == plan.documents > 0
    decoder = Decoder(decoding, plan.slots, documents=plan.documents, size=plan.size, sampling=sampling)
    generators = [np.random.default_rng(seed) if sampling.temperature else None for seed in seeds]
    size = sum(decoding.transformer.visual.radices)
    if decoder.width > 1:
        yield from speculate(decoder, plan, generators, size)
        return
    ids_B = nats_B = torch.empty(0)
    for done in range(plan.steps):
        if done % _NOISE_STEPS == 0:
            drawn = [gumbel(generator, _NOISE_STEPS, size) for generator in generators]
            noise = send(np.stack(drawn, axis=1), decoder.device)
        noise_BV = noise[done % _NOISE_STEPS]
        if done == 0:
            ids_B, nats_B = decoder.draw(noise_BV)
        else:
            at = plan.turn_SN2P[done - 1][:, None], plan.place_SN[done - 1][:, None]
            ids_B, nats_B = decoder.step(ids_B[:, None], *at, plan.longest[done - 1], noise_BV)
        if plan.some_known[done]:
            ids_B = torch.where(plan.known_SB[done], plan.ids_SB[done], ids_B)
        yield ids_B, nats_B
