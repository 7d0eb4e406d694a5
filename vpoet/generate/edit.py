"""Edits: a clip drawn once more, under another prompt, with the noise that explains what it is.

A code is the largest of logits + noise. Which noise made a clip's codes nobody knows, but how it is distributed given
codes and prompt: a Gumbel for the largest, truncated ones below it (`vpoet.generate.logits.explain`). So it can be
drawn exactly, for any clip, and the clip drawn again with it:

    read      <bos> .. old prompt .. | c0  c1  c2  c3         one pass over the source, nothing is predicted anew
    explain                            G0  G1  G2  G3         noise under which the old prompt gives these codes
    redraw    <bos> .. new prompt .. | c0  c1' c2  c3'        G0, G1, G3 as they are; G2 fresh: the share ``strength``

Under the old prompt the codes come out again, bit for bit where decoding is exact (`Model.rounding`). Under a new one a
cell keeps its code unless the prompt speaks against it: by how much is what the noise remembers. VARIN
(arXiv:2509.01984) inverts the argmax to one noise; this draws from all that there are, so that a redraw under another
prompt is a sample of the model, coupled to the source by counterfactual noise (Oberst and Sontag, arXiv:1905.05824).

Cells outside a mask are not drawn at all, but told.
"""

import warnings
from collections.abc import Sequence as Items
from dataclasses import dataclass, replace

import numpy as np
import torch

from vpoet.arrays import Floats, Mask
from vpoet.errors import PromptError, VpoetWarning
from vpoet.generate.decoder import Decoder, Decoding
from vpoet.generate.logits import gumbel
from vpoet.generate.noise import Noise, fresh, prepared
from vpoet.generate.plan import Plan
from vpoet.generate.sampling import Sampling
from vpoet.generate.transfer import send
from vpoet.nn.cache import KVCache
from vpoet.sequence.document import Document

_WIDTH = 16
"""Codes that are read at once: as many as speculative decoding tests, so that they are rounded alike."""


@dataclass(frozen=True, eq=False, slots=True)
class Redraw:
    """What takes the place of a seed where a clip is drawn again."""

    source: Document
    """The clip under its old prompt, its codes as the one target."""
    cells: Mask
    """[t, h, w]: those that may change."""
    strength: float
    """0 to 1: which share of them is drawn with fresh noise."""
    seed: int
    """Of all that is drawn. Less strength leaves the fresh cells of more strength that it has as they are."""


@dataclass(frozen=True, eq=False, slots=True)
class Draws:
    """How a document's codes are drawn."""

    noise: Noise
    sampling: Sampling
    kept: Mask | None = None
    """[M], of a document that holds codes already: the predicted ones that stay what they are."""

    @classmethod
    def of(cls, decoding: Decoding, seed: "int | Redraw", sampling: Sampling) -> "Draws":
        """VpoetWarning: a filter leaves no way to draw a code that is to be kept, so that the edit does without.
        PromptError: at temperature 0 there is no noise."""
        size = sum(decoding.transformer.visual.radices)
        if not isinstance(seed, Redraw):
            return cls(fresh(seed, size, sampling.temperature), sampling)
        if not sampling.temperature:
            raise PromptError(
                "temperature = 0: an edit keeps the noise of a clip, and draws at temperature 0 have none"
            )
        kept_M = ~seed.cells.reshape(-1)
        explains, renews, orders = (np.random.default_rng(s) for s in np.random.SeedSequence([seed.seed, 1]).spawn(3))
        rank_M = orders.random(len(kept_M)) + 2.0 * kept_M  # those that stay come last
        fresh_M = rank_M.argsort(kind="stable")[: round(seed.strength * int((~kept_M).sum()))]
        noise_MV, possible_M = explain(decoding, seed.source, gumbel(explains, len(kept_M), size), sampling)
        possible_M[fresh_M] = True
        if bad := int((~possible_M & ~kept_M).sum()):
            warnings.warn(
                f"{bad} of {len(kept_M)} codes of the clip that is edited are impossible under the filters (top_k, "
                "top_p, min_p): this edit is drawn without them",
                VpoetWarning,
                stacklevel=2,
            )
            return cls.of(decoding, seed, replace(sampling, top_k=0, top_p=1.0, min_p=0.0))
        noise_MV[fresh_M] = gumbel(renews, len(kept_M), size)[fresh_M]
        return cls(prepared(noise_MV), sampling, kept_M)


@torch.inference_mode()
def explain(decoding: Decoding, source: Document, noise_MV: Floats, sampling: Sampling) -> tuple[Floats, Mask]:
    """Noise [M, V] with which the targets of ``source`` are drawn as they are, made of fresh noise; and [M], False for
    a code that the filters make impossible."""
    guided = sampling.guidance != 1
    plan = Plan.of(decoding.transformer, [source], guided)
    plain = replace(decoding, build=None, guesses=_WIDTH - 1, memory=KVCache)
    decoder = Decoder(plain, plan.slots, documents=1, size=plan.size, sampling=sampling)
    slot_N1 = torch.arange(len(plan.slots), device=decoder.device)[:, None]
    codes_M = plan.ids_SB[:, 0] - decoding.transformer.ranges["codes"].start
    found, possible = [], []
    for start in [0, *range(1, plan.steps, _WIDTH)]:
        stop = min(start + _WIDTH, plan.steps) if start else 1
        read = None
        if start:
            step_W = torch.arange(start - 1, stop - 1, device=decoder.device)[None]
            turn, place = plan.turn_SN2P[step_W, slot_N1], plan.place_SN[step_W, slot_N1]
            control = plan.control(step_W.expand(len(plan.slots), -1))
            read = plan.ids_SB[step_W, 0], turn, place, plan.longest[stop - 2], control
        noise, fits = decoder.explain(codes_M[start:stop], send(noise_MV[start:stop], decoder.device), read)
        found.append(noise)
        possible.append(fits)
    return torch.cat(found).cpu().numpy(), torch.cat(possible).cpu().numpy()


def apart(draws: Items[Draws]) -> list[tuple[Sampling, list[int]]]:
    """Which documents can be decoded together: one group, but where an edit has to do without filters."""
    return [
        (how, [i for i, each in enumerate(draws) if each.sampling == how])
        for how in dict.fromkeys(each.sampling for each in draws)
    ]
