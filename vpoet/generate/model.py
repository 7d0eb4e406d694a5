"""The model as its users meet it: a prompt in, a video out.

    model = vpoet.load("bundle")
    model.sample("a fox runs to the right", seed=1).write("fox.mp4")
    model.sample("the fox jumps", image="fox.png", cfg=3.0).write("jump.mp4")
    model.sample("the fox rests", frames=257).write("long.mp4")
    model.score("fox.mp4", "a fox runs to the right").per_frame.bits

`Model.sample` is made of steps that are public too, for programs that show progress or want the codes: `rollout` (a
request as a chain of documents), `decode` (their tokens filled in), `Rollout.take` (the frames of a filled document).
"""

import functools
import math
import re
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Items
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vpoet import bundle as bundles
from vpoet.arrays import Floats, Frames, Ints
from vpoet.bundle import Bundle
from vpoet.devices import pick
from vpoet.errors import BackendError, ConfigError, PromptError
from vpoet.generate import completion, in_order
from vpoet.generate.asks.base import sources, unknown_words
from vpoet.generate.asks.control import restyles
from vpoet.generate.asks.edit import Edit
from vpoet.generate.asks.table import document, render, served
from vpoet.generate.compiled_step import StepCompiler
from vpoet.generate.completion import Completion, Segment
from vpoet.generate.decode import OnStep, decode
from vpoet.generate.decoder import Decoding
from vpoet.generate.edit import Redraw
from vpoet.generate.environment import Session, session
from vpoet.generate.fields import about, declared, takes, those_of
from vpoet.generate.graphed_step import GraphedSteps, cuda_capture, cuda_fuse
from vpoet.generate.kept_codes import Source
from vpoet.generate.likelihood import Likelihood, likelihoods, token_nats
from vpoet.generate.notebook import progress_bar
from vpoet.generate.observe import fit, observe
from vpoet.generate.plan import Decoded
from vpoet.generate.request import AUTO, Clip, Request
from vpoet.generate.reward import Reward, Rewards
from vpoet.generate.rollout import Rollout, roll
from vpoet.generate.sampling import Sampling
from vpoet.generate.step import Step
from vpoet.generate.threads import few_threads
from vpoet.generate.tiling import Tiling
from vpoet.generate.wording import best_words
from vpoet.media.video import Video
from vpoet.nn.attention import backend
from vpoet.nn.cache_attention import cache_backend
from vpoet.nn.int8 import Int8Linear, quantise
from vpoet.nn.steady import steady
from vpoet.sequence.document import Document

__all__ = ["PRECISIONS", "Clip", "Model", "Request", "StepCompiler", "load"]


PRECISIONS = ("auto", "fp32", "bf16", "int8")


def load(
    path: str | Path = bundles.SHIPPED,
    device: str = "auto",
    precision: str = "auto",
    compiler: StepCompiler | None = None,
    adapter: str | Path | None = None,
    guesses: int | None = None,
) -> "Model":
    """The model in a bundle folder, by default the one that ships, and an adapter (`vpoet finetune --lora`) if given.

    ``device`` auto: CUDA where there is one. ``precision`` auto: bfloat16 on CUDA, float32 on the CPU; int8 is that of
    the weights, beside bfloat16 for all else, on the CPU. ``guesses``: so many codes each pass guesses and tests, which
    makes decoding faster; 0 is one code a pass, and None as many as pay, where the samples stay as they are bit for
    bit. ``compiler`` makes decoding faster too, once it has compiled (on CUDA `torch.compile` does); its rounding may
    turn a near tie, rarely in fp32 and often in bf16 and int8, which gives another sample (`Model.rounding`).
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision = {precision!r}: there are {', '.join(PRECISIONS)}")
    place = pick(device)
    on_cuda = place.type == "cuda"
    if precision == "int8" and on_cuda:
        raise ConfigError("precision = int8 is for the CPU; on CUDA use bf16")
    half = precision == "bf16" or (precision == "auto" and on_cuda)
    bundle = bundles.load(path, place, torch.bfloat16 if half else torch.float32, adapter)
    if precision == "int8":
        quantise(bundle.transformer)
    return Model(bundle, compiler, guesses)


class Model:
    """A bundle that samples and scores."""

    def __init__(self, bundle: Bundle, compiler: StepCompiler | None = None, guesses: int | None = None) -> None:
        if guesses is not None and not 0 <= guesses <= 4096:
            raise ConfigError(f"guesses = {guesses}: it must be 0 to 4096")
        self.bundle = bundle
        self.compiler = compiler
        self.guesses = guesses
        weight = bundle.transformer.language.weight
        head, windows = bundle.transformer.config.head, bundle.config.window > 0
        self.attention = backend("auto", weight.device, weight.dtype, head=head, windows=windows)
        self._graphs: GraphedSteps | None = None
        if weight.device.type == "cuda":
            self._through = cache_backend("auto", weight.device, weight.dtype)
            self._graphs = GraphedSteps(cuda_capture(), self._through, cuda_fuse if compiler else None)

    @takes(Request, Sampling)
    def sample(self, prompt: str = "", **asked: Any) -> Video:
        """Sample one video; `Request` and `Sampling` say more of each argument. A notebook shows how far it is."""
        request = Request(prompt=prompt, **those_of(Request, asked))
        return self.sample_batch([request], self.sampling(**those_of(Sampling, asked)), progress_bar())[0]

    @takes(Sampling)
    def sampling(self, **asked: Any) -> Sampling:
        """How codes are drawn; guidance and temperature that are None are the model's own."""
        for name, field in declared(Sampling).items():
            if about(field).own and asked.get(name) is None:
                asked[name] = getattr(self.bundle.config, name)
        return Sampling(**asked)

    def unknown(self, prompt: str) -> list[str]:
        """The words of a prompt that no caption had in training, where the bundle knows; they mean nothing to it."""
        return unknown_words(prompt, self.bundle)

    def unfamiliar(self, request: Request) -> list[str]:
        """The pictures and videos of a request that are unlike the training data, in words; none where the model was
        not trained to make images, and so cannot tell.

        Each one's first frame is scored as an image: it is unlike if its codes take more bits than those of a uniform
        draw from the codebook, that is, if knowing the training data makes it harder to foresee.
        """
        if "t2i" not in self.bundle.config.tasks:
            return []
        uniform = math.log2(self.bundle.video.codebook_size)
        found = []
        for name in sources(request) if not restyles(request) else ():
            clip = getattr(request, name)
            first = self.score(clip, request.prompt, frames=1, height=request.height, width=request.width)
            if first.per_token.bits > uniform:
                told = f"the {name}" if isinstance(clip, Video) else str(clip)
                found.append(
                    f"{told}: unlike anything that this model was trained on: {first.per_token.bits:.1f} bits per "
                    f"token, and {uniform:.1f} are those of chance; do not expect that the clip fits to it"
                )
        return found

    @takes(Sampling)
    def complete(
        self, segments: Items[Segment], seed: int = 0, longest: int = in_order.LONGEST, **asked: Any
    ) -> Completion:
        """Texts, images and videos in any order, of which those that are None are made: `vpoet.generate.completion`.
        A text that is made has ``longest`` pieces at most."""
        if not isinstance(seed, int) or seed < 0:
            raise PromptError(f"seed = {seed!r}: it must be an integer of 0 or more")
        asked_for = completion.document(self.bundle, segments, longest)
        with few_threads(self.bundle.transformer):
            (decoded,) = in_order.fill(self.decoding, [asked_for], [seed], self.sampling(**asked), longest=longest)
        return Completion(completion.parts(self.bundle, decoded.document), decoded)

    @takes(Sampling)
    def play(self, prompt: str = "", seed: int = 0, **asked: Any) -> Session:
        """A world that answers, begun with a prompt; its first frame is `Session.frame`. The errors are those of
        `vpoet.generate.environment.session`."""
        world = session(self.bundle, self.decoding, self.sampling(**asked))
        world.reset(seed, prompt)
        return world

    def sample_batch(
        self, requests: Items[Request], sampling: Sampling = Sampling(), on_step: OnStep | None = None
    ) -> list[Video]:
        """Sample all requests together; each one's video is that of the request alone. ``on_step`` counts anew in each
        round of windows."""
        rollouts = [self.rollout(request) for request in requests]
        pieces: list[list[Frames]] = [[] for _ in rollouts]
        for i, _, fresh in roll(self, rollouts, sampling, on_step):
            pieces[i] += fresh
        return [Video(np.concatenate(made), rollout.fps) for made, rollout in zip(pieces, rollouts, strict=True)]

    def stream(
        self, request: Request, sampling: Sampling = Sampling(), on_step: OnStep | None = None
    ) -> Iterator[Frames]:
        """The frames of a clip of any length, uint8 [T, H, W, 3], handed out as they are made; memory does not grow."""
        for _, _, fresh in roll(self, [self.rollout(request)], sampling, on_step):
            yield from fresh

    def rollout(self, request: Request) -> Rollout | Tiling:
        """The chain of documents that makes a request's clip; the errors are those of `document`, and of `likeliest`
        where the model shall say what the clip shows that is edited."""
        if request.edit is not None and request.was == AUTO:
            source = Edit(request, self.bundle).source()
            request = replace(request, was=self.likeliest(source, request.prompt))
        return Tiling(self.bundle, request) if request.upscale else Rollout(self.bundle, request)

    def likeliest(self, clip: Source, prompt: str) -> str:
        """What a clip shows, as near to ``prompt`` as may be: word by word it becomes that of all known words, or none,
        with which the clip is most probable (`score`), until nothing changes. PromptError: no words are known."""
        known = self.bundle.config.words
        if not known:
            raise PromptError("was = auto: this model does not tell the words that it knows; say what the clip shows")

        def score(prompts: Items[Items[str]]) -> list[float]:
            documents = [self.observed(clip.codes, clip.fps, " ".join(words)) for words in prompts]
            return [one.total.nats for one in self.likelihoods(documents)]

        return " ".join(best_words(re.findall(r"\w+", prompt.lower()), known, score))

    def document(self, request: Request) -> Document:
        """`vpoet.generate.asks.table.document` with this model."""
        return document(request, self.bundle)

    def decode(
        self,
        documents: Items[Document],
        seeds: Items[int | Redraw],
        sampling: Sampling = Sampling(),
        on_step: OnStep | None = None,
    ) -> list[Decoded]:
        """`vpoet.generate.decode.decode` with this model."""
        if self.compiler is not None and in_order.needed(self.decoding, documents):
            raise BackendError(
                "a compiled step draws images and videos alone, for models without a window: decode this uncompiled"
            )
        count = len(documents)
        # a compiled step is for one number of documents: few numbers, few compilations
        spare = [0] * (0 if self.compiler is None else (1 << (count - 1).bit_length()) - count)
        with few_threads(self.bundle.transformer):
            documents, seeds = ([*given, *(given[i] for i in spare)] for given in (documents, seeds))
            decoded = decode(self.decoding, documents, seeds, sampling, on_step)
        return decoded[:count]

    @property
    def precision(self) -> str:
        """What the weights are, of `PRECISIONS`: auto has become one of the others."""
        if any(isinstance(module, Int8Linear) for module in self.bundle.transformer.modules()):
            return "int8"
        return "fp32" if self.bundle.transformer.norm.weight.dtype == torch.float32 else "bf16"

    @property
    def decoding(self) -> Decoding:
        """How this model decodes."""
        plain = Decoding(
            transformer=self.bundle.transformer,
            attention=self.attention,
            bidirectional=self.bundle.config.bidirectional,
            window=self.bundle.config.window,
            guesses=self.guesses,
        )
        if self._graphs:
            return replace(plain, build=self._graphs, through=self._through, memory=self._graphs.cache)
        if self.compiler is None:
            return plain
        build = functools.partial(self.compiler, self.bundle.hash)
        return replace(plain, build=build, build_play=functools.partial(self.compiler.play, self.bundle.hash))

    @property
    def rounding(self) -> dict[str, Any]:
        """How codes are decoded, where that may turn near ties otherwise than one code a pass would: empty where the
        codes are the same bit for bit."""
        found: dict[str, Any] = {} if self.compiler is None else {"compiled": True}
        if self.guesses:
            transformer = self.bundle.transformer
            on_cpu = self.compiler is None and transformer.language.weight.device.type == "cpu"
            with few_threads(transformer):
                exact = on_cpu and Step(steady(transformer), filtered=False).is_exact(2, self.guesses + 1)
            found |= {} if exact else {"guesses": self.guesses}
        return found

    def render(self, document: Document, request: Request | None = None) -> Video:
        """`vpoet.generate.asks.table.render` with this model."""
        return render(document, self.bundle, request)

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

    def reward(self, frames: Iterable[Frames], prompt: str = "") -> Iterator[Reward]:
        """How probable each cell of a stream of frames uint8 [H, W, 3] is given those before it, as soon as its frames
        are there: of a clip as long as the model's they are what `score` says. `vpoet.generate.reward` says more."""
        stream = Rewards(self.bundle, self.decoding, prompt)
        yield from (told for frame in frames if (told := stream(frame)) is not None)

    def observed(self, codes: Ints, fps: float, prompt: str = "", given_frames: int = 0) -> Document:
        """A clip [t, h, w] as the document to score: the one that `document` makes to sample it, filled."""
        return served(self.bundle, *observe(self.bundle, codes, fps, prompt, given_frames))

    def token_nats(self, documents: Items[Document]) -> list[Floats]:
        """`vpoet.generate.likelihood.token_nats` with this model: of what was decoded, its nats."""
        config = self.bundle.config
        how: dict[str, Any] = {"length": config.length, "bidirectional": config.bidirectional, "window": config.window}
        return token_nats(self.bundle.transformer, documents, self.attention, **how)

    def likelihoods(self, documents: Items[Document]) -> list[Likelihood]:
        """`vpoet.generate.likelihood.likelihoods` with this model: of what was decoded, the sum of its nats."""
        return likelihoods(
            self.bundle.transformer,
            documents,
            attention=self.attention,
            stride=self.bundle.video.stride,
            first=self.bundle.video.first,
            length=self.bundle.config.length,
            bidirectional=self.bundle.config.bidirectional,
            window=self.bundle.config.window,
        )
