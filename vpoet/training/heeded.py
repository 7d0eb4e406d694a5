"""Whether a model heeds what it is told beside words: curves of training from its first evaluation on.

``heldout/wrong_key_bits`` is told in `vpoet.training.wrong_keys`. ``heldout/control_bits``: bits a code that codes with
controls cost more without them; 0 at first, and above 0 as soon as controls mean something.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from vpoet.sequence.packing import Pack, pack, unpack
from vpoet.sequence.vocabulary import Vocabulary
from vpoet.training.engine.base import Engine
from vpoet.training.engine.ulysses import Share
from vpoet.training.loss import counts, heldout_losses
from vpoet.training.wrong_keys import wrong_key_bits


def heeded_bits(
    trainer: Engine, packs: Sequence[Pack], share: Share, vocabulary: Vocabulary, right: Mapping[str, float]
) -> dict[str, float]:
    """Both curves, as far as ``packs`` have actions or controls; ``right`` are their `heldout_losses`."""
    found = wrong_key_bits(trainer, packs, share, vocabulary, right)
    told = sum(_told(row) for row in packs)
    if not told:
        return found
    bare = heldout_losses(trainer, [untold(row, vocabulary) for row in packs], share)
    tokens = sum(float(counts(row).sum()) for row in packs)
    return found | {"heldout/control_bits": (bare["heldout/bits"] - right["heldout/bits"]) * tokens / told}


def untold(row: Pack, vocabulary: Vocabulary) -> Pack:
    """The pack without controls."""
    bare = [replace(sequence, controls=None) for sequence in unpack(row)]
    return pack(bare, len(row), bidirectional=any(row.prefixes), pad=vocabulary.special("<pad>"))


def _told(row: Pack) -> int:
    """Codes that are predicted with a control."""
    given = [cells.strengths for cells in row.controls or () if cells is not None]
    return sum(int(np.count_nonzero(strengths.any(0))) for strengths in given)
