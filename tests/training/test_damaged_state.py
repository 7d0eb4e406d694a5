"""State files of a run in any state: a damaged one counts as none, or is an error that names it; none leads outside."""

import json
from pathlib import Path
from typing import Any

import pytest

from vpoet.errors import CheckpointError, ConfigError, DataError
from vpoet.evaluate.page.run import run_sections
from vpoet.evaluate.previews import REAL_LIST, read_real
from vpoet.files import fingerprint
from vpoet.training.codec.checkpoint import pickled
from vpoet.training.run.checkpoint import complete, damage, read_state
from vpoet.training.run.tracking import read_metrics, read_numbers


def written(folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True)
    (folder / "state.json").write_text('{"step": 1}')
    manifest = {"format": 2, "files": {"state.json": fingerprint(folder / "state.json")}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return manifest


def test_a_damaged_manifest_is_no_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "step-1"
    sound = written(folder)
    assert complete(tmp_path) == [folder]
    about = sound["files"]["state.json"]
    damaged: list[Any] = ["", "{", "\0", "[" * 100_000, [], None, 5, {}, {"format": 2}, {"format": 2, "files": 5}]
    damaged += [{"format": 2, "files": files} for files in (["a"], {"state.json": 5}, {"state.json": {"bytes": 11}})]
    damaged += [{"format": 2, "files": {name: about}} for name in ("../state.json", "/etc/passwd", "")]
    for content in damaged:
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / "manifest.json").write_text(text)
        assert complete(tmp_path) == []
        assert damage(folder) == []
        with pytest.raises(CheckpointError, match=r"state\.json"):
            read_state(folder)


def test_a_state_that_was_changed_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "step-1"
    written(folder)
    assert read_state(folder) == {"step": 1}
    for content in ('{"step": 2}', "", "[" * 100_000, "\0"):
        (folder / "state.json").write_text(content)
        with pytest.raises(CheckpointError, match=r"state\.json: .*take another checkpoint"):
            read_state(folder)


def test_other_names_among_the_checkpoints_of_a_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in ("step-10.pt", "step-9.pt", "step-x.pt", "step-.pt", "step-1 (copy).pt"):
        (tmp_path / "checkpoints" / name).write_text("")
    assert [path.name for path in pickled(tmp_path)] == ["step-9.pt", "step-10.pt"]


METRICS = [
    '{"step": 1, "time": 5, "train/loss": 1.0}',
    '{"step": 2, "time": "late", "train/loss": "x", "heldout/loss": [1], "train/skipped": {}, "train/lr": true}',
    '{"step": 3, "time": 1e18, "train/loss": NaN, "train/bits": 1e400}',
    '{"step": -1}',
    '{"step": 1' + "0" * 400 + "}",
    '{"step": 1' + "0" * 5000 + "}",
    '{"step": "4"}',
    "[" * 100_000,
    "\0\0\0",
    '{"step": 5, "train/lo',
]


def test_damaged_metrics_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("\n".join(METRICS))
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    rows = read_numbers(tmp_path / "metrics.jsonl")
    assert rows == [{"step": 1, "time": 5, "train/loss": 1.0}, {"step": 2}, {"step": 3}]
    (tmp_path / "starts.jsonl").write_text("\n".join(METRICS))
    assert run_sections(tmp_path, tmp_path)


@pytest.mark.parametrize(
    "recipe", ["batch: x\ndata: {length: 5}", "samples: [1]", "steps: [1]", "samples: {prompts: 5}"]
)
def test_a_damaged_recipe_of_a_run_is_named(tmp_path: Path, recipe: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(METRICS[0])
    (tmp_path / "resolved.yaml").write_text(recipe)
    with pytest.raises((ConfigError, DataError), match=r"resolved\.yaml: damaged"):
        run_sections(tmp_path, tmp_path)


def test_a_list_of_real_clips_leads_nowhere_else(tmp_path: Path) -> None:
    for name in ("../../etc/passwd", "/etc/passwd", "..", 5):
        (tmp_path / REAL_LIST).write_text(json.dumps([{"prompt": "a", "caption": "b", "file": name}]))
        assert read_real(tmp_path) == {}
