"""Draws of tokens of any range: codes, pieces of text, actions and outcomes.

Shapes: B documents, N states of them, B or, with guidance, 2B (document i and its null prompt at i and B + i), D model
width, V logits.
"""

import numpy as np
import torch
from torch import Tensor, nn

from vpoet.arrays import Floats
from vpoet.generate.logits import gumbel
from vpoet.generate.sampling import Sampling
from vpoet.generate.step import SETTINGS, Step
from vpoet.nn.steady import steady
from vpoet.nn.transformer import Transformer


class Heads:
    """What stands behind a state is of one range, as the grammar says; its head draws it."""

    def __init__(self, transformer: Transformer, sampling: Sampling) -> None:
        """``transformer`` may be `steady`; so are the heads that are made here."""
        weight = transformer.language.weight
        self._step = Step(transformer, filtered=sampling.filtered)
        self._settings = torch.tensor([float(getattr(sampling, name)) for name in SETTINGS], device=weight.device)
        self._temperature = sampling.temperature
        close, (first, stop) = transformer.vocabulary.special("<close:text>"), transformer.ranges["text"]
        ids = {"text": torch.tensor([close, *range(first, stop)], device=weight.device)}
        rows = {"text": transformer.text_rows()}
        for name, table in transformer.appended.items():
            assert isinstance(table, nn.Embedding)
            ids[name], rows[name] = torch.arange(*transformer.ranges[name], device=weight.device), table.weight
        self._ids = ids
        self._maps = {name: steady(nn.Sequential(linear_of(rows_VD))) for name, rows_VD in rows.items()}

    def noise(self, payload: str, generator: np.random.Generator | None, count: int) -> Floats:
        """[count, V] for as many draws of this range, the same in however many calls; none at temperature 0."""
        radices = self._step.transformer.visual.radices
        size = sum(radices) if payload == "codes" else len(self._ids[payload])
        return gumbel(generator if self._temperature else None, count, size)

    def draw(self, payload: str, h_ND: Tensor, noise_BV: Tensor) -> tuple[Tensor, Tensor]:
        """The id of each document's next token, of the range ``payload``, and -log p of it in nats among that range
        under the plain conditional model: [B], [B]. A text's range has its closing token, too."""
        if payload == "codes":
            return self._step.draw(h_ND, noise_BV, self._settings)
        choice_B, nats_B = self._step.choose(self._maps[payload](h_ND), noise_BV, self._settings)
        return self._ids[payload][choice_B], nats_B


def linear_of(rows_VD: Tensor) -> nn.Linear:
    """The map whose weights are these rows."""
    with torch.device("meta"):
        linear = nn.Linear(rows_VD.shape[1], rows_VD.shape[0], bias=False)
    linear.weight = nn.Parameter(rows_VD.detach(), requires_grad=False)
    return linear
