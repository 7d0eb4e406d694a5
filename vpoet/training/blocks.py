"""How training runs the transformer's blocks: fused by the compiler, computed again in the backward pass, or both."""

from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vpoet.nn.rope import Rotation
from vpoet.nn.transformer import Block, RunBlock, run_block
from vpoet.nn.visibility import Attend


def runner(*, compiled: bool = False, checkpointed: bool = False) -> RunBlock:
    """``compiled`` fuses what stands between attentions, for packs of one length. ``checkpointed`` keeps each block's
    input alone for the backward pass, which computes the block again (Chen et al., arXiv:1604.06174)."""
    run = run_fused if compiled else run_block
    return partial(run_again, run) if checkpointed else run


@cache
def _fused() -> tuple[Any, Any]:
    """`Block.before` and `Block.after` as fused loops: their shapes are the same for every pack, unlike attention's."""
    return torch.compile(Block.before, dynamic=False), torch.compile(Block.after, dynamic=False)


def run_fused(block: Block, layer: int, x_TD: Tensor, rotation: Rotation, attend: Attend) -> Tensor:
    """`run_block`, compiled but for the attention."""
    before, after = _fused()
    out: Tensor = after(block, x_TD, attend(layer, *before(block, x_TD, rotation)))
    return out


def run_again(run: RunBlock, block: Block, layer: int, x_TD: Tensor, rotation: Rotation, attend: Attend) -> Tensor:
    """``run``, of which the backward pass has the input alone."""
    out: Tensor = checkpoint(
        run, block, layer, x_TD, rotation, attend, use_reentrant=False, preserve_rng_state=block.dropout.p > 0
    )
    return out
