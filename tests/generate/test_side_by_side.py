"""Caches side by side give each document the attention that it has on a cache of its own."""

import numpy as np
import pytest
import torch

from vpoet.generate.side_by_side import SideBySide
from vpoet.nn.cache import TILE, KVCache, attend_ahead


def own_cache(random: torch.Generator, slots: int, size: int) -> KVCache:
    like = torch.zeros(1)
    cache = KVCache(layers=2, slots=slots, size=size, kv_heads=2, head=8, like=like, block=TILE)
    for held in (*cache.keys, *cache.values):
        held.copy_(torch.randn(held.shape, generator=random))
    return cache


@pytest.mark.parametrize("slots", [1, 2])
def test_who_comes_and_goes_moves_nobody(slots: int) -> None:
    random, chances = torch.Generator().manual_seed(slots), np.random.default_rng(slots)
    shared, alone = SideBySide[int](slots, expected=3), dict[int, KVCache]()
    width, met = 4, set()
    for number in range(40):
        if shared.members and (len(shared.members) == 5 or chances.random() < 0.4):
            left = shared.members[chances.integers(len(shared.members))]
            shared.leave(left)
            del alone[left]
        else:
            alone[number] = own_cache(random, slots, int(chances.choice([TILE // 2, TILE + 1])))
            shared.join(number, alone[number].copy(), alone[number].size + int(chances.choice([0, TILE])))
        assert sorted(shared.members) == sorted(alone)
        if not alone:
            continue
        met.add(len(alone))
        starts = {each: int(chances.integers(alone[each].size - width)) for each in alone}
        places = {each: torch.arange(starts[each], starts[each] + width).repeat(slots, 1) for each in alone}
        q, k, v = (
            {each: torch.randn(slots * width, heads, 8, generator=random) for each in alone} for heads in (4, 2, 2)
        )
        longest = max(starts.values()) + width
        through = shared.attend(
            torch.cat([places[each] for each in shared.members]), torch.arange(-(-longest // TILE) * TILE)
        )
        for layer in range(2):
            found = through(layer, *(torch.cat([x[each] for each in shared.members]) for x in (q, k, v)))
            for each, mine in zip(shared.members, torch.split(found, slots * width), strict=True):
                cache = alone[each]
                by_itself = attend_ahead(cache.keys, cache.values, places[each], cache.reach(starts[each] + width))
                assert torch.equal(mine, by_itself(layer, q[each], k[each], v[each]))
    assert met >= {1, 2, 3, 4, 5}
