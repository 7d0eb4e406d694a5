"""Pictures of sequences and packs in plain characters, for `vpoet inspect` and for people who debug."""

from itertools import pairwise

import numpy as np

from vpoet.sequence.document import KINDS, STRUCTURE, Sequence
from vpoet.sequence.packing import Pack
from vpoet.sequence.vocabulary import Vocabulary

_PLAYED = [KINDS.index(kind) for kind in ("play", "action", "outcome")]


def draw_sequence(sequence: Sequence, vocabulary: Vocabulary) -> str:
    """One line for each run of tokens of a kind: where it stands, what it is, whether it is predicted, its positions.
    Of a target that a context has shown in part, it says how many tokens are predicted; so it does of a frame of play,
    which is a line with what led to it. Where more than four frames stand together, the first two and the last show.

    0..2    structure          <bos> <task:t2v> <context:text>      (0,0,0)..(2,2,2)
    3..9    text               text:5 text:9 .. text:2              (3,3,3)..(9,9,9)
    16..335 video      target  code:71 code:4 .. code:802           (16,16,16)..(20,23,23)
    """
    played = np.isin(sequence.kinds, _PLAYED)
    kinds = np.where(played, _PLAYED[0], sequence.kinds)
    times = np.where(played, sequence.positions[:, 0], 0)
    borders = np.flatnonzero((np.diff(kinds) != 0) | (np.diff(times) != 0)) + 1
    lines: list[str] = []
    frames: list[str] = []
    for start, stop in pairwise([0, *borders.tolist(), len(sequence)]):
        predicted = int(sequence.targets[start:stop].sum())
        names = [vocabulary.name(int(token)) for token in sequence.ids[start:stop]]
        shown = names if kinds[start] == STRUCTURE or len(names) <= 5 else [*names[:3], "..", names[-1]]
        first, last = ("({},{},{})".format(*sequence.positions[i]) for i in (start, stop - 1))
        where = f"{start}..{stop - 1}"
        role = "" if not predicted else "target" if predicted == stop - start else f"{predicted} of"
        line = f"{where:>9}  {KINDS[kinds[start]]:<9} {role:<6}  {' '.join(shown):<60}  {first}..{last}"
        if played[start]:
            frames.append(line)
            continue
        lines += [*_few(frames), line]
        frames = []
    return "\n".join(lines + _few(frames))


def _few(frames: list[str]) -> list[str]:
    return frames if len(frames) <= 4 else [*frames[:2], f"{'..':>9}  {len(frames) - 3} frames", frames[-1]]


def draw_pack(row: Pack, columns: int = 64) -> str:
    """The row, and who sees whom, scaled to ``columns`` characters: ``#`` causal, ``+`` both ways, ``.`` nobody, as
    behind a window.

    A cell of the picture stands for a block of tokens and shows what its first query sees of its first key.
    """
    total = len(row)
    columns = min(columns, total)
    bounds = [0]
    for length in row.lengths:
        bounds.append(bounds[-1] + length)
    documents = len(row.lengths) - (1 if row.padding else 0)
    tokens = [i * total // columns for i in range(columns)]
    owner = [next(d for d in range(len(row.lengths)) if i < bounds[d + 1]) for i in tokens]

    def cell(q: int, k: int) -> str:
        d = owner[q]
        if d != owner[k] or d >= documents:
            return "."
        at_q, at_k = tokens[q] - bounds[d], tokens[k] - bounds[d]
        until = row.until[d] if row.until else None
        if until is not None and at_q >= until[at_k]:
            return "."
        if at_k < row.prefixes[d] and at_q < row.prefixes[d]:
            return "+"
        return "#" if at_k <= at_q else "."

    head = (
        f"{total} tokens, {documents} documents of {', '.join(map(str, row.lengths[:documents]))}; "
        f"{int(row.targets.sum())} predicted, {row.padding} padding ({row.padding / total:.1%})"
    )
    return "\n".join([head, *("".join(cell(q, k) for k in range(columns)) for q in range(columns))])
