"""Play, frame by frame: actions go in, what comes of them and the next frame are drawn, for ever.

    <target:play> header | none start code .. code | action outcome code .. code | action ...
    sink                   frame 0, all given but    an action is told, and the
                           its codes                 rest of the frame drawn

A frame is drawn one token after the other, or guessed to be like the one before it, several tokens a pass: each token
is determined by those before it and the noise of its place, so what was drawn behind right guesses is what one token a
pass would give, as in `vpoet.generate.speculate`; the proof and its limits stand there. A frame that is known goes in
as a whole (`give`).

Shapes: B documents that are played side by side; N slots of the cache, B or, with guidance, 2B; R tokens of a frame, A
of them actions, one its outcome, the others codes; W tokens of a pass; M of all documents, B * W; V logits.
"""

import copy
import math
from collections.abc import Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vpoet.arrays import Floats, Ints, Longs
from vpoet.errors import PromptError, ShapeError
from vpoet.generate.decoder import Decoding
from vpoet.generate.heads import Heads
from vpoet.generate.play_draft import Draft
from vpoet.generate.play_step import PlayStep
from vpoet.generate.sampling import Sampling
from vpoet.generate.step import SETTINGS, Run, Step
from vpoet.nn.cache import BLOCK
from vpoet.nn.ring import RingCache, RingSizes
from vpoet.nn.rope import Rotation, rotations
from vpoet.nn.steady import steady
from vpoet.nn.visibility import Attend, Visibility
from vpoet.sequence.actions import NONE, START
from vpoet.sequence.arrangements import LATEST
from vpoet.sequence.document import Document, Part, Sequence, Span, build
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Modality

TEXT = 256
"""Tokens that a change of prompt may take, with the structure around it."""
GUESSES, TOGETHER = 31, 7
"""Of the tokens of a frame, at most, of one document and of each of several: few passes, of which each costs little
more than a short one (`python tests/bench play_pace play_futures`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """How a model's play is written."""

    fps: int
    grid: tuple[int, int]
    """Height and width of a frame, in cells."""
    actions: int
    """Action tokens of a frame."""

    @property
    def tokens(self) -> int:
        """Of a frame."""
        return self.actions + 1 + math.prod(self.grid)


@dataclass(frozen=True, eq=False, slots=True)
class Played:
    """What came of a step."""

    outcome_B: Ints
    """Values of their range (`vpoet.sequence.actions`)."""
    codes_Bhw: Ints
    nats_BR: Floats
    """-log p of each drawn token under the plain conditional model; 0 for what was given."""


class PlayDecoder:
    """Documents of play, as far as they have been played."""

    @torch.inference_mode()
    def __init__(
        self,
        decoding: Decoding,
        scene: Scene,
        texts: Items[Ints],
        *,
        sampling: Sampling = Sampling(),
        length: int,
    ) -> None:
        """Read the prompts, pieces of text. The window is that of ``decoding``; a model without one plays as long as
        its document has ``length`` tokens at most. Passes are those of `Decoding.build_play`, if it has one."""
        transformer = decoding.transformer
        assert not transformer.training, "dropout would be sampled too: call eval() first"
        self.scene, self._vocabulary = scene, transformer.vocabulary
        self._network, build = steady(transformer), decoding.build_play
        self._heads = Heads(self._network, sampling)
        self._guided = sampling.guidance != 1
        self._settings = torch.tensor([float(getattr(sampling, name)) for name in SETTINGS], device=self._device)
        slots = [self._begin(text, 0) for text in self._texts(texts)]
        step = PlayStep(transformer if build else self._network, filtered=sampling.filtered)
        step = step if build else steady(step)  # its last map, too
        self._step, self._fixed = step, decoding.guesses
        self.width = self._guesses(len(slots), len(texts)) + 1
        """Tokens of a pass."""
        lengths = tuple(slot.prefix for slot in slots)
        sinks = np.array(lengths) - scene.actions - 1
        fits = (length - int(sinks.max())) // scene.tokens
        if fits < 1:
            raise ShapeError(f"a prompt and a frame take more than the {length} tokens that this model was trained on")
        self._length = 0 if decoding.window else length
        """Tokens that a document may have; 0: any number."""
        sink = -(-int(sinks.max()) // BLOCK) * BLOCK  # a compiled pass serves prompts of many lengths
        self._sizes = RingSizes(sink, 0, decoding.window or fits, scene.tokens)
        self._draws: Run = build(step, len(texts), len(slots), self.width) if build else step
        weight = transformer.language.weight
        self._cache = RingCache(transformer.config, self._sizes, slots=len(slots), like=weight)
        visibility = Visibility(lengths, lengths if decoding.bidirectional else (0,) * len(lengths))
        attend = self._cache.prefill(visibility, decoding.attention(visibility, weight.device), sinks)
        positions = np.concatenate([slot.positions[: slot.prefix] for slot in slots])
        self._run(np.concatenate([slot.ids[: slot.prefix] for slot in slots]), positions, attend)
        frame = [slice(int(sink), int(sink) + scene.tokens) for sink in sinks]
        self._places_NR3 = np.stack([one.positions[at] for one, at in zip(slots, frame, strict=True)]).astype(np.int64)
        """Positions of the first frame's tokens."""
        self._here_N = np.array([one.positions[: at.start].max() + 1 for one, at in zip(slots, frame, strict=True)])
        """The position behind all texts."""
        self._ids_BR = np.stack([one.ids[at] for one, at in zip(slots, frame, strict=True)])
        self._ids_BR = self._ids_BR[: len(texts)].astype(np.int64)
        """The frame before."""
        self.passes = 0
        """Through the network, to draw frames."""

    @property
    def frames(self) -> int:
        """That have been played."""
        return self._cache.frames

    @torch.inference_mode()
    def step(self, actions_BA: Ints | None, generators: Items[np.random.Generator]) -> Played:
        """The next frame of each document, and what came of the actions, values of their range, that lead to it; None
        for the first frame, to which none does. A document's generator gives the noise of this frame.

        ShapeError: the document is full, and its model has no window.
        """
        scene, first, at = self.scene, self.scene.actions + 1, self._cache.frames
        assert (actions_BA is None) == (at == 0)
        self._expect_room()
        self._ids_BR = self._ids_BR.copy()  # all but the actions is guessed to be as it was
        if actions_BA is not None:
            self._ids_BR[:, : first - 1] = self._vocabulary.ids(actions_BA, "actions")
        outcome, codes = (
            torch.from_numpy(np.stack([self._heads.noise(payload, one, count) for one in generators])).to(self._device)
            for payload, count in (("outcomes", 1), ("codes", scene.tokens - first))
        )
        nats_BR = np.zeros(self._ids_BR.shape, np.float32)
        begins, known = (first - 1, first) if at == 0 else (0, first - 1)
        drafts = [
            Draft(ids_R, nats_R, begins, known, self.width) for ids_R, nats_R in zip(self._ids_BR, nats_BR, strict=True)
        ]
        while not all(draft.through for draft in drafts):
            offset_BW = np.stack([draft.offsets() for draft in drafts])
            ids, nats = self._draw(offset_BW, outcome, codes)
            for draft, ids_W, nats_W in zip(drafts, ids, nats, strict=True):
                draft.take(ids_W, nats_W)
        self._cache.frames += 1
        outcome_B = self._vocabulary.values(self._ids_BR[:, first - 1], "outcomes")
        codes_BC = self._vocabulary.values(self._ids_BR[:, first:], "codes")
        return Played(outcome_B, codes_BC.reshape(-1, *scene.grid), nats_BR)

    @torch.inference_mode()
    def give(self, rows_BR: Ints) -> Tensor:
        """A frame that is known goes in: the values, each of its range, of its actions, outcome and codes; the states
        [B, R', D] behind each of its tokens, but in the first frame for the actions. ShapeError as of `step`."""
        self._expect_room()
        first = self.scene.actions + 1
        ranges = (rows_BR[:, : first - 1], "actions"), (rows_BR[:, first - 1 : first], "outcomes")
        parts = [self._vocabulary.ids(values, name) for values, name in (*ranges, (rows_BR[:, first:], "codes"))]
        ids_BR = self._ids_BR = np.concatenate(parts, 1).astype(np.int64)
        begins = first - 1 if self.frames == 0 else 0  # what stands before was read with the prompt
        offset_BW = np.tile(np.arange(begins, self.scene.tokens), (len(rows_BR), 1))
        ids_NW, offset_NW = self._of_slots(ids_BR[:, begins:]), self._of_slots(offset_BW)
        positions_NW3 = self._positions(offset_NW)
        h_TD = self._run(ids_NW.reshape(-1), positions_NW3.reshape(-1, 3), self._cache.attend_frame(offset_NW))
        self._cache.frames += 1
        return h_TD.view(*offset_NW.shape, -1)[: len(rows_BR)]

    @torch.inference_mode()
    def tell(self, texts: Items[Ints]) -> None:
        """Change the prompts, between two frames; they take the place of the last ones that were told so.

        PromptError: a text is too long, or the second one of a model without a window.
        """
        if self._length and self._cache.text_N.any():
            raise PromptError("this model was trained without a window (data.window): its prompt can change once")
        time = self._cache.frames
        assert time > 0
        said = []
        for text in self._texts(texts):
            begun = self._begin(text, time)
            ids = begun.ids[2 : len(begun) - 2 - self.scene.tokens]
            said.append(np.concatenate([[self._vocabulary.special("<close:play>")], ids]).astype(np.int64))
        longest = max(map(len, said))
        if longest > TEXT:
            raise PromptError(
                f"the prompt is {longest - TEXT} tokens too long: a change of prompt takes {TEXT} at most"
            )
        if self._sizes.text == 0:
            self._cache = self._cache.with_text(TEXT)
            self._sizes = self._cache.sizes
        count_N1 = np.array([[len(ids)] for ids in said])
        offset_NW = np.minimum(np.arange(longest), count_N1 - 1)  # a shorter one idles at its last token
        ids_NW = np.stack([ids[offset_W] for ids, offset_W in zip(said, offset_NW, strict=True)])
        played_N = (self._places_NR3 + np.array([time - 1, 0, 0])).max((1, 2)) + 1
        here_N1 = np.maximum(self._here_N, played_N)[:, None]
        positions_NW3 = np.repeat((here_N1 + offset_NW)[..., None], 3, axis=2)
        self._run(ids_NW.reshape(-1), positions_NW3.reshape(-1, 3), self._cache.attend_text(offset_NW))
        self._here_N = (here_N1 + count_N1)[:, 0]

    def fork(self, documents: Items[int] | None = None) -> "PlayDecoder":
        """The same documents at the same frame, on a cache of their own: all of them, or these, each as often as it is
        named; not where passes were built for so many documents (`Decoding.build_play`)."""
        other = copy.copy(self)
        if documents is None:
            other._cache = self._cache.copy()
            return other
        assert self._draws is self._step
        count, rows = len(self._ids_BR), np.array(documents, np.int64)
        slots = np.concatenate([rows, rows + count]) if self._guided else rows
        other._cache, other._ids_BR = self._cache.copy(slots), self._ids_BR[rows]
        other._places_NR3, other._here_N = self._places_NR3[slots], self._here_N[slots]
        if len(rows) != count:
            other.width = other._guesses(len(slots), len(rows)) + 1
        return other

    def state(self) -> dict[str, Tensor]:
        """All that `put` needs to go on from here."""
        cache = self._cache
        numbers = {"sink": cache.sink_N, "text": cache.text_N, "places": self._places_NR3, "here": self._here_N}
        held = {name: torch.from_numpy(x) for name, x in (*numbers.items(), ("ids", self._ids_BR))}
        for name, layers in (("keys", cache.keys), ("values", cache.values)):
            held |= {f"{name}.{layer}": x for layer, x in enumerate(layers)}
        sizes = self._sizes
        told = torch.tensor([sizes.text, sizes.window, sizes.frame, sizes.sink])
        return held | {"frames": torch.tensor(cache.frames), "sizes": told}

    @torch.inference_mode()
    def put(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state` of as many documents of the same model. KeyError, RuntimeError: it is of another."""
        sizes, like = self._sizes, self._cache.keys[0]
        text, *others, sink = state["sizes"].tolist()
        if others != [sizes.window, sizes.frame]:
            raise KeyError("sizes")
        self._sizes = replace(sizes, sink=sink, text=text)
        cache = RingCache(self._network.config, self._sizes, slots=len(self._here_N), like=like)
        for name, layers in (("keys", cache.keys), ("values", cache.values)):
            for layer, x in enumerate(layers):
                x.copy_(state[f"{name}.{layer}"])
        cache.sink_N, cache.text_N = state["sink"].numpy(), state["text"].numpy()
        cache.frames = int(state["frames"])
        self._places_NR3, self._here_N = state["places"].numpy(), state["here"].numpy()
        self._ids_BR, self._cache = state["ids"].numpy(), cache

    def _guesses(self, slots: int, documents: int) -> int:
        """Those that were asked for, or as many as pay where they change no bit: most of a frame stays."""
        if self._fixed is not None:
            return self._fixed
        most = min(GUESSES if documents == 1 else TOGETHER, self.scene.tokens - 1)
        plain = Step(self._network, filtered=self._step.filtered)
        return most if self._device.type == "cpu" and plain.is_exact(slots, most + 1) else 0

    def _expect_room(self) -> None:
        at = self._cache.frames
        filled = int((self._cache.sink_N + self._cache.text_N).max()) + (at + 1) * self.scene.tokens
        if 0 < self._length < filled:
            raise ShapeError(
                f"play ends here: {at} frames fill the {self._length} tokens of the documents that this model was "
                "trained on, and it was trained without a window (data.window), so it can forget none; begin again"
            )

    def _texts(self, texts: Items[Ints]) -> list[Ints]:
        """Of all slots: a null prompt has none."""
        return [*texts, *([texts[0][:0]] * len(texts) if self._guided else [])]

    def _begin(self, text: Ints, time: int) -> Sequence:
        """A text, and play whose first frame is blank."""
        row = np.zeros((1, self.scene.tokens), np.int32)
        row[0, : self.scene.actions], row[0, self.scene.actions] = NONE, START
        play = Span(
            Modality.PLAY, row, True, fps=self.scene.fps, time=min(time, LATEST), grid=self.scene.grid,
            produced=Part.OUTCOMES | Part.FRAMES,
        )  # fmt: skip
        return build(Document(TABLE["play"].name, (Span(Modality.TEXT, text), play)), self._vocabulary)

    @property
    def _device(self) -> torch.device:
        return self._network.language.weight.device

    def _draw(self, offset_BW: Longs, outcome_B1V: Tensor, codes_BCV: Tensor) -> tuple[Longs, Floats]:
        """Tokens of the frame go in, at their offsets in it, and those behind each are drawn, with their nats: [B, W],
        [B, W]. What is drawn where the next token is given, or of the next frame, means nothing."""
        count, width = offset_BW.shape
        first = self.scene.actions + 1
        offset_NW = self._of_slots(offset_BW)
        turn = self._turn(self._positions(offset_NW).reshape(-1, 3))
        at_BW = torch.from_numpy((offset_BW + 1 - first).clip(0, codes_BCV.shape[1] - 1)).to(self._device)
        noise_MV = codes_BCV[torch.arange(count, device=self._device)[:, None], at_BW].flatten(0, 1)
        ids_2M, nats_2M = self._draws(
            torch.from_numpy(np.take_along_axis(self._ids_BR, offset_BW, 1)).to(self._device),
            torch.stack(turn, 1).view(*offset_NW.shape, 2, -1),
            *self._cache.places(offset_NW),
            torch.cat((noise_MV, outcome_B1V[:, 0].repeat_interleave(width, 0)), 1),
            self._settings,
            self._cache.keys,
            self._cache.values,
        )
        self.passes += 1
        is_code_BW = offset_BW + 1 != first - 1
        ids, nats = (x.view(2, count, width).cpu().numpy() for x in (ids_2M, nats_2M))
        return np.where(is_code_BW, *ids), np.where(is_code_BW, *nats)

    def _of_slots(self, each_BW: Longs) -> Longs:
        """What a document and its null prompt have in common, of each slot."""
        return np.tile(each_BW, (len(self._places_NR3) // len(each_BW), 1))

    def _positions(self, offset_NW: Longs) -> Longs:
        """[N, W, 3], of tokens of the frame."""
        slot_N1 = np.arange(len(offset_NW))[:, None]
        positions: Longs = self._places_NR3[slot_N1, offset_NW] + np.array([self._cache.frames, 0, 0])
        return positions

    def _turn(self, positions_T3: Longs) -> Rotation:
        """Angles are of double precision: play goes on for ever."""
        config = self._network.config
        return rotations(torch.from_numpy(positions_T3).to(self._device, torch.double), config.head, config.rope_base)

    def _run(self, ids_T: Ints | Longs, positions_T3: Longs, attend: Attend) -> Tensor:
        """Tokens go in, and nothing is drawn: the states [T, D] behind them."""
        ids = torch.from_numpy(ids_T.astype(np.int64)).to(self._device)
        h_TD: Tensor = self._network(ids, self._turn(positions_T3), attend)
        return h_TD
