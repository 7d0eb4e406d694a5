"""The page of a comparison says what it is of, and shows clips that differ."""

from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from vpoet.evaluate.compare.clips import gather
from vpoet.evaluate.compare.compared import Compared, along, compared, moved, pairs, terms
from vpoet.evaluate.compare.features import Features
from vpoet.evaluate.compare.protocol import Protocol
from vpoet.evaluate.distances import frechet
from vpoet.evaluate.page.comparison import publish
from vpoet.media.video import Video

RULES = Protocol(frames=3, fit="none", size=0, count=8)


class Means:
    name, sha256, input = "means", "0" * 64, "mean of each channel"

    def __call__(self, clips: Tensor) -> Tensor:
        return clips.double().mean((1, 2, 3))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """16 grey clips, and 8 samples that are redder; sample 3 is the reddest."""
    folder = tmp_path_factory.mktemp("page")
    random = np.random.default_rng(0)
    for kind, count in (("real", 16), ("fake", 8)):
        for i in range(count):
            frames = random.integers(90, 110, (4, 16, 16, 3), np.uint8)
            frames[..., 0] += (40 + 30 * (i == 3)) * (kind == "fake")
            Video(frames, 8.0).write(folder / kind / f"{kind}-{i:02}.mp4", lossless=True)
    features = Features(Means(), RULES, folder / "features", 8)
    return compared(
        "fake beside real", RULES, features, gather(folder / "real"), gather(folder / "fake"), 20, lambda groups: groups
    )


def test_the_terms_of_a_distance_add_up_to_it(found: Compared) -> None:
    means, spreads = terms(found)
    assert means + spreads == pytest.approx(frechet(found.ours, found.fake_ND))
    assert found.rows[0].value == pytest.approx(means + spreads)
    assert 40**2 < means < 50**2
    assert spreads < means / 5


def test_the_line_runs_from_real_clips_to_samples_and_the_worst_is_at_its_end(found: Compared) -> None:
    real, fake = along(found)
    assert real.mean() == pytest.approx(0, abs=1e-9)
    assert fake.mean() == pytest.approx(1)
    assert fake.argmax() == 3
    assert pairs(found)[-1][0] == 3
    across = np.linalg.norm(found.fake_ND[:, None] - found.ours, axis=2)
    assert pairs(found)[0][2] == pytest.approx(across.min())


def test_pairs_of_one_name_are_shown_together(found: Compared) -> None:
    swapped = Compared(found.about, RULES, found.fake[::-1], found.fake, found.fake_ND[::-1], found.fake_ND, [], [], [])
    assert all(other == 7 - sample and distance == 0 for sample, other, distance in pairs(swapped))


def test_what_moved_most_comes_first(found: Compared) -> None:
    names = [name for name, *_ in moved(found)]
    assert set(names) == {"brightness", "contrast", "saturation", "sharpness", "motion"}
    assert names[0] in ("saturation", "contrast", "brightness")
    assert {name: other > mean for name, mean, other, _ in moved(found)}["saturation"]


def test_the_page_has_numbers_curves_and_clips(found: Compared, tmp_path: Path) -> None:
    result = publish(found, tmp_path)
    page = (tmp_path / "compare.html").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {
        "compare.md", "compare.json", "compare.png", "compare.html"
    }  # fmt: skip
    for title in ("Numbers", "Over the number of clips", "What moved the distance", "Best and worst pairs"):
        assert f"<h2>{title}</h2>" in page
    assert page.count(f"<td>{found.protocol.id}</td>") == len(result["rows"])
    assert page.count("<video") == 6 + 12
    assert "real: real-" in page
    assert "sample: fake-03" in page
    assert "href" not in page
