"""What controls add to the tokens of sequences that are decoded: all of it is known before the first step.

Shapes: P places, T tokens, D model width (`vpoet.nn.control`).
"""

from collections.abc import Sequence as Items

import torch
from torch import Tensor

from vpoet.nn.control import ControlTensors
from vpoet.nn.transformer import Transformer
from vpoet.sequence.document import Sequence


@torch.inference_mode()
def controlled(transformer: Transformer, sequences: Items[Sequence], lengths: Items[int]) -> Tensor | None:
    """[P, T, D]: of the first tokens of each sequence, so many as ``lengths`` says, laid end to end; None: of none
    anything is known. What is added to a token does not depend on the other sequences."""
    if all(sequence.controls is None for sequence in sequences):
        return None
    device, parts = transformer.language.weight.device, []
    for sequence, length in zip(sequences, lengths, strict=True):
        if sequence.controls is None:
            weight = transformer.norm.weight
            parts.append(weight.new_zeros(len(transformer.places), length, len(weight)))
        else:
            cells = ControlTensors.of(sequence.controls.up_to(length), device)
            added = transformer.control(cells, length)
            assert added is not None, "a network without controls is not handed any"
            parts.append(added)
    return torch.cat(parts, dim=1)
