"""What a chain is made from, and what its clips are called."""

import json
from pathlib import Path

import numpy as np
import pytest

from vpoet.data.sources import divide, gather
from vpoet.errors import DataError
from vpoet.evaluate.chain.sources import LIST, find
from vpoet.media.video import Video


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "clips"
    place.mkdir()
    for number in range(6):
        Video(np.full((3, 16, 16, 3), 40 * number, np.uint8), 8).write(place / f"dog_runs-{number}.mp4")
    return place


def test_clips_without_captions_are_called_after_their_names(folder: Path, tmp_path: Path) -> None:
    found = find(["clips"], None)
    assert found.notes == ["captions of 6 of 6 files: from the file's name"]
    assert found.given(tmp_path) == [str(tmp_path / LIST)]
    assert not (tmp_path / LIST).exists()
    found.write(tmp_path)
    listed = gather([str(tmp_path / LIST)])
    assert [item.fields["caption"] for item in listed] == ["dog runs"] * 6
    assert [Path(item.path).resolve() for item in listed] == sorted(folder.iterdir())
    assert listed[0].name == "clips/dog_runs-0.mp4"


def test_the_one_list_in_a_folder_has_the_captions(folder: Path, tmp_path: Path) -> None:
    rows = [{"path": f"dog_runs-{number}.mp4", "caption": f"dog {number}"} for number in range(6)]
    (folder / "notes.csv").write_text("what,ever\n1,2\n")
    (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = find(["clips"], None)
    assert found.given(tmp_path) == ["clips/list.jsonl"]
    assert found.notes == ["captions: those of clips/list.jsonl"]
    del rows[0]["caption"]
    (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = find(["clips"], None)
    assert [item.fields["caption"] for item in found.items] == [
        "dog runs",
        *(f"dog {number}" for number in range(1, 6)),
    ]
    assert found.given(tmp_path) == [str(tmp_path / LIST)]
    (folder / "other.jsonl").write_text(json.dumps(rows[1]))
    with pytest.raises(DataError, match=r"list\.jsonl and other\.jsonl list clips; name one"):
        find(["clips"], None)


def test_fewer_sources_are_taken_evenly(folder: Path, tmp_path: Path) -> None:
    few = find(["clips"], None).fewer(3)
    assert [Path(item.path).name for item in few.items] == [f"dog_runs-{number}.mp4" for number in (0, 2, 4)]
    assert few.given(tmp_path) == [str(tmp_path / LIST)]
    world = find(["world:platformer"], 40).fewer(10)
    assert (world.clips, len(world.items), world.given(tmp_path)) == (10, 10, ["world:platformer"])


def test_what_is_held_out_is_what_ingest_holds_out(folder: Path, tmp_path: Path) -> None:
    found, out = find(["clips"], None), tmp_path / "mine"
    share = found.holdout(out)
    found.write(out)
    sides = divide(gather([str(out / LIST)]), holdout=share)
    assert min(map(len, sides.values())) > 0
    assert find([str(folder / "dog_runs-0.mp4")], None).holdout(out) == 0


@pytest.mark.parametrize(
    ("sources", "clips", "said"),
    [
        (["clips", "world:platformer"], None, "give worlds alone"),
        (["clips"], 3, "there is none among the sources"),
        (["nothing"], None, "no such file"),
        (["env:gym_pusht/PushT-v0"], None, "no captions"),
        (["world:nowhere"], None, "nowhere"),
    ],
)
def test_sources_that_make_no_chain(folder: Path, sources: list[str], clips: int | None, said: str) -> None:
    with pytest.raises(DataError, match=said):
        find(sources, clips)
