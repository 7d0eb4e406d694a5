"""Streaming: frames as soon as their tokens are decoded.

tokens   | cell 0 | cell 1       | cell 2
frames            | 0            | 1 2 3 4      | 5 6 7 8
"""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from vpoet.arrays import Frames, Ints
from vpoet.errors import PromptError
from vpoet.generate import in_order
from vpoet.generate.decode import stream
from vpoet.generate.model import Model
from vpoet.generate.plan import Plan
from vpoet.generate.request import Request
from vpoet.generate.sampling import Sampling
from vpoet.generate.threads import few_threads
from vpoet.nn.transformer import Transformer


def live(model: Model, request: Request, sampling: Sampling = Sampling()) -> Iterator[Frames]:
    """The frames of one window's clip, uint8 [T, H, W, 3] for each cell in time, while the next cell is being decoded.

    Together they are what `Model.sample` gives, to the rounding of a pixel. The errors are those of `Model.document`,
    and PromptError for a task whose cells are not made in the order of time behind what is given, for an edit, and for
    a model with a window.
    """
    document = model.document(request)
    if request.edit is not None:
        raise PromptError("edit: only a clip that is made anew can be watched")
    if any(span.hidden is not None for span in document.spans):
        raise PromptError(f"{document.task}: only a clip that is made cell after cell can be watched")
    decoding = model.decoding
    if in_order.needed(decoding, [document]):
        raise PromptError(f"{document.task}: a model that was trained with a window cannot be watched; play in it")
    plan = Plan.of(decoding.transformer, [document], guided=sampling.guidance != 1)
    (target,) = (span for span in document.spans if span.target)
    given = [span.values for span in document.spans if span.in_clip and not span.target]
    tokens = stream(decoding, plan, [request.seed], sampling)
    cells = _cells(tokens, decoding.transformer, target.values.shape[1:])
    yield from model.bundle.video.decode_stream(itertools.chain(given, cells))


def _cells(tokens: Iterator[tuple[Tensor, Tensor]], transformer: Transformer, size: tuple[int, int]) -> Iterator[Ints]:
    """Codes [1, h, w] of one cell in time after the other."""
    while True:
        with few_threads(transformer):
            drawn = [ids_B[0] for ids_B, _ in itertools.islice(tokens, size[0] * size[1])]
        if not drawn:
            return
        ids = torch.stack(drawn).tolist()  # a GPU is waited for once a cell
        yield transformer.vocabulary.values(ids, "codes").reshape(1, *size)
