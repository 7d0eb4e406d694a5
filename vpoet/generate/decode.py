"""Decoding: documents with blank visual targets in, the same documents with sampled codes out.

Shapes: B documents; N slots of the cache: B, or 2B with guidance (document i and its null prompt in slots i and B + i);
S steps; T tokens of all prompts; D model width.

The prompts, of any lengths and tasks, are prefilled as one pack, each different one once. Then each step brings one
token to every slot:

    slot 0   <bos> .. text .. <open> header | c0 c1 c2 c3 c4 c5
    slot 1   <bos> .. longer text ... header | c0 c1 c2            a finished slot idles at its last token
             one pack                         one token of each slot a step

Positions and known tokens of all steps are laid out before the first one: the loop holds only the network and the draw.
"""

import math
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vpoet.errors import PromptError
from vpoet.generate.logits import gumbel
from vpoet.generate.plan import Decoded, Plan, filled, null_prompt
from vpoet.generate.speculate import ahead
from vpoet.generate.step import SETTINGS, Run, Step
from vpoet.nn.cache import KVCache
from vpoet.nn.transformer import Transformer
from vpoet.nn.visibility import Backend, Visibility
from vpoet.sequence.document import Document

__all__ = ["Decoded", "OnStep", "Sampling", "decode", "null_prompt"]

OnStep = Callable[[int, int], None]
"""(steps done, steps in all); first called with 0, when the prompts have been read."""

Build = Callable[[Step, int, int, int], Run]
"""(step, documents, slots, tokens a slot) -> what is called in its place, with the same arguments: a compiled one."""

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
    min_p: float = 0.0
    """Keep those that are at least so many times as probable as the likeliest; 0 keeps all."""

    def __post_init__(self) -> None:
        for name, wrong, allowed in (
            ("guidance", not 0 <= self.guidance < math.inf, "0 or more"),
            ("temperature", not 0 <= self.temperature < math.inf, "0 or more"),
            ("top_k", self.top_k < 0, "0 (off) or more"),
            ("top_p", not 0 < self.top_p <= 1, "above 0 and at most 1 (off)"),
            ("min_p", not 0 <= self.min_p <= 1, "0 (off) to 1"),
        ):
            if wrong:
                raise PromptError(f"{name} = {getattr(self, name)}: it must be {allowed}")

    @property
    def filtered(self) -> bool:
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0


def decode(
    transformer: Transformer,
    documents: Items[Document],
    *,
    seeds: Items[int],
    attention: Backend,
    sampling: Sampling = Sampling(),
    bidirectional: bool = False,
    build: Build | None = None,
    guesses: int = 0,
    on_step: OnStep | None = None,
) -> list[Decoded]:
    """Fill the visual targets of ``documents``, whose codes are ignored; everything else in them is kept as it is.

    Each document has its seed: what is drawn for it does not depend on the batch around it (but for rounding, which may
    turn a near tie). ``bidirectional``: the model reads prompts both ways. ``build`` makes another step of the plain
    one, a compiled one. ``guesses`` are so many codes of a document that each pass guesses and tests; the codes that
    come out are the same, in fewer passes (`vpoet.generate.speculate`). PromptError: a text target.
    """
    plan = Plan.of(transformer, documents, guided=sampling.guidance != 1)
    ids, nats = [], []
    tokens = stream(
        transformer,
        plan,
        seeds=seeds,
        attention=attention,
        sampling=sampling,
        bidirectional=bidirectional,
        build=build,
        guesses=guesses,
    )
    for done, (ids_B, nats_B) in enumerate(tokens):
        if on_step:
            on_step(done, plan.steps)
        ids.append(ids_B)
        nats.append(nats_B)
    if on_step:
        on_step(plan.steps, plan.steps)
    codes = (torch.stack(ids).cpu().numpy() - transformer.vocabulary.language).astype(np.int32)
    surprise = torch.stack(nats).cpu().numpy()
    return [
        filled(document, sequence, codes[:, i], surprise[:, i])
        for i, (document, sequence) in enumerate(zip(documents, plan.sequences, strict=True))
    ]


@torch.inference_mode()
def stream(
    transformer: Transformer,
    plan: Plan,
    *,
    seeds: Items[int],
    attention: Backend,
    sampling: Sampling = Sampling(),
    bidirectional: bool = False,
    build: Build | None = None,
    guesses: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The tokens of each step as soon as they are drawn, and their nats: [B], [B], ``plan.steps`` times.

    The arguments are those of `decode`.
    """
    assert not transformer.training, "dropout would be sampled too: call eval() first"
    count, slots, device = len(plan.sequences), len(plan.sources), plan.prompt_T.device
    assert len(seeds) == count > 0
    config = transformer.config
    cache = KVCache(
        layers=config.depth, slots=slots, size=plan.size, kv_heads=config.kv_heads, head=config.head,
        device=device, dtype=transformer.language.weight.dtype, lanes=build is not None and guesses == 0,
    )  # fmt: skip
    visibility = Visibility(plan.prompts, plan.prompts if bidirectional else (0,) * len(plan.prompts))
    attend = cache.prefill(visibility, attention(visibility, device), plan.sources)
    last_N = (torch.tensor(visibility.bounds[1:], device=device) - 1)[list(plan.sources)]
    h_ND = transformer(plan.prompt_T, plan.prompt_T3, attend)[last_N]

    step = Step(transformer, filtered=sampling.filtered, products=build is not None)
    run: Run = step if build is None else build(step, count, slots, guesses + 1)
    settings = torch.tensor([float(getattr(sampling, name)) for name in SETTINGS], device=device)
    generators = [np.random.default_rng(seed) if sampling.temperature else None for seed in seeds]
    if guesses:
        yield from ahead(step, run, plan, cache, h_ND, generators, settings, guesses)
        return
    ids_B = nats_B = torch.empty(0)
    for done in range(plan.steps):
        if done % _NOISE_STEPS == 0:
            size = _NOISE_STEPS, sum(transformer.visual.radices)
            noise = torch.from_numpy(np.stack([gumbel(g, *size) for g in generators], axis=1)).to(device)
        noise_BV = noise[done % _NOISE_STEPS]
        if done == 0:
            ids_B, nats_B = step.draw(h_ND, noise_BV, settings)
        else:
            at = plan.turn_SN2P[done - 1][:, None], plan.place_SN[done - 1][:, None]
            reach_S = cache.reach(plan.longest[done - 1])
            ids_B, nats_B = run(ids_B[:, None], *at, reach_S, noise_BV, settings, cache.keys, cache.values)
        if plan.some_known[done]:
            ids_B = torch.where(plan.known_SB[done], plan.ids_SB[done], ids_B)
        yield ids_B, nats_B
