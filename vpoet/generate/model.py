"""The model as its users meet it: a prompt in, a video out.

    model = vpoet.load("bundle")
    model.sample("a fox runs to the right", seed=1).write("fox.mp4")
    model.sample("the fox jumps", image="fox.png", cfg=3.0).write("jump.mp4")
    model.score("fox.mp4", "a fox runs to the right").per_frame.bits

`Model.sample` is made of steps that are public too, for programs that show progress or want the codes:
`document` (a request as tokens), `decode` (the tokens filled in), `render` (the video of a filled document).
"""

from collections.abc import Sequence as Items
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vpoet.data.video import Frames, Video
from vpoet.errors import PromptError, ShapeError
from vpoet.generate import bundle as bundles
from vpoet.generate.bundle import Bundle
from vpoet.generate.decode import Decoded, OnStep, Sampling, decode
from vpoet.generate.fit import fit, observe
from vpoet.generate.likelihood import Likelihood, likelihoods
from vpoet.nn.attention import backend
from vpoet.sequence.document import Document, build
from vpoet.sequence.tasks import TABLE, Sample
from vpoet.sequence.vocabulary import Ints

Clip = Video | str | Path
"""A video or image, or the file that holds it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """What to sample. None: as the training data were."""

    prompt: str = ""
    image: Clip | None = None
    """The first frame."""
    video: Clip | None = None
    """What to continue: its last frames open the clip."""
    given_frames: int | None = None
    """How many of them, 1 + a multiple of the tokenizer's time stride; None: all, but at most half of the clip."""
    frames: int | None = None
    """Frames of the clip, with those that are given; 1 makes an image."""
    height: int | None = None
    """Pixels; what is given is scaled to cover the size, and its centre is taken."""
    width: int | None = None
    fps: int | None = None
    """Frames per second."""
    seed: int = 0


def load(path: str | Path, device: str = "auto") -> "Model":
    """The model in a bundle folder. ``auto``: CUDA in bfloat16 where there is one, else the CPU in float32."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32
    return Model(bundles.load(path, device, dtype))


class Model:
    """A bundle that samples and scores."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        weight = bundle.transformer.language.weight
        self.attention = backend("auto", weight.device, weight.dtype)

    def sample(
        self,
        prompt: str = "",
        *,
        image: Clip | None = None,
        video: Clip | None = None,
        given_frames: int | None = None,
        frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        fps: int | None = None,
        seed: int = 0,
        cfg: float = 1.0,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
    ) -> Video:
        """Sample one video; the arguments are those of `Request` and of `Sampling` (``cfg`` is its guidance)."""
        request = Request(
            prompt=prompt,
            image=image,
            video=video,
            given_frames=given_frames,
            frames=frames,
            height=height,
            width=width,
            fps=fps,
            seed=seed,
        )
        return self.sample_batch([request], Sampling(cfg, temperature, top_k, top_p))[0]

    def sample_batch(
        self, requests: Items[Request], sampling: Sampling = Sampling(), on_step: OnStep | None = None
    ) -> list[Video]:
        """Sample all requests together; each one's video is that of the request alone."""
        documents = [self.document(request) for request in requests]
        decoded = self.decode(documents, [request.seed for request in requests], sampling, on_step)
        return [self.render(one.document) for one in decoded]

    def document(self, request: Request) -> Document:
        """The request as a document whose target is blank.

        PromptError: the model can't serve it, or the prompt is too long. DataError, ShapeError: a size that the
        tokenizer or the model can't make.
        """
        return self._served(*self._arrange(request))

    def _served(self, sample: Sample, task: str, given: int) -> Document:
        """The document of a task; PromptError, ShapeError: the model was not trained for it, or it is too long."""
        if task not in self.bundle.config.tasks:
            trained = ", ".join(self.bundle.config.tasks)
            raise PromptError(f"this model was not trained for {task} ({TABLE[task].meaning}); it was for {trained}")
        document = TABLE[task].document(sample, given)
        length = self.bundle.config.length
        over = len(build(document, self.bundle.transformer.vocabulary)) - length
        if over > len(sample.text):
            t, h, w = sample.codes.shape
            raise ShapeError(
                f"{t}x{h}x{w} cells take {length + over - len(sample.text)} tokens, and this model was trained on "
                f"at most {length}: ask for fewer frames or a smaller size"
            )
        if over > 0:
            allowed = len(sample.text) - over
            raise PromptError(
                f"the prompt takes {len(sample.text)} tokens, and beside a video of this size {allowed} are allowed"
            )
        return document

    def decode(
        self,
        documents: Items[Document],
        seeds: Items[int],
        sampling: Sampling = Sampling(),
        on_step: OnStep | None = None,
    ) -> list[Decoded]:
        """`vpoet.generate.decode.decode` with this model."""
        return decode(
            self.bundle.transformer,
            documents,
            seeds=seeds,
            attention=self.attention,
            sampling=sampling,
            bidirectional=self.bundle.config.bidirectional,
            on_step=on_step,
        )

    def render(self, document: Document) -> Video:
        """The video of a filled document."""
        fps = max(span.fps for span in document.spans)
        return Video(self.bundle.video.decode(document.codes()), fps)

    def _arrange(self, request: Request) -> tuple[Sample, str, int]:
        """The request's text and clip (given cells, then blank ones), its task, and how many cells are given."""
        config, tokenizer = self.bundle.config, self.bundle.video
        frames = config.frames if request.frames is None else request.frames
        height = config.height if request.height is None else request.height
        width = config.width if request.width is None else request.width
        fps = config.fps if request.fps is None else request.fps
        if request.seed < 0:
            raise PromptError(f"seed = {request.seed}: a seed is 0 or more")
        if fps < 1:
            raise PromptError(f"fps = {fps}: a video has at least 1 frame per second")
        if request.image is not None and request.video is not None:
            raise PromptError("an image and a video are given: a clip can open with one of them only")
        if request.given_frames is not None and request.video is None:
            raise PromptError("given_frames says how much of a video to continue, and no video is given")
        codes = np.zeros(tokenizer.grid(frames, height, width), np.int32)
        text = np.array(self.bundle.text.encode(request.prompt), np.int32)
        cells, given, task = len(codes), 0, "t2v"
        if request.image is not None or request.video is not None:
            if cells < 2:
                raise PromptError(f"{frames} frames are all given: ask for {tokenizer.frames(2)} or more")
            if request.image is not None:
                task, opening = "i2v", _open(request.image).frames[:1]
            else:
                task, opening = "continuation", self._opening(request, fps, cells)
            before = tokenizer.encode(Video(opening, fps).resize(height, width))
            given = len(before)
            codes[:given] = before
        elif cells == 1:
            task, fps = "t2i", 0
        if not len(text) and not given and "unconditional" in config.tasks:
            task = "unconditional"
        return Sample(text, codes, fps), task, given

    def _opening(self, request: Request, fps: int, cells: int) -> Frames:
        """The frames of the request's video that the clip opens with: uint8 [T, H, W, 3]."""
        assert request.video is not None
        tokenizer = self.bundle.video
        video = _open(request.video)
        frames = (video.resample(fps) if video.fps else video).frames
        stride = tokenizer.stride[0]
        given = request.given_frames
        if given is None:
            given = tokenizer.frames(min(1 + (len(frames) - 1) // stride, max(1, cells // 2)))
        most = tokenizer.frames(cells - 1)
        if not 1 <= given <= most or (given - 1) % stride:
            choices = ", ".join(str(n) for n in range(1, most + 1, stride))
            raise PromptError(f"given_frames = {given}: for a clip of {tokenizer.frames(cells)} frames it is {choices}")
        if given > len(frames):
            raise PromptError(f"given_frames = {given}, but the video has {len(frames)} frames at {fps} fps")
        return frames[-given:]

    def score(
        self,
        video: Clip,
        prompt: str = "",
        *,
        given_frames: int = 0,
        frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        fps: int | None = None,
    ) -> Likelihood:
        """The likelihood of a clip's codes given the prompt, and given its first ``given_frames`` frames.

        The clip is brought to the size, rate and length asked for, or else to those of the training data. The errors
        are those of `fit`, `observe` and `document`.
        """
        clip = fit(self.bundle, video, frames=frames, height=height, width=width, fps=fps)
        codes = self.bundle.video.encode(clip.video)
        return self.likelihoods([self.observed(codes, clip.video.fps, prompt, given_frames)])[0]

    def observed(self, codes: Ints, fps: float, prompt: str = "", given_frames: int = 0) -> Document:
        """A clip [t, h, w] as the document to score: the one that `document` makes to sample it, filled."""
        return self._served(*observe(self.bundle, codes, fps, prompt, given_frames))

    def likelihoods(self, documents: Items[Document]) -> list[Likelihood]:
        """`vpoet.generate.likelihood.likelihoods` with this model: of what was decoded, the sum of its nats."""
        return likelihoods(
            self.bundle.transformer,
            documents,
            attention=self.attention,
            stride=self.bundle.video.stride,
            length=self.bundle.config.length,
            bidirectional=self.bundle.config.bidirectional,
        )


def _open(clip: Clip) -> Video:
    return clip if isinstance(clip, Video) else Video.read(clip)
