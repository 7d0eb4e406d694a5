"""A decoder: some documents on one KV cache, read as far as their tokens are known and continued by drawn ones.

    Decoder(...)  prefill: all prompts, of any lengths, as one pack; each different one is computed once
    draw          the next token of each document, from the states behind the last tokens that went in
    extend        tokens go in, W to every slot
    step          both at once: tokens go in, and the next one is drawn behind each
    fork          the same documents once more, to go on in another way

Decoding one code after the other (`vpoet.generate.decode`), speculative decoding (`vpoet.generate.speculate`) and
frames as they are made (`vpoet.generate.live`) are loops over it. The decoder keeps no position: which place in its
slot a token takes is told with the token, so a token can be taken back by writing another over it.

Shapes: B documents; N slots of the cache: B, or 2B with guidance (document i and its null prompt in slots i and B + i);
W tokens a slot that go in together; M = B * W tokens that are drawn, document by document; T tokens of all different
prompts; P rotated pairs of a head; D model width; V logits of all groups of digits.
"""

import copy
from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vpoet.generate.controlled import controlled
from vpoet.generate.play_step import BuildPlay
from vpoet.generate.sampling import Sampling
from vpoet.generate.step import SETTINGS, Run, Step
from vpoet.generate.transfer import send
from vpoet.nn.cache import BLOCK, LANES, TILE, KVCache
from vpoet.nn.cache_attention import SDPA, CacheBackend
from vpoet.nn.steady import steady
from vpoet.nn.transformer import Transformer
from vpoet.nn.visibility import Backend, Visibility
from vpoet.sequence.document import Sequence

Build = Callable[[Step, int, int, int], Run]
"""(step, documents, slots, tokens a slot) -> what is called in its place, with the same arguments: a compiled or
captured one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoding:
    """How a model decodes, whatever the documents."""

    transformer: Transformer
    attention: Backend
    bidirectional: bool = False
    """The model reads prompts both ways."""
    window: int = 0
    """Frames for which it sees a frame (`vpoet.sequence.windows`); 0: to the end."""
    build: Build | None = None
    """Makes another step of the plain one."""
    build_play: BuildPlay | None = None
    """The same of a pass of play."""
    through: CacheBackend | None = None
    """Attention through the cache; None: sdpa, or, where ``build`` compiles the step as a whole, plain products."""
    memory: Callable[..., KVCache] = KVCache
    """Where caches come from: a captured step works on those alone that it knows."""
    steady: Transformer | None = None
    """The transformer's twin (`vpoet.nn.steady`), where one is at hand: packing its weights takes long."""
    guesses: int | None = 0
    """So many codes of a document each pass guesses and tests (`vpoet.generate.speculate`); 0: one code a pass;
    None: as many as pay, where they keep every bit."""


_AUTOMATIC = ((1, 15), (8, 7))
"""Documents at most, and guesses for them: `python tests/bench guessing`."""


def guesses_for(documents: int) -> int:
    """Guessed codes per pass that pay for so many documents."""
    return next((guesses for most, guesses in _AUTOMATIC if documents <= most), 0)


def automatic(step: Step, slots: int, documents: int) -> int:
    """Guessed codes per pass by default (speculative decoding): as many as pay, none where they might change a code.

    By the number of documents alone: the more there are, the better a pass is filled without guesses. Together with the
    token that is known they make whole groups of the queries that attention takes at once.
    """
    guesses = guesses_for(documents)
    on_cpu = step.transformer.language.weight.device.type == "cpu"
    return guesses if on_cpu and not step.products and step.is_exact(slots, guesses + 1) else 0


class Decoder:
    """Documents that have been read up to the end of their prompts."""

    @torch.inference_mode()
    def __init__(
        self, decoding: Decoding, slots: Items[Sequence], *, documents: int, size: int, sampling: Sampling
    ) -> None:
        """Read what stands before the first predicted token of each of ``slots``: those of the documents, and behind
        them, for guidance, as many null prompts. A slot of the cache holds ``size`` tokens."""
        transformer, build = decoding.transformer, decoding.build
        assert not transformer.training, "dropout would be sampled too: call eval() first"
        assert not decoding.window, "a window is for in_order and play_decoder"
        assert len(slots) in (documents, 2 * documents)
        config, self.device = transformer.config, transformer.language.weight.device
        products, through = build is not None and decoding.through is None, decoding.through or SDPA
        step = Step(
            transformer if products else decoding.steady or steady(transformer),
            filtered=sampling.filtered, products=products, through=through.through,
        )  # fmt: skip
        guesses = automatic(step, len(slots), documents) if decoding.guesses is None else decoding.guesses
        self.width = guesses + 1
        self.cache = decoding.memory(
            layers=config.depth, slots=len(slots), size=size + through.by_length * guesses, kv_heads=config.kv_heads,
            head=config.head, like=transformer.language.weight,
            order=LANES if products and self.width == 1 else through.order,
            block=BLOCK if products or self.device.type != "cpu" else TILE,
        )  # fmt: skip
        # what a slot begins with is told by its ids: positions follow from them
        different: dict[tuple[bytes, ...], int] = {}
        sources = [different.setdefault(beginning(slot), len(different)) for slot in slots]
        prompts = [slots[sources.index(source)] for source in range(len(different))]
        lengths = tuple(prompt.prefix for prompt in prompts)
        visibility = Visibility(lengths, lengths if decoding.bidirectional else (0,) * len(lengths))
        attend = self.cache.prefill(visibility, decoding.attention(visibility, self.device), sources)
        ids_T = self.move(np.concatenate([prompt.ids[: prompt.prefix] for prompt in prompts]))
        positions_T3 = self.move(np.concatenate([prompt.positions[: prompt.prefix] for prompt in prompts]))
        last_N = self.move(np.array(visibility.bounds[1:])[sources] - 1)
        control_PTD = controlled(transformer, prompts, lengths)
        self.state_ND = transformer(ids_T, positions_T3, attend, control_PTD=control_PTD)[last_N]
        """States of the last token of each slot."""
        self._step, self._run = step, step if build is None else build(step, documents, len(slots), self.width)
        self._settings = torch.tensor([float(getattr(sampling, name)) for name in SETTINGS], device=self.device)

    @torch.inference_mode()
    def draw(self, noise_BV: Tensor) -> tuple[Tensor, Tensor]:
        """The token behind the last one of each document, and -log p of it in nats under the plain conditional model:
        [B], [B]. It does not go in."""
        return self._step.draw(self.state_ND, noise_BV, self._settings)

    @torch.inference_mode()
    def step(
        self,
        ids_BW: Tensor,
        turn_NW2P: Tensor,
        place_NW: Tensor,
        longest: int,
        noise_MV: Tensor,
        control_PTD: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Tokens go in, W = `width` a slot, and the next one is drawn behind each: ids and nats, [M], [M].

        ``turn_NW2P`` is the rotation of their positions (`Transformer.rotation`); ``place_NW`` counts the tokens before
        each in its slot, and what stood there or behind is overwritten or unseen; ``longest`` is how many tokens the
        fullest slot holds then. ``control_PTD``, T = N * W, is what controls add to the tokens' states.
        """
        reach_S = self.cache.reach(longest)
        held = self.cache.keys, self.cache.values
        more = () if control_PTD is None else (control_PTD,)
        return self._run(ids_BW, turn_NW2P, place_NW, reach_S, noise_MV, self._settings, held, *more)

    @torch.inference_mode()
    def explain(
        self, codes_M: Tensor, noise_MV: Tensor, read: tuple[Tensor, Tensor, Tensor, int, Tensor | None] | None = None
    ) -> tuple[Tensor, Tensor]:
        """`Step.explain` of the codes behind the last tokens, or behind those that go in first, ``read``: the arguments
        of `step` but for its noise."""
        state_ND = self.state_ND
        if read is not None:
            ids_BW, turn_NW2P, place_NW, longest, control_PTD = read
            held = self.cache.keys, self.cache.values
            state_ND = self._step.states(ids_BW, turn_NW2P, place_NW, self.cache.reach(longest), held, control_PTD)
        return self._step.explain(state_ND, codes_M, noise_MV, self._settings)

    @torch.inference_mode()
    def extend(self, ids_BW: Tensor, positions_NW3: Tensor, place_NW: Tensor, longest: int | None = None) -> None:
        """Tokens that are known go in, however many, and nothing is drawn; their positions are (t, h, w).

        ``longest`` as in `step`; None looks for it in ``place_NW``, which waits for the device.
        """
        twice, longest = len(place_NW) // len(ids_BW), longest or int(place_NW.max()) + 1
        attend = self._step.through(self.cache.keys, self.cache.values, place_NW, self.cache.reach(longest))
        ids_T, positions_T3 = ids_BW.repeat(twice, 1).flatten(), positions_NW3.flatten(0, 1)
        state_TD: Tensor = self._step.transformer(ids_T, positions_T3, attend)
        self.state_ND = state_TD.view(*place_NW.shape, -1)[:, -1]

    def fork(self) -> "Decoder":
        """The same documents at the same place, on a cache of their own."""
        other = copy.copy(self)
        other.cache = self.cache.copy()
        return other

    def move(self, values: np.typing.NDArray[np.integer]) -> Tensor:
        """Integers on the model's device."""
        return send(values.astype(np.int64), self.device)


def beginning(slot: Sequence) -> tuple[bytes, ...]:
    """All that a slot begins with: its prompt."""
    told = slot.ids[: slot.prefix].tobytes()
    if slot.controls is None:
        return (told,)
    cells = slot.controls.up_to(slot.prefix)
    return told, cells.codes.tobytes(), cells.strengths.tobytes(), cells.near.tobytes()
