"""Whether a model that plays heeds what is done: the bits that it loses where it is told other actions than were done.

A model can learn to draw the next frame well and never look at the action (the loss falls all the same), so this is a
curve of training from its first evaluation on: 0 at first, and above 0 as soon as actions mean something.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from vpoet.sequence.actions import NONE
from vpoet.sequence.document import KINDS
from vpoet.sequence.packing import Pack, pack, unpack
from vpoet.sequence.vocabulary import Vocabulary
from vpoet.training.engine.base import Engine
from vpoet.training.engine.ulysses import Share
from vpoet.training.loss import counts, heldout_losses

_ACTION, _OUTCOME, _PLAY = (KINDS.index(kind) for kind in ("action", "outcome", "play"))


def wrong_key_bits(
    trainer: Engine, packs: Sequence[Pack], share: Share, vocabulary: Vocabulary, right: Mapping[str, float]
) -> dict[str, float]:
    """``heldout/wrong_key_bits``: bits a frame that the frames of ``packs`` cost more when every action is another.

    ``right`` are their `heldout_losses`; nothing is returned where no frame of play is among them.
    """
    codes = sum(int(counts(row)[_PLAY]) for row in packs)
    if not codes:
        return {}
    frames = sum(_frames(row) for row in packs)
    wrong = heldout_losses(trainer, [confused(row, vocabulary, seed) for seed, row in enumerate(packs)], share)
    lost = wrong["heldout/play_bits"] - right["heldout/play_bits"]
    return {"heldout/wrong_key_bits": lost * codes / frames}


def confused(row: Pack, vocabulary: Vocabulary, seed: int) -> Pack:
    """The pack with another action in place of each that was done, all others as likely."""
    random = np.random.default_rng(seed)
    start, stop = vocabulary.ranges["actions"]
    actions = stop - start - 1  # but none
    sequences = []
    for sequence in unpack(row):
        assert sequence.read is None, (
            "actions are changed where they are read: held-out packs have no other ids to read"
        )
        done = (sequence.kinds == _ACTION) & (sequence.ids != start + NONE)
        values = sequence.ids[done] - start - 1
        others = (values + random.integers(1, max(actions, 2), len(values))) % actions
        ids = sequence.ids.copy()
        ids[done] = others + start + 1
        sequences.append(replace(sequence, ids=ids))
    return pack(sequences, len(row), bidirectional=any(row.prefixes), pad=vocabulary.special("<pad>"))


def _frames(row: Pack) -> int:
    """Frames of play whose codes are predicted: behind each outcome stands one, if it is predicted."""
    outcomes = np.flatnonzero(row.kinds == _OUTCOME)
    behind = outcomes[outcomes + 1 < len(row)] + 1
    return int((row.targets[behind] & (row.kinds[behind] == _PLAY)).sum())
