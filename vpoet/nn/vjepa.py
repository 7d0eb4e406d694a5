"""V-JEPA, a video transformer trained to predict its own features (Bardes et al., 2024), and the attentive probe on it.

The first V-JEPA, with positions added to its tokens, and not V-JEPA 2, which rotates them. With the names of Meta's
state dicts. `pool` is the probe's query after its block (section 4.1 there), before the layer of classes.

Shape letters: N clips, T frames, H and W their sides; L tokens, D their width.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}
"""Attention heads by width: a state dict does not tell them."""


class Attention(nn.Module):
    """Of all tokens to all."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_NLD: Tensor) -> Tensor:
        found: Tensor = self.proj(_attend(*self.qkv(x_NLD).chunk(3, -1)))
        return found


class CrossAttention(nn.Module):
    """Of the probe's query to all tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, query_N1D: Tensor, x_NLD: Tensor) -> Tensor:
        found: Tensor = self.proj(_attend(self.q(query_N1D), *self.kv(x_NLD).chunk(2, -1)))
        return found


class MLP(nn.Module):
    """Two layers with GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x_NLD: Tensor) -> Tensor:
        found: Tensor = self.fc2(F.gelu(self.fc1(x_NLD)))
        return found


class Block(nn.Module):
    """Attention and an MLP, each after a layer norm and added to what it read."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.attn = Attention(width)
        self.mlp = MLP(width, hidden)

    def forward(self, x_NLD: Tensor) -> Tensor:
        x_NLD = x_NLD + self.attn(self.norm1(x_NLD))
        found: Tensor = x_NLD + self.mlp(self.norm2(x_NLD))
        return found


class CrossBlock(nn.Module):
    """The probe's: the same of its query, with attention to the tokens."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width) for _ in range(2))
        self.xattn = CrossAttention(width)
        self.mlp = MLP(width, hidden)

    def forward(self, query_N1D: Tensor, x_NLD: Tensor) -> Tensor:
        query_N1D = query_N1D + self.xattn(query_N1D, self.norm1(x_NLD))
        found: Tensor = query_N1D + self.mlp(self.norm2(query_N1D))
        return found


class PatchEmbedding(nn.Module):
    """A token for each block of pixels, time first."""

    def __init__(self, width: int, patch: tuple[int, ...]) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, width, patch, patch)  # type: ignore[arg-type]

    def forward(self, x_N3THW: Tensor) -> Tensor:
        found: Tensor = self.proj(x_N3THW).flatten(2).transpose(1, 2)
        return found


class Pooler(nn.Module):
    """The probe: what its query makes of the tokens, [N, D]."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.query_tokens = nn.Parameter(torch.zeros(1, 1, width))
        self.cross_attention_block = CrossBlock(width, hidden)

    def forward(self, x_NLD: Tensor) -> Tensor:
        found: Tensor = self.cross_attention_block(self.query_tokens.expand(len(x_NLD), -1, -1), x_NLD)
        return found[:, 0]


class VJEPA(nn.Module):
    """Clips [N, 3, T, H, W], normalised as ImageNet's, to features [N, D]: the probe's, or without one the tokens'
    mean. Sizes are those of the weights."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """KeyError, ValueError: weights of something else."""
        super().__init__()
        count, width = weights["pos_embed"].shape[1:]
        if width not in HEADS:
            raise ValueError(f"{width} features, and V-JEPA has {', '.join(map(str, HEADS))}")
        hidden = len(weights["blocks.0.mlp.fc1.weight"])
        depth = len({name.split(".")[1] for name in weights if name.startswith("blocks.")})
        self.patch = tuple(weights["patch_embed.proj.weight"].shape[2:])
        self.pos_embed = nn.Parameter(torch.zeros(1, count, width))
        self.patch_embed = PatchEmbedding(width, self.patch)
        self.blocks = nn.ModuleList(Block(width, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        probed = "pooler.query_tokens" in weights
        self.pooler = Pooler(width, len(weights["pooler.cross_attention_block.mlp.fc1.weight"])) if probed else None

    def side(self, frames: int) -> int:
        """Pixels of both sides, in clips of so many frames; 0 if it takes no such clips."""
        steps, left = divmod(frames, self.patch[0])
        cells = round((self.pos_embed.shape[1] / steps) ** 0.5) if steps else 0
        return cells * self.patch[1] if not left and steps * cells**2 == self.pos_embed.shape[1] else 0

    def forward(self, x_N3THW: Tensor) -> Tensor:
        x_NLD = self.patch_embed(x_N3THW) + self.pos_embed
        for block in self.blocks:
            x_NLD = block(x_NLD)
        tokens: Tensor = self.norm(x_NLD)
        if self.pooler is None:
            return tokens.mean(1)
        found: Tensor = self.pooler(tokens)
        return found


def _attend(*qkv_NLD: Tensor) -> Tensor:
    heads = HEADS[qkv_NLD[0].shape[-1]]
    q, k, v = (each.reshape(*each.shape[:2], heads, -1).transpose(1, 2) for each in qkv_NLD)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
