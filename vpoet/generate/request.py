"""What can be asked of a model: the fields of a request. What becomes of them is told in `vpoet.generate.asks`."""

import re
from collections.abc import Sequence as Items
from dataclasses import dataclass
from pathlib import Path

from vpoet.errors import PromptError
from vpoet.generate.fields import Range, asked, unknown
from vpoet.generate.kept_codes import Source
from vpoet.media.video import Video
from vpoet.sequence.controls import KINDS

Clip = Video | str | Path
"""A video or image, or the file that holds it."""
AUTO = "auto"
"""In the place of a control's file: made of the clip that is given a new look."""


@dataclass(frozen=True, eq=False, slots=True)
class ControlClip:
    """A control signal that the clip shall follow (`vpoet.media.control`)."""

    kind: str
    """One of `vpoet.sequence.controls.KINDS`."""
    clip: Clip
    """Its pictures, as long and as large as the clip; or `AUTO`."""
    strength: float = 1.0
    """How far it is to be trusted, 0 to 1."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise PromptError(unknown(self.kind, KINDS, "control"))
        if self.strength not in Range(0, 1):
            raise PromptError(f"control {self.kind}: strength {self.strength}: it must be {Range(0, 1)}")


def read_controls(texts: Items[str]) -> tuple[ControlClip, ...]:
    """From "edges=clip.mp4:0.7" or "edges=auto", once for each kind."""
    found = []
    for text in texts:
        said = re.fullmatch(r"\s*(\w+)\s*=\s*(.+?)\s*(?::\s*(\d*\.?\d+)\s*)?", str(text), re.DOTALL)
        if said is None:
            raise PromptError(
                f"a control is KIND=FILE or KIND=FILE:STRENGTH, as in edges=clip.mp4:0.7, not {text!r:.80}"
            )
        kind, file, strength = said.groups()
        found.append(
            ControlClip(kind, AUTO if file == AUTO else Path(file), 1.0 if strength is None else float(strength))
        )
    return tuple(found)


def read_outpaint(text: str) -> tuple[int, ...]:
    """From "8,0,8,0"."""
    if not re.fullmatch(r"\s*\d{1,9}\s*(,\s*\d{1,9}\s*){3}", text):
        raise PromptError(
            f"outpaint = {text[:80]!r}: write left, top, right and bottom in pixels, for instance 16,0,16,0"
        )
    return tuple(int(part) for part in text.split(","))


def read_story(texts: Items[str]) -> tuple[tuple[int, str], ...]:
    """From "17: a robot jumps", once for each change of prompt."""
    found = []
    for text in texts:
        change = re.fullmatch(r"\s*(\d{1,9})\s*:\s*(.*)", str(text), re.DOTALL)
        if change is None:
            shown = repr(str(text)[:80])
            raise PromptError(f"a story's change of prompt is FRAME: TEXT, as in '17: a robot jumps', not {shown}")
        found.append((int(change[1]), change[2]))
    return tuple(found)


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """What to sample. None: as the training data were."""

    prompt: str = asked("", "What to show.")
    image: Clip | None = asked(None, "The clip's first frame.")
    """With ``mask`` or ``outpaint``, the picture to paint on."""
    last: Clip | None = asked(None, "The clip's last frame.")
    """The clip leads to it, from ``image`` where there is one."""
    video: Clip | None = asked(None, "A video to continue, or what --task says.")
    task: str | None = asked(
        None,
        "What to make of --video. continuation (the default): what follows its end. backward: what leads to "
        "its start. interpolation: more frames between its own, up to --fps.",
    )
    mask: Clip | None = asked(
        None, "An image or video, white where --image, --video or --edit is to be repainted (inpainting)."
    )
    """Of the same size; one frame holds for all. Transparent counts as black."""
    outpaint: tuple[int, int, int, int] | None = asked(
        None,
        "Outpainting: extend --image or --video by this many pixels of the result on each side.",
        metavar="L,T,R,B",
        written=str,
        read=read_outpaint,
    )
    """Left, top, right and bottom."""
    edit: Clip | Source | None = asked(None, "A clip to draw again under --prompt: an edit.")
    """Of a sample the codes are taken as they are, from the record beside it."""
    was: str | None = asked(
        None,
        "What the clip to edit shows; auto: the model finds it. [default: what it was sampled with]",
        metavar="TEXT",
    )
    strength: float | None = asked(
        None,
        "Of an edit: which share of the cells is drawn afresh, 0 to 1; the others keep what the new prompt does not "
        "speak against. [default: 0]",
        allowed=Range(0, 1),
    )
    """The others keep the noise that they were drawn with: at 0, the old prompt gives the old clip."""
    control: Items[ControlClip] = asked(
        (),
        "What the clip follows: pictures of its edges, depth, ... of its own length and size, and how closely, 0 to 1. "
        "auto: made of --video, which is drawn anew, or of --edit. Several times for several.",
        metavar="KIND=FILE[:STRENGTH]",
        written=list[str],
        read=read_controls,
    )
    upscale: bool = asked(
        False, "Super-resolution: --video or --image with twice as many pixels a side, tile by tile, of any size."
    )
    given_frames: int | None = asked(None, "Frames of --video that are given. [default: half a clip]")
    """What a continuation or backward extension is given, 1 + a multiple of the tokenizer's time stride; None: all, but
    at most half of the clip."""
    via_image: bool = asked(False, "First an image, then a video of it.")
    story: Items[tuple[int, str]] = asked(
        (),
        "Another prompt from this frame on; several times for a story.",
        alias="then",
        metavar="FRAME:TEXT",
        written=list[str],
        read=read_story,
    )
    """(frame, prompt), ascending; each holds from its frame on, or from the first frame of its cell."""
    frames: int | None = asked(None, "As many as you like; 1: an image. [default: the model's]")
    """With those that are given. What is painted on, or interpolated, is as long as it is, and at most as the training
    data were."""
    window: int | None = asked(None, "Frames per window of a long video. [default: the model's]")
    """A longer clip is made in windows, each of which continues the one before."""
    overlap: int | None = asked(None, "Frames of the previous window that the next is given. [default: half]")
    """1 + a multiple of the tokenizer's time stride. It has more where a whole window would go beyond a change of
    prompt, or the end."""
    height: int | None = asked(None, "Pixels. [default: the model's]")
    """What is given is scaled to cover the size, and its centre is taken."""
    width: int | None = asked(None, "Pixels. [default: the model's]")
    motion: float | None = asked(
        None,
        "How much moves, of models that learnt it: percent of the picture's height per second, as `vpoet measure` "
        "tells it. [default: nothing is said]",
        allowed=Range(0),
    )
    quality: float | None = asked(
        None,
        "How good the picture is, of models that learnt it: in the measure that they learnt it by. [default: nothing "
        "is said]",
    )
    fps: int | None = asked(None, "Frames per second. [default: the model's]", allowed=Range(1))
    seed: int = asked(0, "The same seed makes the same clip.", allowed=Range(0))
