"""Caches of several documents side by side, so that attention through them is one call: who comes and goes is copied.

    lane         0         1         2
    slots        0    1    2    3    4    5          with guidance two a document: it and its null prompt
    document     a         b         c
    a leaves     c         b                         the last one takes its place

A slot's attention is computed by itself, whoever stands beside it, and over whole tiles (`vpoet.nn.cache.TILE`): a
document gets the same bits here as on a cache of its own, its slow twin.

Shapes: N slots, W tokens a slot, S places of a cache.
"""

from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from vpoet.nn.cache import TILE, KVCache, attend_ahead
from vpoet.nn.visibility import Attend

T = TypeVar("T")


class SideBySide(Generic[T]):
    """The caches of members with as many slots each."""

    def __init__(self, slots: int) -> None:
        self.members: list[T] = []
        """By their lanes."""
        self._slots = slots
        self._held: list[Tensor] = []
        """Of each layer its keys, and then of each its values, [N, K, S, H]."""

    def memory(self, *, layers: int, slots: int, size: int, kv_heads: int, head: int, like: Tensor, **_: Any) -> KVCache:
        """A cache, made as `KVCache` is, that lies in the next lane: whoever has read a prompt into it can `join`."""
        assert slots == self._slots
        self._make_room(2 * layers, (kv_heads, -(-size // TILE) * TILE, head), like)
        lane = self._lane(len(self.members))
        held = [each[lane] for each in self._held]
        return KVCache.over(held[:layers], held[layers:], size)

    def join(self, member: T) -> None:
        """The member has the next lane, with what is there."""
        self.members.append(member)

    @torch.inference_mode()
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

    def _make_room(self, tensors: int, shape: tuple[int, int, int], like: Tensor) -> None:
        """For one more lane, and for so many places: twice as many lanes as there were, so that few are copied often.
        What nobody wrote is masked, and must be a number."""
        (heads, wide, head), lanes = shape, len(self.members) + 1
        slots, places = (self._held[0].shape[0], self._held[0].shape[2]) if self._held else (0, 0)
        if lanes * self._slots <= slots and wide <= places:
            return
        wanted = slots if lanes * self._slots <= slots else max(2 * slots, lanes * self._slots)
        fresh = [like.new_zeros(wanted, heads, max(places, wide), head) for _ in range(tensors)]
        for made, held in zip(fresh, self._held, strict=False):
            made[:slots, :, :places] = held
        self._held = fresh
