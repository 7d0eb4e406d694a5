"""Decoding: documents with blank visual targets in, the same documents with sampled codes out.

Shapes: B documents; N slots of the cache: B, or 2B with guidance (document i and its null prompt in slots i and B + i);
S steps; T tokens of all prompts; D model width; V logits of a group of digits; M sampled codes of a document.

The prompts, of any lengths and tasks, are prefilled as one pack. Then each step brings one token to every slot:

    slot 0   <bos> .. text .. <open> header | c0 c1 c2 c3 c4 c5
    slot 1   <bos> .. longer text ... header | c0 c1 c2            a finished slot idles at its last token
             one pack                         one token of each slot a step

Positions and known tokens of all steps are laid out before the first one: the loop holds only the network and the draw.
"""

import math
from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vpoet.errors import PromptError
from vpoet.generate.layout import Decoded, Plan, filled, null_prompt
from vpoet.generate.logits import draw, guide, temper, top_k, top_p
from vpoet.nn.attention import Backend, Visibility
from vpoet.nn.cache import KVCache
from vpoet.nn.transformer import Transformer, VisualHead
from vpoet.sequence.document import Document
from vpoet.sequence.vocabulary import Modality

__all__ = ["Decoded", "OnStep", "Sampling", "decode", "null_prompt"]

OnStep = Callable[[int, int], None]
"""(steps done, steps in all); first called with 0, when the prompts have been read."""

_NOISE_STEPS = 32
"""Steps that noise is drawn for at once: few calls, little memory."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How codes are drawn. Filters apply to each group of digits, in the order of the fields below guidance."""

    guidance: float = 1.0
    """Scale of classifier-free guidance; 1 is the plain model, and costs half as much as any other."""
    temperature: float = 1.0
    """0 takes the most probable digit."""
    top_k: int = 0
    """Keep the k most probable; 0 keeps all."""
    top_p: float = 1.0
    """Keep the fewest of the most probable whose mass is at least p."""

    def __post_init__(self) -> None:
        for name, wrong, allowed in (
            ("guidance", not 0 <= self.guidance < math.inf, "0 or more"),
            ("temperature", not 0 <= self.temperature < math.inf, "0 or more"),
            ("top_k", self.top_k < 0, "0 (off) or more"),
            ("top_p", not 0 < self.top_p <= 1, "above 0 and at most 1 (off)"),
        ):
            if wrong:
                raise PromptError(f"{name} = {getattr(self, name)}: it must be {allowed}")


@torch.inference_mode()
def decode(
    transformer: Transformer,
    documents: Items[Document],
    *,
    seeds: Items[int],
    attention: Backend,
    sampling: Sampling = Sampling(),
    bidirectional: bool = False,
    on_step: OnStep | None = None,
) -> list[Decoded]:
    """Fill the visual targets of ``documents``, whose codes are ignored; everything else in them is kept as it is.

    Each document has its seed: what is drawn for it does not depend on the batch around it (but for rounding, which may
    turn a near tie). ``bidirectional``: the model reads prompts both ways. PromptError: a text target.
    """
    assert not transformer.training, "dropout would be sampled too: call eval() first"
    assert len(documents) == len(seeds) > 0
    for document in documents:
        if any(span.target and span.modality is Modality.TEXT for span in document.spans):
            raise PromptError(f"a document of task {document.task} has a text target; only images and video can be")
    plan = Plan.of(transformer, documents, guided=sampling.guidance != 1)
    device = plan.prompt_T.device
    cache = KVCache(
        layers=transformer.config.depth,
        slots=len(plan.prompts),
        size=plan.size,
        kv_heads=transformer.config.kv_heads,
        head=transformer.config.head,
        device=device,
        dtype=transformer.language.weight.dtype,
    )
    visibility = Visibility(plan.prompts, plan.prompts if bidirectional else (0,) * len(plan.prompts))
    attend = cache.prefill(visibility, attention(visibility, device))
    last_N = torch.tensor(visibility.bounds[1:], device=device) - 1
    h_ND = transformer(plan.prompt_T, plan.prompt_T3, attend)[last_N]
    cache.advance(list(plan.prompts))

    generators = [np.random.default_rng(seed) for seed in seeds]
    steps, count = len(plan.known_SB), len(documents)
    ids_SB = torch.empty((steps, count), dtype=torch.int64, device=device)
    nats_SB = torch.empty((steps, count), device=device)
    twice = len(plan.prompts) // count
    for step in range(steps):
        if on_step:
            on_step(step, steps)
        if step % _NOISE_STEPS == 0:
            gumbel = _gumbel(generators, sum(transformer.visual.radices)).to(device)
        codes_B, nats_SB[step] = _draw_codes(transformer.visual, h_ND, count, sampling, gumbel[step % _NOISE_STEPS])
        ids_B = codes_B + transformer.vocabulary.language
        if plan.some_known[step]:
            ids_B = torch.where(plan.known_SB[step], plan.ids_SB[step], ids_B)
        ids_SB[step] = ids_B
        if step + 1 < steps:
            h_ND = transformer(ids_B.repeat(twice), plan.positions_SN3[step], cache.step())
            cache.advance(plan.alive[step])
    if on_step:
        on_step(steps, steps)
    codes = (ids_SB.cpu().numpy() - transformer.vocabulary.language).astype(np.int32)
    nats = nats_SB.cpu().numpy()
    return [
        filled(document, sequence, codes[:, i], nats[:, i])
        for i, (document, sequence) in enumerate(zip(documents, plan.sequences, strict=True))
    ]


def _draw_codes(
    head: VisualHead, h_ND: Tensor, count: int, sampling: Sampling, gumbel_BV: Tensor
) -> tuple[Tensor, Tensor]:
    """Codes [B], digit by digit, and their nats [B]; a document and its null prompt go on with the same digits."""
    digits: list[Tensor] = []
    nats_B = torch.zeros(count, device=h_ND.device)
    logits_NV = head.first(h_ND)
    for group, noise_BV in enumerate(torch.split(gumbel_BV, list(head.radices), dim=-1)):
        if group:
            h_ND, logits_NV = head.following(group, h_ND, digits[-1].repeat(len(h_ND) // count))
        logits_NV = logits_NV.float()
        plain_BV = logits_BV = logits_NV[:count]
        if len(h_ND) > count:
            logits_BV = guide(plain_BV, logits_NV[count:], sampling.guidance)
        logits_BV = temper(logits_BV, sampling.temperature)
        logits_BV = top_p(top_k(logits_BV, sampling.top_k), sampling.top_p)
        digits.append(draw(logits_BV, noise_BV))
        nats_B += F.cross_entropy(plain_BV, digits[-1], reduction="none")
    return head.codes(digits), nats_B


def _gumbel(generators: list[np.random.Generator], size: int) -> Tensor:
    """[steps, B, size]: each document's own noise, made on the CPU so that a seed means the same on every device."""
    # in double precision: a float32 exponential is 0 once in 2^23 draws, and its Gumbel infinite
    noise = [-np.log(g.standard_exponential((_NOISE_STEPS, size))) for g in generators]
    return torch.from_numpy(np.stack(noise, axis=1).astype(np.float32))
