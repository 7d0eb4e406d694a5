"""Few pairs are laid over each other, and the answer is that of laying every pair over each other, plainly."""

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest

from vpoet.data.curate import near
from vpoet.data.curate.bounds import _fit, may_be_alike
from vpoet.data.curate.clip_measures import SIDE
from vpoet.data.curate.duplicates import likeness, originals
from vpoet.data.curate.thumbnails import FIRST_LOOK, NOISE, SHIFTS
from vpoet.media.signals import opencv

LEAST = 0.92


def clips(count: int, seed: int = 0) -> np.ndarray:
    """Thumbnails of places, squares moving over them; every third clip is a copy of one before: later, mirrored,
    cropped, noisy or shorter."""
    random = np.random.default_rng(seed)
    cv2 = opencv()
    made: list[np.ndarray] = []
    for at in range(count):
        if at % 3 == 2:
            clip = made[int(random.integers(at))].astype(np.float64)
            match at // 3 % 5:
                case 0:
                    clip = np.concatenate([clip[2:], clip[-1:], clip[-1:]])
                case 1:
                    clip = clip[..., ::-1]
                case 2:
                    y, x = random.integers(0, 5, 2)
                    clip = np.stack([cv2.resize(each[y : y + 19, x : x + 19], (SIDE, SIDE)) for each in clip])
                case 3:
                    clip = np.concatenate([clip[:15], np.repeat(clip[14:15], 9, 0)])
            clip = clip + random.normal(0, 0.5, clip.shape)
        else:
            place = np.random.default_rng((seed, at % 4)).integers(0, 200, (6, 6)).astype(np.float32)
            clip = np.repeat(cv2.resize(place, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)[None], 24, 0)
            start, way = random.uniform(2, 14, 2), random.uniform(-0.6, 0.6, 2)
            for t in range(24):
                y, x = (start + way * t).clip(0, 16).astype(int)
                clip[t, y : y + 7, x : x + 7] = 230
        made.append(clip.clip(0, 255).round().astype(np.uint8))
    return np.stack(made)


def plain_likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Every way to lay two clips over each other by itself, as the words of `likeness` have it."""
    last = max((int(np.flatnonzero((c[1:] != c[:-1]).any((1, 2)))[-1]) + 2 for c in (a, b)), default=1)
    a, b = (clip[:last].astype(np.float64) for clip in (a, b))
    best = 0.0
    for x, y in product((a, b), repeat=2):
        for turned, small in product((False, True), repeat=2):
            if x is y or (not small and x is b):
                continue
            crop = y[..., ::-1] if turned else y
            if small:
                cv2 = opencv()
                crop = np.stack([cv2.resize(each, (19, 19), interpolation=cv2.INTER_AREA) for each in crop])
            if _best_place(x.mean(0)[None], crop.mean(0)[None])[0] < FIRST_LOOK:
                continue
            for shift in SHIFTS:
                ahead, behind, count = max(shift, 0), max(-shift, 0), last - abs(shift)
                if 2 * count < last:
                    continue
                one, other = x[ahead : ahead + count], crop[behind : behind + count]
                alike, (top, left) = _best_place(one, other)
                size = crop.shape[1]
                change = one[:, top : top + size, left : left + size]
                change, moved = change - change.mean(0), other - other.mean(0)
                noise = NOISE**2 * change.size
                norms = math.sqrt((np.square(change).sum() + noise) * (np.square(moved).sum() + noise))
                best = max(best, min(alike, float((change * moved).sum() + noise) / norms))
    return best


def _best_place(x: np.ndarray, y: np.ndarray) -> tuple[float, tuple[int, int]]:
    size, found = y.shape[1], {}
    wanted = y - y.mean((1, 2), keepdims=True)
    for top, left in product(range(SIDE - size + 1), repeat=2):
        part = x[:, top : top + size, left : left + size]
        part = part - part.mean((1, 2), keepdims=True)
        norms = math.sqrt(np.square(part).sum() * np.square(wanted).sum())
        found[top, left] = (float((part * wanted).sum()) + 1) / (norms + 1)
    at = max(found, key=lambda place: found[place])
    return found[at], at


def plain_originals(small: np.ndarray, vectors: np.ndarray | None, hashes: Sequence[Sequence[str]]) -> list[int]:
    """Every pair, in plain loops."""
    unit: Any = None
    if vectors is not None:
        apart = vectors.astype(np.float64) - vectors.astype(np.float64).mean(0)
        unit = apart / np.linalg.norm(apart, axis=1, keepdims=True)
    found = list(range(len(small)))
    for at in range(len(small)):
        for other in range(at):
            if unit is not None:
                asked = unit[at] @ unit[other] >= near.NEAR
            else:
                frames = zip(hashes[at], hashes[other], strict=True)
                asked = any((int(a, 16) ^ int(b, 16)).bit_count() <= near.NEAR_BITS for a, b in frames)
            if asked and found[other] == other and likeness(small[other], small[at]) >= LEAST:
                found[at] = other
                break
    return found


def test_likeness_is_what_laying_clips_over_each_other_gives() -> None:
    small = clips(12)
    pairs = [(a, b) for a in range(12) for b in range(a + 1)]
    quick = [likeness(small[a], small[b]) for a, b in pairs]
    assert quick == pytest.approx([plain_likeness(small[a], small[b]) for a, b in pairs], abs=1e-4)
    assert sum(value >= LEAST for value in quick) > 12 + 3
    assert sum(0 < value < LEAST for value in quick) > 6


@pytest.mark.parametrize("axes", [True, False])
@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_copies_by_embeddings_are_those_of_all_pairs(axes: bool, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    count, random = 90, np.random.default_rng(1)
    small = clips(count)
    # a few kinds of clips, and off the axes a tail that alone decides about some pairs
    kinds = random.normal(0, 1, (5, 160))[random.integers(0, 5, count)]
    vectors = kinds + random.normal(0, 1, (count, 160)) * 1.2 ** -np.arange(160.0)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(kind)
    wanted = plain_originals(small, vectors, [])
    assert 8 < sum(of != at for at, of in enumerate(wanted)) < 30, "else nothing is asked of it"
    monkeypatch.setattr(near, "_ROWS", 16)
    monkeypatch.setattr(near, "_COLUMNS", 11)
    if axes:
        monkeypatch.setattr(near, "FEW", 40)
        monkeypatch.setattr(near, "AXES", 4)
        assert near._Embeddings(vectors)._short.shape[1] < 40
    assert originals(small, vectors, [], LEAST).tolist() == wanted


def test_a_bound_is_never_below_the_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(2).normal(0, 1, (300, 96)) * 1.1 ** -np.arange(96.0)
    monkeypatch.setattr(near, "FEW", 200)
    monkeypatch.setattr(near, "AXES", 16)
    found = near._Embeddings(vectors.astype(np.float32))
    assert found._short.shape == (300, 17)
    apart = vectors - vectors.mean(0)
    unit = apart / np.linalg.norm(apart, axis=1, keepdims=True)
    bound, cosine = found._short @ found._short.T, unit @ unit.T
    assert (bound >= cosine - 1e-5).all()
    assert (bound >= near.NEAR).mean() < 2 * (cosine >= near.NEAR).mean() + 0.05, "it keeps most away"


def test_copies_by_hashes_are_those_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    count, random = 60, np.random.default_rng(3)
    small = clips(count)
    words = random.integers(0, 1 << 63, (4, 4), np.uint64)[np.arange(count) % 4]
    for _ in range(6):  # bits by which frames of a place differ
        words = words ^ (np.uint64(1) << random.integers(0, 64, words.shape, np.uint64))
    hashes = [[f"{word:016x}" for word in row] for row in words.tolist()]
    wanted = plain_originals(small, None, hashes)
    assert 5 < sum(of != at for at, of in enumerate(wanted)) < 30
    monkeypatch.setattr(near, "_ROWS", 16)
    monkeypatch.setattr(near, "_COLUMNS", 11)
    assert originals(small, None, hashes, LEAST).tolist() == wanted


def test_the_first_look_lets_all_through_that_are_alike_and_few_others() -> None:
    noise = np.random.default_rng(4).integers(0, 2, (30, 24, SIDE, SIDE), np.uint8)  # else all are of other lengths
    even = [np.full((1, 24, SIDE, SIDE), grey, np.uint8) for grey in (0, 7)]
    small = np.concatenate([clips(30) | noise, *even])
    later, other = np.tril_indices(len(small), -1)
    let = near._Sketches(small).ways(later, other).any(1)
    alike = np.array([likeness(small[b], small[a]) > 0 for a, b in zip(later, other, strict=True)])
    assert let[alike].all()
    assert let.sum() < 1.5 * alike.sum() < 0.5 * len(let)


def test_a_bound_is_never_below_the_likeness_and_keeps_strangers_of_one_place_away() -> None:
    small = clips(40)
    small[1, 9:] = small[1, 9]  # a short clip, which repeats its last
    small[3] = small[3, 0]
    later, other = np.tril_indices(len(small), -1)
    exact = np.array([likeness(small[b], small[a]) for a, b in zip(later, other, strict=True)])
    every = np.ones((len(later), 3), np.bool_)
    for least in (0.3, 0.6, LEAST):
        let = may_be_alike(small[later], small[other], every, least)
        assert let[exact >= least].all()
        assert not (let & (exact < least - 0.3)).mean() > 0.02
    assert (exact >= LEAST).sum() <= let.sum() < 0.3 * (exact > 0).sum()
    assert not may_be_alike(small[later], small[other], ~every, 0.0).any()


def test_a_clip_that_lies_over_another_whole_is_bound_by_its_likeness() -> None:
    small = clips(12).astype(np.float32)
    for a, b in product(range(12), repeat=2):
        wanted = plain_whole(small[a], small[b])
        assert _fit(small[a][None], small[b][None])[0] == pytest.approx(wanted, abs=1e-4)


def plain_whole(x: np.ndarray, y: np.ndarray) -> float:
    best = 0.0
    for shift in SHIFTS:
        one, other = x[max(shift, 0) : len(x) + min(shift, 0)], y[max(-shift, 0) : len(y) + min(-shift, 0)]
        alike, _ = _best_place(one.astype(np.float64), other.astype(np.float64))
        change, moved = (each - each.mean(0) for each in (one.astype(np.float64), other.astype(np.float64)))
        noise = NOISE**2 * change.size
        norms = math.sqrt((np.square(change).sum() + noise) * (np.square(moved).sum() + noise))
        best = max(best, min(alike, float((change * moved).sum() + noise) / norms))
    return best


def test_rows_are_read_when_they_are_asked_for() -> None:
    array = np.arange(12).reshape(6, 2)
    some = near.Rows(array, [5, 0, 3])
    assert len(some) == 3
    assert some[1].tolist() == [0, 1]
    assert some[np.array([2, 0])].tolist() == [[6, 7], [10, 11]]
