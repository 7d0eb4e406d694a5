"""Rollouts: clips that take several documents: long videos, stories, text to image to video.

A long clip is a sliding window. Each window continues the last frames of what is there, encoded again, for which the
model was trained (a continuation): no more than a window's frames are ever held, and the clip has no longest length.

    frames made    0 ........ 16 ....... 32 ....... 48
    window 1       [ made      ]
    window 2               [ given | made ]
    window 3                         [ given | made ]

A window has the length that the model knows: where it would pass a change of the prompt, or the clip's end, it begins
earlier instead.

The clip's first frame is not kept in later windows as an anchor: no task of the table gives the model a frame from
before the window's first, so it has never seen one there. What stays in view keeps its looks without one, for hundreds
of frames (`vpoet drift`, sample/README.md); what has left the picture is told to later windows by the prompt alone.
"""

from collections import deque
from collections.abc import Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

import numpy as np

from vpoet.arrays import Frames
from vpoet.bundle import Bundle
from vpoet.errors import PromptError
from vpoet.generate.asks.base import ROLLING, Ask, frame_size
from vpoet.generate.asks.conditions import conditions
from vpoet.generate.asks.control import cut, pictured, restyles
from vpoet.generate.asks.edit import Edit
from vpoet.generate.asks.table import document, expect_whole, family, joined, render, served
from vpoet.generate.decode import OnStep
from vpoet.generate.edit import Redraw
from vpoet.generate.plan import Decoded
from vpoet.generate.request import ControlClip, Request
from vpoet.generate.sampling import Sampling
from vpoet.generate.tiling import Tiling
from vpoet.media.video import Video
from vpoet.sequence.arrangements import Given, Sample
from vpoet.sequence.document import Document

LONGEST = 10_000_000
"""Frames of a clip: two weeks at 8 per second. Its windows are listed before the first is made."""


@dataclass(frozen=True, slots=True)
class Window:
    """One document's part of a clip, in cells of time."""

    start: int
    made: int
    """Cells of the clip before the first that is made here: ``start`` to ``made`` are given."""
    stop: int
    prompt: str


class Rollout:
    """A request as a chain of documents, each of which must be filled before the next is known.

    Fill ``document`` with ``seed``, hand it to `take`, and go on until there is none. The errors that any of them can
    have are raised here, those of `document` and `windows`.
    """

    tiled = False
    """Whether a document's frames are parts of the clip's frames."""

    def __init__(self, bundle: Bundle, request: Request) -> None:
        self._bundle = bundle
        self._windows = deque(windows(request, bundle))
        self._picture_first = request.via_image
        self._tail: Frames | None = None
        self._controls: Items[ControlClip] = ()
        """Of the whole clip, where it takes several documents."""
        self._index = 0
        self.was = ""
        """What an edit takes its clip to show."""
        self.count = len(self._windows) + request.via_image
        """Documents in all."""
        self._plain = replace(request, story=(), via_image=False, window=None, overlap=None)
        if self.count > 1:
            self._check(request)
            first = self._windows[0]
            if request.control:
                fps, (t, h, w) = (
                    self._rate(request),
                    _grid(request, bundle, bundle.video.frames(self._windows[-1].stop)),
                )
                size = bundle.video.frames(t), bundle.video.stride[1] * h, bundle.video.stride[1] * w
                self._controls = pictured(request, bundle, size, fps)
                self._plain = replace(self._plain, video=None) if restyles(request) else self._plain
            self._plain = replace(self._plain, frames=bundle.video.frames(first.stop))
        self._ask(replace(self._plain, frames=1) if request.via_image else self._plain)
        assert self.document is not None
        fps = self._rate(request)
        self.fps = fps if self.count > 1 else max(span.fps for span in self.document.spans)
        """Frames per second of the clip; 0 for an image."""
        self.size = self.count, sum(span.values.size for span in self.document.spans)
        """How much there is to do: documents, and tokens of the first."""

    def _check(self, request: Request) -> None:
        """Raise now what the documents to come would raise."""
        first, *later = self._windows
        bundle, fps, told = self._bundle, self._rate(request), conditions(request, self._bundle)
        tasks = [(window, "continuation") for window in later] + ([(first, "i2v")] if request.via_image else [])
        for window, task in tasks:
            grid = _grid(request, bundle, bundle.video.frames(window.stop - window.start))
            text = np.array(bundle.text.encode(window.prompt), np.int32)
            sample = Sample(text, np.zeros(grid, np.int32), fps, conditions=told)
            served(bundle, sample, task, Given(max(1, window.made - window.start)))

    def _rate(self, request: Request) -> int:
        return self._bundle.config.fps if request.fps is None else request.fps

    def _ask(self, request: Request) -> None:
        if self._controls:
            first, frames = self._windows[0].start * self._bundle.video.stride[0], request.frames
            assert frames is not None
            request = replace(request, control=cut(self._controls, first, frames))
        self._asked = request
        self.document: Document | None = document(request, self._bundle)
        # the first window is what a short clip of the same seed is
        seeds = np.random.SeedSequence([request.seed, self._index])
        self.seed: int | Redraw = int(seeds.generate_state(1, np.uint64)[0]) if self._index else request.seed
        if request.edit is not None:
            edit = Edit(request, self._bundle)
            self.seed, self.was = edit.redraw(self.document), edit.was()

    @property
    def whole(self) -> bool:
        """Whether the codes of its one document are the clip."""
        return self.count == 1 and family(self._plain)[0].joined is Ask.joined

    @property
    def held(self) -> int:
        """Frames that are kept for the next window."""
        return 0 if self._tail is None else len(self._tail)

    @property
    def known(self) -> int:
        """Frames with which the document's clip begins that the request's clip has already."""
        made = 0 if self._picture_first or not self._windows else self._windows[0].made - self._windows[0].start
        return self._bundle.video.frames(made) if made else 0

    def take(self, document: Document, drawn: Frames | None = None) -> Iterator[Frames]:
        """Go on to the next document, and return the frames that this one adds to the clip, in pieces uint8
        [T, H, W, 3] (an image that a video shall start from adds none). ``drawn`` are all frames of its codes, where
        they are at hand.

        The video that a clip leads to is read while its pieces are taken, and so are its errors found, those of
        `Ask.joined`.
        """
        video, frames = render(document, self._bundle, drawn=drawn), self._bundle.video.frames
        self._index += 1
        if self._picture_first:
            self._picture_first = False
            self._ask(replace(self._plain, image=video))
            return iter((video.frames[:0],))
        window = self._windows.popleft()
        fresh = video.frames[frames(window.made - window.start) if window.made else 0 :]
        if not self._windows:
            self.document = self._tail = None
            return joined(fresh, self._asked, self._bundle)
        window = self._windows[0]
        made = fresh if self._tail is None else np.concatenate([self._tail, fresh])
        self._tail = made[-frames(window.made - window.start) :].copy()  # a view would hold all that was decoded
        self._ask(
            replace(
                self._plain,
                image=None,
                video=Video(self._tail, self.fps),
                given_frames=len(self._tail),
                frames=frames(window.stop - window.start),
                prompt=window.prompt,
            )
        )
        return iter((fresh,))


def windows(request: Request, bundle: Bundle) -> list[Window]:
    """How a request's clip is made in parts: one, unless it is longer than a window, or its prompt changes.

    PromptError: there is no such window or overlap, or a change of the prompt lies outside of the clip, or the request
    is of a kind that is made in one piece.
    """
    config, tokenizer = bundle.config, bundle.video
    stride = tokenizer.stride[0]
    asked, task = family(request)
    expect_whole(request, task, tokenizer)
    if request.via_image and task != "t2v":
        raise PromptError("via_image makes the first frame: an image or a video that is given would be it")
    if not asked.takes.issuperset(ROLLING):
        return [Window(0, 0, 1, request.prompt)]
    total = _grid(request, bundle, config.frames if request.frames is None else request.frames)[0]
    most = _grid(request, bundle, config.frames if request.window is None else request.window)[0]
    if most < total and not tokenizer.causal:
        raise PromptError(
            f"a clip of {tokenizer.frames(total)} frames is made in windows of {tokenizer.frames(most)}, each the "
            "continuation of the one before, and this model's video tokenizer, which is not causal, has no codes of "
            f"what a clip begins with: ask for {tokenizer.frames(most)} frames or fewer"
        )
    if most == 1 < total:
        raise PromptError(
            f"a clip of {tokenizer.frames(total)} frames is made in windows of {tokenizer.frames(2)} or more"
        )
    overlap = _cells(request.overlap, stride, max(1, most // 2), most)
    prompts = {0: request.prompt} | _changes(request, stride, tokenizer.frames(total))
    made, found = 0, []
    for begin, end in pairwise([*prompts, total]):
        while made < end:
            stop = min(made + most - overlap if made else most, end)
            found.append(Window(max(0, stop - most), made, stop, prompts[begin]))
            made = stop
    if request.via_image and found[0].stop == 1:
        raise PromptError(f"via_image: a video that starts from an image has {tokenizer.frames(2)} frames or more")
    return found


def _grid(request: Request, bundle: Bundle, frames: int) -> tuple[int, int, int]:
    if frames > LONGEST:
        raise PromptError(f"frames = {frames}: a clip has at most {LONGEST}; continue it with another")
    return bundle.video.grid(frames, *frame_size(request, bundle))


def _cells(frames: int | None, stride: int, default: int, most: int) -> int:
    """Cells that an overlap of so many frames fills, 1 to ``most - 1``."""
    if frames is None:
        return default
    if not 1 <= frames <= 1 + stride * (most - 2) or (frames - 1) % stride:
        choices = ", ".join(str(1 + stride * (n - 1)) for n in range(1, most)) or "none"
        raise PromptError(f"overlap = {frames}: for windows of {1 + stride * (most - 1)} frames it is {choices}")
    return 1 + (frames - 1) // stride


def _changes(request: Request, stride: int, frames: int) -> dict[int, str]:
    """The cells from which on a story's prompts hold."""
    given = [frame for frame, _ in request.story]
    cells = [-(-frame // stride) for frame in given]
    if any(not 1 <= frame < frames for frame in given) or any(a >= b for a, b in pairwise(cells)):
        raise PromptError(
            f"story: prompts change at frames {', '.join(map(str, given))}; they must ascend from cell to cell of "
            f"{stride} frames, within 1 to {frames - 1}"
        )
    return dict(zip(cells, (prompt for _, prompt in request.story), strict=True))


class Decodes(Protocol):
    """What fills documents: `vpoet.generate.model.Model`."""

    def decode(
        self, documents: Items[Document], seeds: Items[int | Redraw], sampling: Sampling, on_step: OnStep | None
    ) -> list[Decoded]: ...


def roll(
    model: Decodes, rollouts: Items[Rollout | Tiling], sampling: Sampling, on_step: OnStep | None = None
) -> Iterator[tuple[int, Decoded, Iterator[Frames]]]:
    """Fill the documents of all rollouts together, round by round: (which, its filled document, the frames it adds, in
    pieces)."""
    while live := [(i, rollout, rollout.document) for i, rollout in enumerate(rollouts) if rollout.document]:
        documents = [document for _, _, document in live]
        decoded = model.decode(documents, [rollout.seed for _, rollout, _ in live], sampling, on_step)
        for (i, rollout, _), result in zip(live, decoded, strict=True):
            yield i, result, rollout.take(result.document)
