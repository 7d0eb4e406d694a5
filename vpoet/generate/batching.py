"""Who is decoded when: requests come and go at any time, and each clip is that of its request alone.

OneByOne      a request runs to its end before the next one begins
Continuous    all requests in each pass, on a CPU
"""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vpoet.generate.decode import stream
from vpoet.generate.decoder import Decoder, guesses_for
from vpoet.generate.growing import Filled, Growing, Seen
from vpoet.generate.model import Model
from vpoet.generate.noise import fresh
from vpoet.generate.speculate import Draft
from vpoet.generate.step import SETTINGS, Step
from vpoet.generate.threads import few_threads
from vpoet.nn.cache import attend_ahead
from vpoet.nn.rope import Rotation
from vpoet.nn.steady import steady
from vpoet.nn.visibility import Attend

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
        request a  |----|----|----|         what is linear is one product for all of them; through its cache each goes
        request b       |----|----|----|    by itself, so that who comes and goes moves nobody

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
        self._members.pop(growing, None)

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
                    self._members[growing] = _Member(growing)
            except Exception as error:
                self.leave(growing)
                found.append((growing, error))
        members = [member for member in self._members.values() if member is not None]
        if members:
            with few_threads(self._transformer):
                self._pass(members)
        return found

    @torch.inference_mode()
    def _pass(self, members: list["_Member"]) -> None:
        """The next tokens of all."""
        guesses = guesses_for(len(members)) if self._guesses is None else self._guesses
        asked = [member.ask(1 + guesses) for member in members]
        counts = [len(ids_T) for ids_T, *_ in asked]

        def attend(layer: int, q_TQH: Tensor, k_TKH: Tensor, v_TKH: Tensor) -> Tensor:
            parts = zip(asked, *(torch.split(x, counts) for x in (q_TQH, k_TKH, v_TKH)), strict=True)
            return torch.cat([through(layer, q, k, v) for (_, _, through, _), q, k, v in parts])

        ids_T, turn_T2P = (torch.cat([each[i] for each in asked]) for i in (0, 1))  # type: ignore[misc]
        control_PTD = None
        if any(control is not None for *_, control in asked):
            none = self._transformer.norm.weight.new_zeros(len(self._transformer.places), 1, 1)
            width = len(self._transformer.norm.weight)
            each = zip(asked, counts, strict=True)
            control_PTD = torch.cat([none.expand(-1, n, width) if c is None else c for (*_, c), n in each], dim=1)
        h_TD = self._transformer(ids_T, Rotation(*turn_T2P.unbind(1)), attend, self._plain.blocks, control_PTD)
        states = dict(zip(members, torch.split(h_TD, counts), strict=True))
        for slots in (1, 2):
            if group := [member for member in members if member.slots == slots]:
                self._draw(group, [states[member] for member in group], 1 + guesses)

    def _draw(self, members: list["_Member"], states: list[Tensor], width: int) -> None:
        """What comes behind each token, of documents that all have null prompts, or none has."""
        halves = zip(*(torch.split(state_TD, width) for state_TD in states), strict=True)
        h_ND = torch.cat([state_WD for half in halves for state_WD in half])
        noise_MV = torch.from_numpy(np.concatenate([member.draft.noise(width) for member in members]))
        settings_5M1 = torch.cat([member.settings_51.repeat(1, width) for member in members], 1)[..., None]
        step = self._filtered if any(member.growing.sampling.filtered for member in members) else self._plain
        ids_M, nats_M = step.draw(h_ND, noise_MV, settings_5M1)
        for member, ids_W, nats_W in zip(members, torch.split(ids_M, width), torch.split(nats_M, width), strict=True):
            member.draft.take(ids_W.numpy(), nats_W.numpy())


class _Member:
    """A document among others: its prompt is read into a cache of its own, and its first token drawn."""

    def __init__(self, growing: Growing) -> None:
        plan = growing.plan
        assert plan is not None
        self.growing, self.plan, self.slots, self._handed = growing, plan, len(plan.slots), 0
        sampling = growing.sampling
        transformer = growing.model.bundle.transformer
        with few_threads(transformer):
            decoding = replace(growing.model.decoding, guesses=0)
            decoder = Decoder(decoding, plan.slots, documents=1, size=plan.size, sampling=sampling)
            seed = growing.rollout.seed
            assert isinstance(seed, int), "an edit is no request of a batch"
            noise = fresh(seed, sum(transformer.visual.radices), sampling.temperature)
            self.draft = Draft(plan, 0, 1 + max(_MOST_GUESSES, growing.model.guesses or 0), noise)
            ids_1, nats_1 = decoder.draw(torch.from_numpy(self.draft.noise(1)))
        self.draft.take(ids_1.numpy(), nats_1.numpy())
        self.settings_51 = torch.tensor([[float(getattr(sampling, name))] for name in SETTINGS])
        self._cache = decoder.cache

    def ask(self, width: int) -> tuple[Tensor, Tensor, Attend, Tensor | None]:
        """The tokens that go in, slot by slot, the rotations of their positions, attention through the cache, and what
        controls add."""
        plan = self.plan
        step_W = np.minimum(self.draft.done - 1 + np.arange(width), plan.steps - 1)
        at_W, slot_N1 = torch.from_numpy(step_W), torch.arange(self.slots)[:, None]
        ids_T = torch.from_numpy(self.draft.guess(width).copy()).repeat(self.slots)
        reach_S = self._cache.reach(plan.longest[int(step_W.max())])
        through = attend_ahead(self._cache.keys, self._cache.values, plan.place_SN[at_W, slot_N1], reach_S)
        control_PTD = plan.control(at_W.expand(self.slots, -1))
        return ids_T, plan.turn_SN2P[at_W, slot_N1].flatten(0, 1), through, control_PTD

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
        seed = growing.rollout.seed
        assert isinstance(seed, int), "an edit is no request of a batch"
        tokens = stream(model.decoding, plan, [seed], sampling)
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
