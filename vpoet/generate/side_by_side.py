"""Caches of several documents side by side, so that attention through them is one call: who comes and goes is copied.

    lane         0         1         2
    slots        0    1    2    3    4    5          with guidance two a document: it and its null prompt
    document     a         b         c
    a leaves     c         b                         the last one takes its place

A slot's attention is computed by itself, whoever stands beside it, and over whole tiles (`vpoet.nn.cache.TILE`): a
document gets the same bits here as on a cache of its own, its slow twin.

Shapes: N slots, W tokens a slot, S places of a cache.
"""

from typing import Generic, TypeVar

from torch import Tensor

from vpoet.nn.cache import TILE, KVCache, attend_ahead
from vpoet.nn.visibility import Attend

T = TypeVar("T")


class SideBySide(Generic[T]):
    """The caches of members with as many slots each."""

    def __init__(self, slots: int, expected: int) -> None:
        """``slots`` of each member; room for as many members as are ``expected`` at once is made at the beginning."""
        self.members: list[T] = []
        """By their lanes."""
        self._slots, self._expected = slots, expected
        self._held: list[Tensor] = []
        """Of each layer its keys, and then of each its values, [N, K, S, H]."""

    def join(self, member: T, cache: KVCache, size: int) -> None:
        """The member is given the next lane, with what is in a cache, and room for so many tokens."""
        theirs = [*cache.keys, *cache.values]
        self._make_room(-(-size // TILE) * TILE, theirs)
        lane = self._lane(len(self.members))
        for mine, own in zip(self._held, theirs, strict=True):
            mine[lane, :, : cache.size] = own[:, :, : cache.size]
            mine[lane, :, cache.size :] = 0  # what nobody wrote is masked, and must be a number
        self.members.append(member)

    def leave(self, member: T) -> None:
        """The last member takes its lane."""
        at, last = self.members.index(member), self.members.pop()
        if last is not member:
            self.members[at] = last
            for held in self._held:
                held[self._lane(at)] = held[self._lane(len(self.members))]
        if not self.members:
            self._held = []

    def attend(self, place_NW: Tensor, reach_S: Tensor) -> Attend:
        """`attend_ahead` for all members, lane by lane."""
        count, layers = len(self.members) * self._slots, len(self._held) // 2
        held = [each[:count] for each in self._held]
        return attend_ahead(held[:layers], held[layers:], place_NW, reach_S)

    def _lane(self, number: int) -> slice:
        return slice(number * self._slots, (number + 1) * self._slots)

    def _make_room(self, wide: int, like: list[Tensor]) -> None:
        """For one more member, and for so many places. What nobody wrote takes no memory yet."""
        count, lanes = len(self.members) * self._slots, (len(self.members) + 1) * self._slots
        slots, places = (self._held[0].shape[0], self._held[0].shape[2]) if self._held else (0, 0)
        if lanes <= slots and wide <= places:
            return
        lanes, wide = max(lanes, self._expected * self._slots), max(wide, places)
        fresh = []
        for i, own in enumerate(like):
            made = own.new_empty(lanes, own.shape[1], wide, own.shape[3])
            if count:
                made[:count, :, :places] = self._held[i][:count]
                made[:count, :, places:] = 0
            fresh.append(made)
        self._held = fresh
