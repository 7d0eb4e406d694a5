"""Who is decoded when: requests come and go at any time, and each clip is that of its request alone.

OneByOne      a request runs to its end before the next one begins
Continuous    all requests in each pass, on a CPU
"""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vpoet.arrays import Longs
from vpoet.generate.decode import stream
from vpoet.generate.decoder import Decoder, beginning, guesses_for
from vpoet.generate.growing import Filled, Growing, Seen
from vpoet.generate.model import Model
from vpoet.generate.plan import Plan
from vpoet.generate.side_by_side import SideBySide
from vpoet.generate.speculate import Draft
from vpoet.generate.step import SETTINGS, Step
from vpoet.generate.threads import few_threads
from vpoet.nn.cache import TILE
from vpoet.nn.rope import Rotation
from vpoet.nn.steady import steady

_MOST_GUESSES = 15
"""Of `guesses_for`."""


class OneByOne:
    """Requests in the order in which they came."""

    MOST = 1
    """Requests at once."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Growing, Iterator[Seen | Filled | None]]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def join(self, growing: Growing) -> None:
        self._waiting.append((growing, _grow(growing)))

    def leave(self, growing: Growing) -> None:
        """It is made no further."""
        self._waiting = [(each, parts) for each, parts in self._waiting if each is not growing]

    def step(self) -> list[tuple[Growing, Seen | Filled | Exception]]:
        """One pass over the network, and what came of it; who has failed, or has no document left, has left."""
        if not self._waiting:
            return []
        growing, parts = self._waiting[0]
        try:
            part = next(parts)
        except Exception as error:
            self.leave(growing)
            return [(growing, error)]
        if growing.document is None:
            self.leave(growing)
        return [] if part is None else [(growing, part)]


class Continuous:
    """Continuous batching on a CPU: all requests of a model in each pass, which brings some tokens of each.

        pass       1    2    3    4    5
        request a  |----|----|----|         what is linear is one product for all of them, and attention one call, each
        request b       |----|----|----|    through its own part of a cache (`vpoet.generate.side_by_side`)

    A token gets the same bits beside others as alone (`vpoet.nn.steady`), and each document has its noise, so that a
    clip does not depend on who else is there, nor on how many codes a pass guesses (`vpoet.generate.speculate`).
    """

    MOST = 8
    """Requests at once."""

    def __init__(self, model: Model) -> None:
        self._transformer = steady(model.bundle.transformer)
        self._plain, self._filtered = (Step(self._transformer, filtered=filtered) for filtered in (False, True))
        self._guesses = model.guesses
        self._members: dict[Growing, _Member | None] = {}
        self._read: tuple[object, Decoder] | None = None
        self._caches = {slots: SideBySide[_Member](slots, self.MOST) for slots in (1, 2)}
        """Of members without and with null prompts."""

    @classmethod
    def is_exact(cls, model: Model) -> bool:
        """Whether each clip is that of its request alone, bit for bit."""
        decoding, transformer = model.decoding, model.bundle.transformer
        if decoding.build is not None or decoding.window or transformer.language.weight.device.type != "cpu":
            return False
        step, width = Step(steady(transformer), filtered=False), 1 + max(model.guesses or 0, _MOST_GUESSES)
        with few_threads(transformer):
            return step.is_exact(2, width) and step.is_exact(2 * cls.MOST, width)

    def __len__(self) -> int:
        return len(self._members)

    def join(self, growing: Growing) -> None:
        self._members[growing] = None

    def leave(self, growing: Growing) -> None:
        """As `OneByOne.leave`."""
        self._drop(growing)
        del self._members[growing]

    def _drop(self, growing: Growing) -> None:
        """Its document is there, or not wanted any more."""
        member, self._members[growing] = self._members.get(growing), None
        if member is not None:
            self._caches[member.slots].leave(member)

    def _begin(self, growing: Growing) -> None:
        """Its next document takes the place of the one before."""
        self._drop(growing)
        plan = growing.plan
        assert plan is not None
        caches, prompt = self._caches[len(plan.slots)], self._prompt(growing, plan)
        fresh = _Member(growing, plan, prompt)
        caches.join(fresh, prompt.cache, plan.size)
        self._members[growing] = fresh

    def _prompt(self, growing: Growing, plan: Plan) -> Decoder:
        """A decoder that has read what a document begins with. The last one is kept: many seeds of a prompt are asked
        for at once."""
        sampling = growing.draws.sampling
        told = sampling, *(beginning(slot) for slot in plan.slots)
        if self._read is None or self._read[0] != told:
            decoding = replace(growing.model.decoding, guesses=0, steady=self._transformer)
            size = max(slot.prefix for slot in plan.slots)
            with few_threads(self._transformer):
                self._read = told, Decoder(decoding, plan.slots, documents=1, size=size, sampling=sampling)
        return self._read[1]

    def step(self) -> list[tuple[Growing, Seen | Filled | Exception]]:
        """As `OneByOne.step`."""
        found: list[tuple[Growing, Seen | Filled | Exception]] = []
        for growing in [*self._members]:
            member = self._members[growing]
            try:
                if member is not None:
                    found += [(growing, part) for part in member.hand_over()]
                if growing.document is None:
                    self.leave(growing)
                elif member is None or member.plan is not growing.plan:
                    self._begin(growing)
            except Exception as error:
                self.leave(growing)
                found.append((growing, error))
        groups = [caches for caches in self._caches.values() if caches.members]
        if groups:
            with few_threads(self._transformer):
                self._pass(groups)
        return found

    @torch.inference_mode()
    def _pass(self, groups: list[SideBySide["_Member"]]) -> None:
        """The next tokens of all."""
        count = sum(len(caches.members) for caches in groups)
        width = 1 + (guesses_for(count) if self._guesses is None else self._guesses)
        asked = [[member.ask(width) for member in caches.members] for caches in groups]
        everyone = list(itertools.chain(*asked))
        through = []
        for caches, each in zip(groups, asked, strict=True):
            place_NW = torch.cat([one.place_NW for one in each])
            longest = max(one.longest for one in each)
            through.append(caches.attend(place_NW, torch.arange(-(-longest // TILE) * TILE)))
        counts = [sum(len(one.ids_T) for one in each) for each in asked]

        def apart(layer: int, q_TQH: Tensor, k_TKH: Tensor, v_TKH: Tensor) -> Tensor:
            parts = zip(through, *(torch.split(x, counts) for x in (q_TQH, k_TKH, v_TKH)), strict=True)
            return torch.cat([own(layer, q, k, v) for own, q, k, v in parts])

        ids_T = torch.from_numpy(np.concatenate([one.ids_T for one in everyone]))
        turn_T2P = torch.cat([one.turn_NW2P for one in everyone]).flatten(0, 1)
        attend = through[0] if len(through) == 1 else apart
        control_PTD = self._controls(everyone)
        h_TD = self._transformer(ids_T, Rotation(*turn_T2P.unbind(1)), attend, self._plain.blocks, control_PTD)
        for caches, state_TD in zip(groups, torch.split(h_TD, counts), strict=True):
            self._draw(caches.members, state_TD, width)

    def _controls(self, asked: list["_Asked"]) -> Tensor | None:
        """What controls add to the states of all, 0 for those without; None if nobody has any."""
        if all(one.control_PTD is None for one in asked):
            return None
        none = self._transformer.norm.weight.new_zeros(1)
        shape = len(self._transformer.places), -1, len(self._transformer.norm.weight)
        each = [(one.control_PTD, len(one.ids_T)) for one in asked]
        return torch.cat([none.expand(shape[0], n, shape[2]) if c is None else c for c, n in each], dim=1)

    def _draw(self, members: list["_Member"], state_TD: Tensor, width: int) -> None:
        """What comes behind each token, of documents that all have null prompts, or none has."""
        # of all documents before that of their null prompts
        h_ND = state_TD.view(len(members), -1, width, state_TD.shape[1]).transpose(0, 1).flatten(0, 2)
        noise_MV = torch.from_numpy(np.concatenate([member.draft.noise(width) for member in members]))
        settings_5M1 = torch.stack([member.settings_5 for member in members], 1).repeat_interleave(width, 1)[..., None]
        step = self._filtered if any(member.filtered for member in members) else self._plain
        ids_M, nats_M = step.draw(h_ND, noise_MV, settings_5M1)
        for member, ids_W, nats_W in zip(members, torch.split(ids_M, width), torch.split(nats_M, width), strict=True):
            member.draft.take(ids_W.numpy(), nats_W.numpy())


class _Asked(NamedTuple):
    """What of a document goes into a pass, slot by slot."""

    ids_T: Longs
    turn_NW2P: Tensor
    """Rotations of their positions."""
    place_NW: Tensor
    """Their places in the cache."""
    longest: int
    """How far the cache is read."""
    control_PTD: Tensor | None
    """What controls add."""


class _Member:
    """A document among others, whose prompt is read: its first token is drawn."""

    def __init__(self, growing: Growing, plan: Plan, prompt: Decoder) -> None:
        self.growing, self.plan, self.slots, self._handed = growing, plan, len(plan.slots), 0
        sampling = growing.draws.sampling
        self.filtered = sampling.filtered
        most = 1 + max(_MOST_GUESSES, growing.model.guesses or 0)
        self.draft = Draft(plan, 0, most, growing.draws.noise)
        with few_threads(growing.model.bundle.transformer):
            ids_1, nats_1 = prompt.draw(torch.from_numpy(self.draft.noise(1)))
        self.draft.take(ids_1.numpy(), nats_1.numpy())
        self.settings_5 = torch.tensor([float(getattr(sampling, name)) for name in SETTINGS])
        # guesses behind the last step stand in its place
        step_S = torch.arange(plan.steps + most).clamp(max=plan.steps - 1)
        self._turn_NS2P, self._place_NS = plan.turn_SN2P[step_S].transpose(0, 1), plan.place_SN[step_S].T

    def ask(self, width: int) -> "_Asked":
        plan, first = self.plan, self.draft.done - 1
        here = slice(first, first + width)
        step_W = torch.arange(first, first + width).clamp(max=plan.steps - 1)
        return _Asked(
            np.tile(self.draft.guess(width), self.slots),
            self._turn_NS2P[:, here],
            self._place_NS[:, here],
            plan.longest[min(here.stop, plan.steps) - 1],
            None if plan.control_PSND is None else plan.control(step_W.expand(self.slots, -1)),
        )

    def hand_over(self) -> Iterator[Seen | Filled]:
        """What there is to see of the tokens that are final since the last time."""
        fresh = [self.draft.of(step) for step in range(self._handed, self.draft.done)]
        self._handed = self.draft.done
        if fresh:
            yield from self.growing.take(*zip(*fresh, strict=True))


Batching = OneByOne | Continuous


def batching(model: Model) -> Batching:
    """Continuous where every clip stays what it is, bit for bit."""
    return Continuous(model) if Continuous.is_exact(model) else OneByOne()


def _grow(growing: Growing) -> Iterator[Seen | Filled | None]:
    """What comes of a request, and None after each pass that gave nothing to see."""
    model, sampling = growing.model, growing.sampling
    while (document := growing.document) is not None:
        if (plan := growing.plan) is None:
            (decoded,) = model.decode([document], [growing.rollout.seed], sampling, growing.on_step)
            yield growing.finish(decoded)
            continue
        tokens = stream(model.decoding, plan, [growing.draws.noise], growing.draws.sampling)
        while growing.plan is plan:
            lot: list[tuple[Tensor, Tensor]] = []
            while len(lot) < growing.lot:
                with few_threads(model.bundle.transformer):
                    more = list(itertools.islice(tokens, 1))
                if not more:
                    break
                lot += more
                yield None
            ids, nats = zip(*lot, strict=True)
            # a GPU is waited for once a cell
            yield from growing.take(torch.stack(ids)[:, 0].tolist(), torch.stack(nats)[:, 0].tolist())
