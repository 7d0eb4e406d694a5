"""Random views of clips: whole pixels of the clip, every kind of view reached, decided by the seed."""

import itertools

import numpy as np

from vpoet.data.augment import random_view
from vpoet.media.video import Video

VIDEO = Video(np.random.default_rng(0).integers(0, 256, (3, 12, 10, 3), dtype=np.uint8), 8.0)


def test_a_view_is_a_window_of_the_clip_in_one_of_its_turns_and_all_turns_occur() -> None:
    seen = set()
    for seed in range(200):
        view = random_view(VIDEO, 8, 6, np.random.default_rng(seed))
        assert (view.shape, view.dtype) == ((3, 8, 6, 3), np.uint8)
        for backwards, mirrored in itertools.product((1, -1), repeat=2):
            for colours in itertools.permutations(range(3)):
                turned = VIDEO.frames[::backwards, :, ::mirrored][..., list(colours)]
                windows = np.lib.stride_tricks.sliding_window_view(turned, (8, 6), axis=(1, 2))
                places = np.argwhere((windows == view.transpose(0, 3, 1, 2)[:, None, None]).all((0, 3, 4, 5)))
                seen |= {(backwards, mirrored, colours, *place.tolist()) for place in places}
    kinds = {turn[:3] for turn in seen}
    assert {turn[:2] for turn in kinds} == set(itertools.product((1, -1), repeat=2))
    assert len({turn[2] for turn in kinds}) == 6
    assert {turn[3:] for turn in seen} == set(itertools.product(range(5), range(5)))


def test_most_views_keep_their_colours() -> None:
    red = Video(np.broadcast_to(np.array([255, 0, 0], np.uint8), (1, 4, 4, 3)), 0.0)
    kept = [random_view(red, 4, 4, np.random.default_rng(seed))[0, 0, 0, 0] == 255 for seed in range(300)]
    assert 0.75 < np.mean(kept) < 0.9  # 3/4, and a third of the permutations leave red where it is


def test_a_smaller_clip_is_scaled_to_cover_the_window() -> None:
    view = random_view(VIDEO, 30, 20, np.random.default_rng(0))
    assert view.shape == (3, 30, 20, 3)


def test_the_same_seed_gives_the_same_view() -> None:
    views = [random_view(VIDEO, 8, 6, np.random.default_rng(5)) for _ in range(2)]
    assert np.array_equal(*views)
