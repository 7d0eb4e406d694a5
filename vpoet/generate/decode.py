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

from vpoet.errors import PromptError
from vpoet.generate import in_order
from vpoet.generate.decoder import Decoder, Decoding
from vpoet.generate.edit import Draws, Redraw, apart
from vpoet.generate.noise import Noise, fresh
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
    seeds: Items[int | Redraw],
    sampling: Sampling = Sampling(),
    on_step: OnStep | None = None,
) -> list[Decoded]:
    """Fill the targets of ``documents``, whose values are ignored; everything else in them is kept as it is.

    Each document has its seed: what is drawn for it does not depend on the batch around it (but for rounding, which may
    turn a near tie where the batch changes the shape of products). `vpoet.generate.speculate` says where guessed codes
    are the same bit for bit. A `Redraw` in place of a seed draws a clip again; the errors are those of `Draws.of`.
    Texts, actions and outcomes are filled by `vpoet.generate.in_order`, and so is all for a model with a window.
    """
    if in_order.needed(decoding, documents):
        plain = [seed for seed in seeds if not isinstance(seed, Redraw)]
        if len(plain) < len(seeds):
            raise PromptError("edit: a model that was trained with a window draws its clips once, and not again")
        return in_order.fill(decoding, documents, plain, sampling, on_step)
    draws = [Draws.of(decoding, seed, sampling) for seed in seeds]
    decoded: dict[int, Decoded] = {}
    for number, (how, members) in enumerate(apart(draws)):
        chosen = [documents[i] for i in members], [draws[i] for i in members]
        decoded |= zip(members, _together(decoding, *chosen, how, None if number else on_step), strict=True)
    return [decoded[i] for i in range(len(documents))]


def _together(
    decoding: Decoding, documents: Items[Document], draws: Items[Draws], sampling: Sampling, on_step: OnStep | None
) -> list[Decoded]:
    """In one batch."""
    kept = [each.kept for each in draws]
    plan = Plan.of(decoding.transformer, documents, guided=sampling.guidance != 1, kept=kept)
    ids, nats = [], []
    for done, (ids_B, nats_B) in enumerate(stream(decoding, plan, [each.noise for each in draws], sampling)):
        if on_step:
            on_step(done, plan.steps)
        ids.append(ids_B)
        nats.append(nats_B)
    first = decoding.transformer.ranges["codes"].start
    codes = (torch.stack(ids).cpu().numpy() - first).astype(np.int32)
    surprise = torch.stack(nats).cpu().numpy()
    if on_step:  # now that the device is done, too
        on_step(plan.steps, plan.steps)
    return [filled(document, plan, i, codes[:, i], surprise[:, i]) for i, document in enumerate(documents)]


@torch.inference_mode()
def stream(
    decoding: Decoding, plan: Plan, seeds: Items[int | Noise], sampling: Sampling = Sampling()
) -> Iterator[tuple[Tensor, Tensor]]:
    """The tokens of each step as soon as they are drawn, and their nats: [B], [B], ``plan.steps`` times. Of each
    document there is a seed, or the noise itself.

    On a GPU a step is handed out before it is done, and nothing here waits for it (but for speculative decoding, whose
    next pass depends on what the last one drew).
    """
    assert len(seeds) == plan.documents > 0
    decoder = Decoder(decoding, plan.slots, documents=plan.documents, size=plan.size, sampling=sampling)
    size = sum(decoding.transformer.visual.radices)
    noises = [fresh(seed, size, sampling.temperature) if not callable(seed) else seed for seed in seeds]
    if decoder.width > 1:
        yield from speculate(decoder, plan, noises)
        return
    ids_B = nats_B = torch.empty(0)
    for done in range(plan.steps):
        if done % _NOISE_STEPS == 0:
            noise = send(np.stack([rows(_NOISE_STEPS) for rows in noises], axis=1), decoder.device)
        noise_BV = noise[done % _NOISE_STEPS]
        if done == 0:
            ids_B, nats_B = decoder.draw(noise_BV)
        else:
            at = plan.turn_SN2P[done - 1][:, None], plan.place_SN[done - 1][:, None]
            ids_B, nats_B = decoder.step(ids_B[:, None], *at, plan.longest[done - 1], noise_BV, plan.control(done - 1))
        if plan.some_known[done]:
            ids_B = torch.where(plan.known_SB[done], plan.ids_SB[done], ids_B)
        yield ids_B, nats_B
