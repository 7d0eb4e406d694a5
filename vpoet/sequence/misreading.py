"""Play whose codes are read wrongly here and there, so that a model learns not to believe all that it sees.

In play a model reads the frames that it drew itself, mistakes included; in training it would only ever read true ones.
Noise on what is read, while the true frame is to be told, is what keeps play from drifting away (GameNGen, Valevski et
al., arXiv:2408.14837, section 3.2.1).
"""

from dataclasses import replace

import numpy as np

from vpoet.sequence.document import Document
from vpoet.sequence.vocabulary import Modality

LONGEST = 8
"""Frames that a wrong code stands at most: a model that drew one reads it again in the frames that follow."""


def misread(document: Document, share: float, random: np.random.Generator) -> Document:
    """The document with about ``share`` of the codes of its play spans replaced, each by one of the same span, for 1 to
    `LONGEST` frames on end at the same place."""
    spans = list(document.spans)
    for index, span in enumerate(spans):
        if span.modality is Modality.PLAY and span.codes.size:
            codes = span.codes.reshape(len(span.codes), -1)
            begins = random.random(codes.shape) < 2 * share / (1 + LONGEST)
            lasts = random.integers(1, LONGEST + 1, codes.shape)
            others = random.permutation(codes.reshape(-1)).reshape(codes.shape)
            values = span.values.copy()
            wrong = values[:, span.arity + 1 :]
            for frame, place in np.argwhere(begins).tolist():
                wrong[frame : frame + lasts[frame, place], place] = others[frame, place]
            spans[index] = replace(span, values=values)
    return replace(document, spans=tuple(spans))
