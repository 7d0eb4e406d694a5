"""A chain whose machine turns out slower or faster than it was measured: its trainings get other steps."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from vpoet.evaluate.chain.keeping import LOOKS, RESTART, ROWS, TAIL, WINDOW, Watch, fitted, last_rows
from vpoet.evaluate.chain.plan import AIM, LEAST
from vpoet.evaluate.chain.stages import PRETRAIN, Plan, Stage, alone, run, taken
from vpoet.training.run.stop import Stop

HOUR = 3600.0
VIDEO = "train-video"


def plan(most: int = 10_000) -> Plan:
    """Of an hour: 600 seconds for data, 1,000 and 1,500 for trainings of 1 and 3 seconds a step, 200 at the end."""
    command = ["vpoet", "train", "steps=1", "x=2"]
    stages = [
        Stage("ingest", "", "", ["vpoet", "ingest"], 600.0),
        Stage(VIDEO, "learn: 1,000 steps of 8", "", [*command, "steps=1000"], 1000.0, most),
        Stage(PRETRAIN, "learn: 500 steps", "", [*command, "steps=500"], 1500.0, most),
        Stage("sample", "", "", ["vpoet", "sample"], 200.0),
    ]
    return Plan({}, 1.0, stages, 1, measured=12.0)


def ends(found: Plan, name: str, spent: float) -> float:
    """When all would end, as a share of the hours."""
    names = [stage.name for stage in found.stages]
    return (spent + sum(stage.seconds for stage in found.stages[names.index(name) :])) / HOUR


def test_a_plan_that_holds_stays() -> None:
    whole = plan()
    assert fitted(whole, VIDEO, 612) is whole
    assert fitted(whole, PRETRAIN, 1612) is whole
    assert fitted(whole, PRETRAIN, 1612, took=750, done=250, pace=3.1) is whole
    assert fitted(whole, PRETRAIN, 1612, took=1480, done=490, pace=100 * RESTART) is not whole
    assert fitted(whole, PRETRAIN, 1900, took=1499, done=499, pace=RESTART - 1) is whole, "it ends at once"


def test_what_came_before_is_made_up_for() -> None:
    late = fitted(plan(), VIDEO, 1500)
    assert late.steps(VIDEO) < 1000
    assert late.stage(VIDEO).command == [
        "vpoet",
        "train",
        *[f"steps={late.steps(VIDEO)}", "x=2"],
        late.stage(VIDEO).command[-1],
    ]
    assert late.stage(VIDEO).what == f"learn: {late.steps(VIDEO)} steps of 8"
    assert late.notes == [f"train-video: time is shorter than planned: {late.steps(VIDEO)} steps"]
    later = fitted(late, PRETRAIN, 1500 + late.stage(VIDEO).seconds)
    assert ends(later, PRETRAIN, 1500 + late.stage(VIDEO).seconds) == pytest.approx(AIM, abs=0.02)
    early = fitted(plan(), PRETRAIN, 700)
    assert early.steps(PRETRAIN) > 500
    assert "more time" in early.notes[-1]
    assert ends(early, PRETRAIN, 700) == pytest.approx(AIM, abs=0.04)
    assert fitted(plan(most=500), PRETRAIN, 700).steps(PRETRAIN) == 500
    assert fitted(plan(), PRETRAIN, 5000).steps(PRETRAIN) == LEAST


def test_a_training_that_slows_gets_fewer_steps_and_never_fewer_than_it_has_done() -> None:
    slow = fitted(plan(), PRETRAIN, 1612, took=600, done=100, pace=6.0)
    assert 100 < slow.steps(PRETRAIN) < 500
    assert ends(slow, PRETRAIN, 1612) == pytest.approx(AIM, abs=0.03)
    assert fitted(slow, PRETRAIN, 1612, took=700, done=110, pace=6.0) is slow
    slow = fitted(plan(), VIDEO, 612, took=300, done=150, pace=2.0)
    assert 300 < slow.steps(VIDEO) < 600
    assert fitted(slow, VIDEO, 612, took=400, done=200, pace=2.0) is slow
    none_left = fitted(plan(), PRETRAIN, 1612, took=3000, done=450, pace=6.0)
    assert none_left.steps(PRETRAIN) == 451 + int(RESTART / 6)
    fast = fitted(plan(), PRETRAIN, 1612, took=100, done=100, pace=1.0)
    assert fast.steps(PRETRAIN) > 1000
    past_half = fitted(plan(), PRETRAIN, 1612, took=300, done=300, pace=1.0)
    assert past_half.steps(PRETRAIN) == 500


def watched(folder: Path, seconds: float, row: dict[str, float], every: int) -> tuple[Watch, float]:
    """The watch over a training of so many seconds a step, and a minute more at each step that is a multiple of
    ``every``, whose row says ``row``; when it stopped the training, at step 300 if it did not."""
    metrics, now = folder / "metrics.jsonl", [0.0]
    watch = Watch(plan(), PRETRAIN, 1612.0, metrics, lambda: now[0])
    assert not watch(0.0)
    for step in range(1, 300):
        longer = step % every == 0
        now[0] += seconds + 60 * longer
        with metrics.open("a") as lines:
            lines.write(json.dumps({"step": step, "time": 0, "train/loss": 1.0} | (row if longer else {})) + "\n")
        if watch(now[0]):
            break
    return watch, now[0]


def test_a_watch_measures_what_a_step_takes(tmp_path: Path) -> None:
    watch, now = watched(tmp_path, 6.0, {}, 1000)  # three are planned
    window = max(WINDOW, 0.15 * 1500)
    assert window <= now <= window + 2 * LOOKS + 12
    assert watch.plan.steps(PRETRAIN) == fitted(plan(), PRETRAIN, 1612, now, round(now / 6), 6.0).steps(PRETRAIN)
    assert watch.plan.steps(PRETRAIN) < 500


def test_evaluations_on_the_way_are_not_taken_for_slowness(tmp_path: Path) -> None:
    watch, _ = watched(tmp_path, 3.0, {"heldout/loss": 1.0}, 60)
    assert watch.plan.steps(PRETRAIN) == 500
    (tmp_path / "metrics.jsonl").unlink()
    watch, _ = watched(tmp_path, 3.0, {"train/other": 1.0}, 60)
    assert watch.plan.steps(PRETRAIN) < 500, "else this is no test"


def test_the_last_rows_are_those_of_whole_lines(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    assert last_rows(metrics) == {}
    metrics.write_text('{"step": 1')
    assert last_rows(metrics) == {}
    rows = "".join(
        json.dumps({"step": step, "filler": "x" * 100, "seen/psnr": 1}) + "\n" for step in range(TAIL // 100)
    )
    metrics.write_text(rows + '{"step": 7, "train/loss": 1}\n{"step": 99999')
    found = last_rows(metrics)
    assert found == dict.fromkeys(range(TAIL // 100 - ROWS + 1, TAIL // 100), True) | {7: False}


def test_a_command_is_stopped_to_be_run_again(tmp_path: Path) -> None:
    script = "trap 'echo saved >> saved; exit 143' TERM; echo begun >> saved; while :; do sleep 0.05; done"
    stage = Stage(VIDEO, "", "", ["sh", "-c", f"cd {tmp_path}; {script}"], 1)
    with alone(tmp_path, print) as handle:
        assert taken(handle) == ("", 0.0)
        begun = tmp_path / "saved"
        took, whole = run(stage, _unsignalled(), handle, 1, 7000.0, lambda seconds: begun.exists())
        assert not whole
        assert begun.read_text() == "begun\nsaved\n"
        assert 7000 < took < 7600
        quick = replace(stage, command=["sh", "-c", "true"])
        assert run(quick, _unsignalled(), handle, 1, 0.0, lambda seconds: False)[1]


def test_what_an_interrupted_stage_took_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vpoet.evaluate.chain.stages._NOTED", 0.0)
    stop = _unsignalled()

    def interrupted(_: float) -> bool:
        stop.signal = signal.SIGTERM
        return False

    stage = Stage(PRETRAIN, "", "", ["sleep", "600"], 1)
    with alone(tmp_path, print) as handle, pytest.raises(SystemExit):
        run(stage, stop, handle, 1, 100.0, interrupted)
    with alone(tmp_path, print) as handle:
        name, seconds = taken(handle)
    assert (name, seconds >= 100) == (PRETRAIN, True)


def _unsignalled() -> Stop:
    stop = Stop.__new__(Stop)
    stop.signal = 0
    return stop
