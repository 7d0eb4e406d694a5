"""The decoder-only transformer over packed documents, and its visual embedding and head.

Shapes: T packed tokens, M selected tokens, D model width, N query heads, K key/value heads, H head size, V logits,
G groups of visual digits.

Llama's block (RMSNorm before, SwiGLU, rotary positions, grouped-query heads) with RMSNorm on queries and keys. There
are no logits over the whole vocabulary: the grammar says whether a position holds a piece of text or a visual code,
and each has a head of its own.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpoet.errors import ConfigError
from vpoet.nn.control import Controls, ControlTensors, places
from vpoet.nn.rope import Rotation, rotate, rotations
from vpoet.nn.visibility import Attend, Visibility
from vpoet.sequence.controls import KINDS
from vpoet.sequence.vocabulary import Vocabulary

Head = Callable[[Tensor, Tensor, float], Tensor]
"""Reads -log p(id) [M] from states [M, D] and ids [M], with a z-loss."""


DEEPEST = 1000
"""Blocks: more take minutes to lay out, even without memory for their weights."""


@dataclass(kw_only=True)
class TransformerConfig:
    """Sizes of the network; the vocabulary is handed in beside it."""

    width: int = 256
    depth: int = 6
    heads: int = 4
    kv_heads: int = 4
    """Key/value heads; ``heads`` is a multiple of it."""
    hidden: int = 688
    """Width inside SwiGLU; 8/3 of the model's width costs as much as a plain 4x MLP."""
    rope_base: float = 10_000.0
    visual_groups: int = 2
    """Groups of FSQ digits that a code is embedded and predicted in; 1 is a flat codebook."""
    dropout: float = 0.0
    """Probability, on the embedding and on what each sublayer adds to the residual stream."""
    controls: list[str] = field(default_factory=list)
    """Kinds of controls that it reads (`vpoet.sequence.controls.KINDS`)."""

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads", "kv_heads", "hidden", "visual_groups"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name} = {getattr(self, name)}: must be at least 1")
        if unknown := [kind for kind in self.controls if kind not in KINDS]:
            raise ConfigError(f"model.controls: no kind {unknown[0]!r}; there are {', '.join(KINDS)}")
        if len(set(self.controls)) < len(self.controls):
            raise ConfigError(f"model.controls: {', '.join(self.controls)}: a kind comes twice")
        if self.depth > DEEPEST:
            raise ConfigError(f"model.depth = {self.depth}: must be at most {DEEPEST}")
        if not (0 < self.rope_base < math.inf and 0 <= self.dropout < 1):
            raise ConfigError(
                f"model.rope_base = {self.rope_base:g} must be above 0, model.dropout = {self.dropout:g} at least 0 "
                "and below 1"
            )
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ConfigError(f"model.width = {self.width} must be an even multiple of model.heads = {self.heads}")
        if self.heads % self.kv_heads:
            raise ConfigError(f"model.heads = {self.heads} must be a multiple of model.kv_heads = {self.kv_heads}")

    @property
    def head(self) -> int:
        return self.width // self.heads


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm over the last axis, computed in fp32 and given back in the input's dtype."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        assert self.weight is not None
        return F.rms_norm(x.float(), self.normalized_shape, self.weight.float(), self.eps).to(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention (GQA, section 2.2) with QK-norm (ViT-22B, section 2) and rotary positions."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head = config.heads, config.kv_heads, config.head
        self.qkv = nn.Linear(config.width, (config.heads + 2 * config.kv_heads) * config.head, bias=False)
        self.out = nn.Linear(config.heads * config.head, config.width, bias=False)
        self.q_norm = RMSNorm(config.head)
        self.k_norm = RMSNorm(config.head)

    def forward(self, x_TD: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [T, N or K, H]; `Block` hands them to whoever computes attention."""
        heads = self.qkv(x_TD).unflatten(-1, (-1, self.head))
        q_TNH, k_TKH, v_TKH = heads.split((self.heads, self.kv_heads, self.kv_heads), dim=1)
        return rotate(self.q_norm(q_TNH), *rotation), rotate(self.k_norm(k_TKH), *rotation), v_TKH


class SwiGLU(nn.Module):
    """Gated MLP (GLU Variants Improve Transformer, section 2)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * hidden, bias=False)
        self.out = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.up(x).chunk(2, dim=-1)
        out: Tensor = self.out(F.silu(gate) * value)
        return out


class Block(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width)
        self.attention = Attention(config)
        self.mlp_norm = RMSNorm(config.width)
        self.mlp = SwiGLU(config.width, config.hidden)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_TD: Tensor, *, run: "RunBlock", layer: int, rotation: Rotation, attend: Attend) -> Tensor:
        """What ``run`` makes of it; a call as of any module, at whose ends ZeRO's stage 3 gathers a block's weights."""
        return run(self, layer, x_TD, rotation, attend)

    def before(self, x_TD: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """What the block does before its attention: queries, keys and values."""
        qkv: tuple[Tensor, Tensor, Tensor] = self.attention(self.attention_norm(x_TD), rotation)
        return qkv

    def after(self, x_TD: Tensor, o_TNH: Tensor) -> Tensor:
        """What it does after."""
        x_TD = x_TD + self.dropout(self.attention.out(o_TNH.flatten(1)))
        out: Tensor = x_TD + self.dropout(self.mlp(self.mlp_norm(x_TD)))
        return out


RunBlock = Callable[[Block, int, Tensor, Rotation, Attend], Tensor]
"""(block, layer, x_TD, rotation, attend) -> x_TD: how a block is run, for training to run it otherwise."""


def run_block(block: Block, layer: int, x_TD: Tensor, rotation: Rotation, attend: Attend) -> Tensor:
    """The block as it stands: the slow twin of every other `RunBlock`."""
    return block.after(x_TD, attend(layer, *block.before(x_TD, rotation)))


def nats(logits_MV: Tensor, choice_M: Tensor, z_loss: float = 0.0) -> Tensor:
    """-log softmax of the logits at the choice [M] in fp32.

    ``z_loss`` adds the gradient of ``z_loss * log(Z)^2``, Z being the softmax's normaliser (PaLM, section 5), and
    nothing to the value: what is reported stays -log p.
    """
    logits_MV = logits_MV.float()
    nats_M = F.cross_entropy(logits_MV, choice_M, reduction="none")
    if z_loss:
        log_z_M = nats_M + logits_MV.gather(1, choice_M[:, None])[:, 0]
        penalty_M = z_loss * log_z_M.square()
        nats_M = nats_M + (penalty_M - penalty_M.detach())
    return nats_M


class VisualHead(nn.Module):
    """p(code | context) as an exact product of conditionals over its G groups of digits, least significant first.

    Group 0 is read from the hidden state; before group g, an MLP mixes the digits that are already known into it. One
    group is the flat softmax.
    """

    def __init__(self, width: int, radices: tuple[int, ...]) -> None:
        super().__init__()
        self.radices = radices
        self.logits_of = nn.ModuleList(nn.Linear(width, radix, bias=False) for radix in radices)
        self.known = nn.ModuleList(nn.Embedding(radix, width) for radix in radices[:-1])
        self.norms = nn.ModuleList(RMSNorm(width) for _ in radices[:-1])
        self.mixers = nn.ModuleList(SwiGLU(width, width) for _ in radices[:-1])

    def digits(self, codes: Tensor) -> list[Tensor]:
        """The G digits of codes, each of the codes' shape."""
        out = []
        for radix in self.radices:
            out.append(codes % radix)
            codes = codes // radix
        return out

    def codes(self, digits: list[Tensor]) -> Tensor:
        """Inverse of `digits`."""
        total = torch.zeros_like(digits[0])
        for digit, radix in zip(reversed(digits), reversed(self.radices), strict=True):
            total = total * radix + digit
        return total

    def first(self, h_MD: Tensor) -> Tensor:
        """Logits [M, V] of group 0."""
        logits: Tensor = self.logits_of[0](h_MD)
        return logits

    def following(self, group: int, h_MD: Tensor, digit_M: Tensor) -> tuple[Tensor, Tensor]:
        """Mix the digit of group - 1 into the state; the new state [M, D] and the logits [M, V] of ``group``."""
        i = group - 1
        h_MD = h_MD + self.mixers[i](self.norms[i](h_MD + self.known[i](digit_M)))
        return h_MD, self.logits_of[group](h_MD)

    def nats(self, h_MD: Tensor, codes_M: Tensor, z_loss: float = 0.0) -> Tensor:
        """-log p(code) [M] in fp32, with the gradient of the z-loss of each group as in `nats`."""
        digits = self.digits(codes_M)
        total = nats(self.first(h_MD), digits[0], z_loss)
        for group in range(1, len(self.radices)):
            h_MD, logits = self.following(group, h_MD, digits[group - 1])
            total = total + nats(logits, digits[group], z_loss)
        return total


class Transformer(nn.Module):
    """ids and positions of a pack in, hidden states out; `visual` and `text_nats` read them."""

    def __init__(self, config: TransformerConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config = config
        self.vocabulary = vocabulary
        self.language = nn.Embedding(vocabulary.language, config.width)
        self.codes = nn.ModuleList(nn.Embedding(radix, config.width) for radix in vocabulary.visual)
        self.appended = nn.ModuleDict({name: nn.Embedding(size, config.width) for name, size in vocabulary.appended})
        self.ranges = vocabulary.ranges
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = RMSNorm(config.width)
        self.visual = VisualHead(config.width, vocabulary.visual)
        self.places = places(config.depth)
        """Blocks before which what is made of controls is added."""
        self.controls = Controls(config.controls, vocabulary.levels, config.width, len(self.places))
        self._initialise()
        # counted now: an engine that shards the weights leaves each process with pieces
        self.parameter_count = sum(p.numel() for p in self.parameters())
        self._block_weights = sum(p.numel() for p in self.blocks.parameters() if p.dim() == 2)
        heads = (p for name, p in self.visual.named_parameters() if not name.startswith("known"))
        self._head_weights = sum(p.numel() for p in heads if p.dim() == 2)

    @torch.no_grad()
    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            self.initial(name, parameter)

    def initial(self, name: str, values: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """``values``, of the shape of a parameter, which become random ones for it: ones for norms, zeros for what
        controls add, else of deviation 0.02; matrices that add to the residual stream are scaled by 1/sqrt(2 depth)
        (GPT-2, 2.3)."""
        if values.dim() == 1:
            return nn.init.ones_(values)
        if name.startswith("controls.") and ".out." in name:
            return nn.init.zeros_(values)
        residual = name.startswith("blocks.") and ".out." in name
        deviation = 0.02 / (math.sqrt(2 * self.config.depth) if residual else 1)
        return nn.init.normal_(values, std=deviation, generator=generator)

    def embed(self, ids_T: Tensor) -> Tensor:
        """[T, D]: a row of the table of the id's range, or the sum of the rows of a visual code's digits."""
        first, stop = self.ranges["codes"]
        visual_T = (ids_T >= first) & (ids_T < stop)
        x_TD = self.language(torch.where(ids_T < first, ids_T, 0))
        x_visual_TD = self._embed_codes(torch.where(visual_T, ids_T - first, 0))
        x_TD = torch.where(visual_T[:, None], x_visual_TD, x_TD)
        for name, table in self.appended.items():
            first, stop = self.ranges[name]
            mine_T = (ids_T >= first) & (ids_T < stop)
            x_TD = torch.where(mine_T[:, None], table(torch.where(mine_T, ids_T - first, 0)), x_TD)
        return x_TD

    def head(self, payload: str) -> Head:
        """The head of the positions whose ids are of this range, in fp32; z-loss as in `nats`."""
        if payload == "codes":
            return self.visual_nats
        if payload == "text":
            return partial(self.text_nats, self.text_rows())
        return partial(self._appended_nats, payload)

    def rotation(self, positions_T3: Tensor) -> Rotation:
        """What `forward` makes of positions (t, h, w)."""
        return rotations(positions_T3, self.config.head, self.config.rope_base)

    def control(self, cells: ControlTensors | None, tokens: int) -> Tensor | None:
        """What `forward` adds to the states of so many tokens, [P, T, D]; None: this network reads no controls. One
        that does reads all its weights, though there be no ``cells``: who shares them out gathers them together."""
        if not self.controls:
            return None
        return self.controls.added(cells or ControlTensors.none(self.norm.weight.device), self._embed_codes, tokens)

    def _embed_codes(self, codes: Tensor) -> Tensor:
        """The sum of the rows of their digits."""
        digits = self.visual.digits(codes)
        return torch.stack([table(d) for table, d in zip(self.codes, digits, strict=True)]).sum(0)

    def forward(
        self,
        ids_T: Tensor,
        positions: Tensor | Rotation,
        attend: Attend,
        run: RunBlock = run_block,
        control_PTD: Tensor | None = None,
    ) -> Tensor:
        """Hidden states [T, D] of tokens at ``positions``: (t, h, w) as [T, 3], or the `rotation` made of them.

        ``attend`` computes attention, and ``run`` each block around it; ``control_PTD`` is what `control` made.
        """
        rotation = positions if isinstance(positions, Rotation) else self.rotation(positions)
        x_TD = self.dropout(self.embed(ids_T))
        for layer, block in enumerate(self.blocks):
            if control_PTD is not None and layer in self.places:
                x_TD = x_TD + control_PTD[self.places.index(layer)]
            x_TD = block(x_TD, run=run, layer=layer, rotation=rotation, attend=attend)
        out: Tensor = self.norm(x_TD)
        return out

    def visual_nats(self, h_MD: Tensor, ids_M: Tensor, z_loss: float = 0.0) -> Tensor:
        """-log p(id) [M] in fp32 among the visual codes; z-loss as in `nats`."""
        return self.visual.nats(h_MD, ids_M - self.ranges["codes"].start, z_loss)

    def text_rows(self) -> Tensor:
        """Rows [V, D] of the text head, the language table's (tied): what may stand in a text span, its closing token
        and the pieces."""
        close, (first, stop) = self.vocabulary.special("<close:text>"), self.ranges["text"]
        return torch.cat((self.language.weight[close : close + 1], self.language.weight[first:stop]))

    def text_nats(self, rows_VD: Tensor, h_MD: Tensor, ids_M: Tensor, z_loss: float = 0.0) -> Tensor:
        """-log p(id) [M] in fp32 among what may stand in a text span, given `text_rows`; z-loss as in `nats`."""
        close, (first, _) = self.vocabulary.special("<close:text>"), self.ranges["text"]
        return nats(F.linear(h_MD, rows_VD), torch.where(ids_M == close, 0, ids_M - first + 1), z_loss)

    def _appended_nats(self, name: str, h_MD: Tensor, ids_M: Tensor, z_loss: float = 0.0) -> Tensor:
        """-log p(id) [M] in fp32 within an appended range, whose table is its head, too (tied)."""
        table = self.appended[name]
        assert isinstance(table, nn.Embedding)
        return nats(F.linear(h_MD, table.weight), ids_M - self.ranges[name].start, z_loss)

    def flops(self, visibility: Visibility, visual_targets: int) -> float:
        """Floating-point operations of one forward and backward pass over a pack: 6 for each weight of a matrix product
        and token (PaLM, appendix B), and the attention that the mask really allows."""
        attention = 12 * self.config.depth * self.config.width * visibility.pairs
        return 6 * self._block_weights * sum(visibility.lengths) + 6 * self._head_weights * visual_targets + attention
