"""One step of decoding: the token of every slot goes in, the next one comes out; or several, and those behind each.

Shapes: B documents; N slots, B or, with guidance, 2B; W tokens a slot; M of all documents, B * W, document by document;
P rotated pairs of a head; D model width; V logits of a group of digits, of all groups in the noise.

All that changes from step to step is an input, and so are the settings of the draw: the step can be compiled once and
serve every prompt (`vpoet.generate.compiled_step`), and as it is, it is the compiled one's slow twin.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpoet.generate.logits import draw, explain, guide, keep, temper
from vpoet.nn.cache import TILE, attend_ahead, attend_step
from vpoet.nn.cache_attention import Through
from vpoet.nn.rope import Rotation
from vpoet.nn.transformer import Block, RunBlock, Transformer, run_block

Run = Callable[..., tuple[Tensor, Tensor]]
"""A step, or what takes its place, with the arguments of `Step.forward`."""

SETTINGS = ("guidance", "temperature", "top_k", "top_p", "min_p")
"""What the settings of a step are, in order."""


class Step(nn.Module):
    """The network and the draw. ``filtered``: the draw applies top_k, top_p and min_p, which costs a sort."""

    def __init__(
        self, transformer: Transformer, *, filtered: bool, products: bool = False, through: Through = attend_ahead
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.filtered = filtered
        self.products = products
        """Spell the attention of one token a slot for a compiler (`attend_step`)."""
        self.through = through
        """Attention through the cache."""
        self.blocks: RunBlock = run_block
        """How a block is run."""

    def forward(
        self,
        ids_BW: Tensor,
        turn_NW2P: Tensor,
        place_NW: Tensor,
        reach_S: Tensor,
        noise_MV: Tensor,
        settings: Tensor,
        held: tuple[list[Tensor], list[Tensor]],
        control_PTD: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The token behind each of ``ids_BW``, and -log p of it in nats: [M], [M]; the arguments are those of `states`,
        the noise of each draw, and its settings."""
        h_TD = self.states(ids_BW, turn_NW2P, place_NW, reach_S, held, control_PTD)
        return self.draw(h_TD, noise_MV, settings)

    def states(
        self,
        ids_BW: Tensor,
        turn_NW2P: Tensor,
        place_NW: Tensor,
        reach_S: Tensor,
        held: tuple[list[Tensor], list[Tensor]],
        control_PTD: Tensor | None = None,
    ) -> Tensor:
        """The states [N * W, D] behind tokens, slot by slot.

        ``turn_NW2P`` is the rotation of their positions (`Transformer.rotation`), ``place_NW`` counts the tokens before
        each in its slot, and ``reach_S`` are the positions of the cache that are read (`KVCache.reach`). Keys and
        values of the tokens are written into those that the cache holds, ``held``. ``control_PTD`` is what controls add
        (`Transformer.control`), the tokens slot by slot.
        """
        keys, values = held
        twice = len(place_NW) // len(ids_BW)
        if self.products and place_NW.shape[1] == 1:
            attend = attend_step(keys, values, place_NW[:, 0], reach_S)
        else:
            attend = self.through(keys, values, place_NW, reach_S)
        rotation = Rotation(*turn_NW2P.flatten(0, 1).unbind(1))
        ids_T = ids_BW.repeat(twice, 1).flatten()
        h_TD: Tensor = self.transformer(ids_T, rotation, attend, self.blocks, control_PTD)
        return h_TD

    @torch.inference_mode()
    def is_exact(self, slots: int, width: int) -> bool:
        """True where this machine gives a token the same bits alone as among the ``slots * width`` of a pass.

        The transformer's maps are those of `vpoet.nn.steady`; whether they keep their promise is up to the kernels that
        a processor is given, so one block, a head and a slot's attention are tried, on fixed random states.
        """
        block, config = self.transformer.blocks[0], self.transformer.config
        assert isinstance(block, Block)
        dtype = self.transformer.language.weight.dtype
        generator = torch.Generator().manual_seed(0)

        def some(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(dtype)

        def states(x_TD: Tensor) -> Tensor:
            turn = Rotation(torch.ones(len(x_TD), config.head // 2), torch.zeros(len(x_TD), config.head // 2))
            return self.transformer.visual.first(block.after(x_TD, block.before(x_TD, turn)[0]))

        x_TD, tried = some(slots * width, config.width), sorted({0, slots * width // 2, slots * width - 1})
        if not torch.equal(states(x_TD)[tried], torch.cat([states(x_TD[i : i + 1]) for i in tried])):
            return False
        q, (k, v) = some(width, config.heads, config.head), some(2, width, config.kv_heads, config.head)
        reach_S = torch.arange(-(-width // TILE) * TILE)
        keys, values = some(2, 1, config.kv_heads, len(reach_S), config.head)
        place_1W, attended = torch.arange(width)[None], []
        for at in (slice(None), slice(0, 1), slice(width - 1, None)):
            attend = attend_ahead([keys], [values], place_1W[:, at], reach_S)
            attended.append(attend(0, q[at], k[at], v[at]))
        return torch.equal(attended[0][[0, -1]], torch.cat(attended[1:]))

    def draw(self, h_ND: Tensor, noise_BV: Tensor, settings: Tensor) -> tuple[Tensor, Tensor]:
        """A code, digit by digit, from the states before it; a document and its null prompt go on with the same digits.

        The nats are those of the plain conditional model: without guidance, temperature or filter.
        """
        head, count = self.transformer.visual, len(noise_BV)
        digits: list[Tensor] = []
        nats_B = torch.zeros(count, device=h_ND.device)
        logits_NV = head.first(h_ND)
        for group, noise in enumerate(torch.split(noise_BV, list(head.radices), dim=-1)):
            if group:
                h_ND, logits_NV = head.following(group, h_ND, digits[-1].repeat(len(h_ND) // count))
            digit_B, more_B = self.choose(logits_NV, noise, settings)
            digits.append(digit_B)
            nats_B = nats_B + more_B
        return head.codes(digits) + self.transformer.ranges["codes"].start, nats_B

    def choose(self, logits_NV: Tensor, noise_BV: Tensor, settings: Tensor) -> tuple[Tensor, Tensor]:
        """One of V for each document, and its nats, from its logits and, N being 2B, those of its null prompt."""
        plain_BV, logits_BV = self.shaped(logits_NV, len(noise_BV), settings)
        choice_B = draw(logits_BV, noise_BV, settings[SETTINGS.index("temperature")])
        return choice_B, F.cross_entropy(plain_BV, choice_B, reduction="none")

    def explain(self, h_ND: Tensor, codes_B: Tensor, noise_BV: Tensor, settings: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of `draw`: noise [B, V] with which it draws these codes (without the offset of their range), made
        of fresh noise, and [B], False where a filter leaves no way to draw them: there the noise is of no use."""
        head, count = self.transformer.visual, len(noise_BV)
        digits, found = head.digits(codes_B), []
        possible_B = torch.ones(count, dtype=torch.bool, device=h_ND.device)
        logits_NV = head.first(h_ND)
        for group, noise in enumerate(torch.split(noise_BV, list(head.radices), dim=-1)):
            if group:
                h_ND, logits_NV = head.following(group, h_ND, digits[group - 1].repeat(len(h_ND) // count))
            _, logits_BV = self.shaped(logits_NV, count, settings)
            here_B = logits_BV.gather(-1, digits[group][:, None])[:, 0] > -torch.inf
            likeliest_B = logits_BV.argmax(-1)
            found.append(explain(logits_BV, torch.where(here_B, digits[group], likeliest_B), noise))
            possible_B = possible_B & here_B
        return torch.cat(found, dim=-1), possible_B

    def shaped(self, logits_NV: Tensor, count: int, settings: Tensor) -> tuple[Tensor, Tensor]:
        """The logits of ``count`` documents as the model has them, and as they are drawn from."""
        guidance, temperature, top_k, top_p, min_p = settings.unbind()
        logits_NV = logits_NV.float()
        plain_BV = logits_BV = logits_NV[:count]
        if len(logits_NV) > count:
            logits_BV = guide(plain_BV, logits_NV[count:], guidance)
        logits_BV = temper(logits_BV, temperature)
        if self.filtered:
            logits_BV = keep(logits_BV, top_k=top_k, top_p=top_p, min_p=min_p)
        return plain_BV, logits_BV
