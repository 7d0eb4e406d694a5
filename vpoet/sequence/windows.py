"""Windows with a sink: until when each token of a document is seen, so that memory does not grow with its frames.

    sink               frames          text 1     frames      text 2     frames
    <bos> .. header    0  1  2  3  4   <close> .. 5  6  7     <close> .. 8 ..
                       |-------| 0 is seen, with a window of 3
                                       |---------------------| text 1 is seen

What stands before the first frame is the sink: it is seen to the end (StreamingLLM, Xiao et al., arXiv:2309.17453). The
tokens of a frame are seen until the first token of the frame a window later. A text between frames is a change of
prompt: it takes the place of the one before it, so that memory stays bounded there, too. From the closing token of the
frames before it on, the text before it, and the structure and guides that followed that, are not seen any more; the
sink stays.

A frame is one cell of the clip's time in whichever span, counted in the order of the document. Actions that are read
off frames which stand before them (the task `inverse`) are told without frames, and are seen to the end.
"""

from dataclasses import replace

import numpy as np

from vpoet.arrays import Ints
from vpoet.sequence.document import FORMS, Document, Sequence
from vpoet.sequence.vocabulary import Modality


def windowed(sequence: Sequence, document: Document, frames: int) -> Sequence:
    """The document's sequence with `Sequence.until` for a window of so many frames; 0: as it is."""
    return replace(sequence, until=until(document, len(sequence), frames)) if frames else sequence


def until(document: Document, length: int, frames: int) -> Ints:
    """[L], for a window of ``frames``, of the document that is ``length`` tokens long."""
    found = np.full(length, length, np.int32)
    for number_L, distance, first in zip(layout(document, length), (frames, 1), (0, 1), strict=True):
        numbers, starts, inverse_L = np.unique(number_L, return_index=True, return_inverse=True)
        begins = dict(zip(numbers.tolist(), starts.tolist(), strict=True))
        ends = np.array([begins.get(number + distance, length) for number in numbers.tolist()], np.int32)
        found = np.where(number_L >= first, ends[inverse_L], found)
    return found


def layout(document: Document, length: int) -> tuple[Ints, Ints]:
    """For each token, the number of its frame, and that of the text it belongs to (0: the sink); -1: to none."""
    frame_L, chapter_L = np.full(length, -1, np.int32), np.zeros(length, np.int32)
    at, frame, chapter, fresh = 2 + 2 * len(document.conditions), 0, 0, False
    for span in document.spans:
        begins = span.modality is Modality.TEXT and fresh
        if begins:  # with the token that closes what stands before it
            chapter, fresh = chapter + 1, False
        chapter_L[at - begins :] = chapter
        at += 1 + len(FORMS[span.modality].header)
        if span.in_clip and span.codes.size:
            size = span.values[0].size
            stop = at + span.values.size
            frame_L[at:stop] = frame + np.arange(stop - at) // size
            chapter_L[at:stop] = -1
            frame, fresh = frame + len(span.values), True
        at += span.values.size + 1
    assert at == length - 1, (at, length)
    return frame_L, chapter_L
