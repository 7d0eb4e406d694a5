"""Sizes and steps by the hours, as pure arithmetic on what was measured."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vpoet.data.sources import Item
from vpoet.errors import ConfigError, DataError
from vpoet.evaluate.chain.machine import settings_for
from vpoet.evaluate.chain.plan import AIM, EPOCHS, Asked, Machine, Planner
from vpoet.evaluate.chain.sources import Sources
from vpoet.evaluate.chain.stages import PLAN, PRETRAIN, Plan, Stage, done, note_done
from vpoet.evaluate.chain.telling import duration, plan_in_words
from vpoet.evaluate.chain.trial import Rates

RATES = Rates(0.1, {"fp32": 2.0, "bf16": 1.0}, {"fp32": 1.0, "bf16": 0.5}, (5, 8, 8), (8, 8, 8, 5, 5, 5), True)
MACHINE = Machine(cores=1, processes=1, cuda=False, start=5, read=0.1, measured=(0.2, 0.1), rates=RATES, planning=30)
ASKED = Asked(["clips.csv"], 1.0, "", None, [], "contrast > 0.02", 0.92, None)
ITEMS = [Item(f"{number}.mp4", f"/clips/{number}.mp4", {"caption": "a dog"}) for number in range(800)]
OWN = Sources(["clips.csv"], [], ITEMS, ["captions: those of clips.csv"])
WORLD = Sources(["world:platformer"], [], [replace(item, path="world:platformer") for item in ITEMS], [], 800)


def planner(clips: int = 2000, sources: Sources = OWN, asked: Asked = ASKED, **machine: Any) -> Planner:
    settings = settings_for(ASKED, own=sources.clips is None)
    return Planner(asked, sources, clips, settings, Path("runs/mine"), replace(MACHINE, **machine))


def words(plan: Plan, name: str) -> list[str]:
    return next(stage.command for stage in plan.stages if stage.name == name)


def test_all_stages_fill_the_hours() -> None:
    plan = planner().plan()
    names = [stage.name for stage in plan.stages]
    assert names == [
        "ingest", "measure", "select", "train-text", "train-video", "evaluate-tokenizer", "encode-train",
        "encode-heldout", "pretrain", "export", "sample", "report",
    ]  # fmt: skip
    assert plan.seconds == pytest.approx(AIM * 3600, rel=0.01)
    assert all(stage.command[0] == "vpoet" for stage in plan.stages)
    assert "dtype=bf16" in words(plan, "train-video")
    assert "engine.dtype=bf16" in words(plan, PRETRAIN)
    assert "data=[runs/mine/selected]" in words(plan, "train-video")


@pytest.mark.parametrize("hours", [0.2, 0.5, 2.0, 8.0])
@pytest.mark.parametrize("sources", [OWN, WORLD])
def test_more_hours_are_more_steps_and_never_more_than_asked(hours: float, sources: Sources) -> None:
    plan = planner(sources=sources, asked=replace(ASKED, hours=hours)).plan()
    assert plan.seconds <= AIM * hours * 3600 * 1.01
    assert plan.seconds >= 0.85 * AIM * hours * 3600


def test_a_launcher_shares_the_steps() -> None:
    plan = planner(processes=4, cores=4).plan()
    for name in ("train-video", PRETRAIN):
        assert words(plan, name)[:4] == ["deepspeed", "--quiet", "--num_accelerators", "4"]
    assert words(plan, "encode-train")[0] == "vpoet"
    alone = next(word for word in words(planner(cores=4).plan(), PRETRAIN) if word.startswith("steps="))
    shared = next(word for word in words(plan, PRETRAIN) if word.startswith("steps="))
    assert int(shared[6:]) > 3 * int(alone[6:])


def test_where_time_is_short_selection_goes_first_and_then_sources() -> None:
    assert "--no-embedding" in words(planner(3500).plan(), "measure")
    plan = planner(5000).plan()
    assert "measure" not in [stage.name for stage in plan.stages]
    plan = planner(60_000).plan()
    assert any(note.startswith("sources: ") for note in plan.notes)
    assert words(plan, "ingest")[2] == "runs/mine/sources.jsonl"
    plan = planner(measured=(0.0, 0.0)).plan()
    assert any("vpoet[curate]" in note for note in plan.notes)
    plan = planner(asked=replace(ASKED, tokenizer="tok")).plan()
    assert "train-video" not in [stage.name for stage in plan.stages]
    assert "video=tok" in words(plan, PRETRAIN)


def test_few_clips_are_not_shown_for_ever() -> None:
    plan = planner(80, replace(OWN, kept=ITEMS[:40]), replace(ASKED, hours=20.0)).plan()
    assert plan.seconds < 0.9 * 20 * 3600
    assert f"it ends before the 20 hours: each clip is seen {EPOCHS} times by then" in plan.notes
    assert plan.steps(PRETRAIN) == plan.stage(PRETRAIN).most


def test_many_clips_and_hours_get_a_larger_transformer() -> None:
    small = next(stage.what for stage in planner().plan().stages if stage.name == PRETRAIN)
    assert "5.6M" in small
    asked = replace(ASKED, hours=400.0)
    large = planner(100_000, asked=asked, cores=8, processes=8).plan()
    assert "30m.yaml" in " ".join(words(large, PRETRAIN))


def test_hours_that_are_too_few_are_refused_with_those_that_are_enough() -> None:
    with pytest.raises(ConfigError, match=r"give --hours \S+ or more") as refused:
        planner(asked=replace(ASKED, hours=0.01)).plan()
    enough = float(str(refused.value).rpartition("--hours ")[2].split()[0])
    assert planner(asked=replace(ASKED, hours=max(enough, 0.1))).plan().stages
    for hours in (0.0, -1.0, float("nan"), float("inf"), 1e9):
        with pytest.raises(ConfigError, match="--hours is above 0"):
            replace(ASKED, hours=hours)


def test_a_plan_is_kept_and_is_that_of_what_was_asked(tmp_path: Path) -> None:
    assert Plan.load(tmp_path, ASKED.told()) is None
    plan = planner().plan()
    plan.save(tmp_path)
    assert Plan.load(tmp_path, ASKED.told()) == plan
    with pytest.raises(ConfigError, match=r"planned for hours 1\.0, now 2\.0; choose another --out"):
        Plan.load(tmp_path, replace(ASKED, hours=2.0).told())
    (tmp_path / PLAN).write_text('{"format": 1}')
    with pytest.raises(DataError, match=r"chain\.json: damaged"):
        Plan.load(tmp_path, ASKED.told())


def test_what_is_done_survives_half_a_line(tmp_path: Path) -> None:
    stage = Stage("ingest", "", "raw", ["vpoet", "ingest", "a b"], 1)
    assert done(tmp_path) == {}
    note_done(tmp_path, stage, 61.2)
    with (tmp_path / "stages.jsonl").open("a") as lines:
        lines.write('{"stage": "meas')
    assert done(tmp_path) == {"ingest": 61}
    note_done(tmp_path, replace(stage, name="measure"), 2)
    assert done(tmp_path) == {"ingest": 61, "measure": 2}


def test_a_plan_in_words() -> None:
    plan = planner().plan()
    told = plan_in_words(plan, Path("runs/mine"), {"ingest": 3.0}, 0.0, commands=False)
    assert told[0] == "runs/mine: from clips.csv to a model, in 1 h"
    assert told[1] == "  captions: those of clips.csv"
    assert sum(" done " in line for line in told) == 1
    assert [duration(seconds) for seconds in (8, 100, 720, 3900)] == ["8 s", "1 min 40 s", "12 min", "1 h 5 min"]
