"""Samples beside training: asked for, waited for by nobody, shown with their step, and not lost with either process.

Here a script answers in place of the process; tests/programs/test_pretrain.py has the real one.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vpoet.data.token_stream import Source, StreamConfig
from vpoet.evaluate import preview_process
from vpoet.evaluate.preview_process import WAITING, Previews
from vpoet.training.recipe import PretrainConfig, SampleConfig
from vpoet.training.run.saver import clear, seal
from vpoet.training.run.tensor_file import write_bytes

ANSWERS = """
import json, sys, time
from pathlib import Path
run = Path(sys.argv[1])
for line in sys.stdin:
    step = int(line)
    if step == 30:
        time.sleep(3600)
    if step == 40:
        sys.exit(1)
    path = run / "samples" / f"step-{step}-0.mp4"
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    shown = [{"prompt": "a fox", "path": str(path), "real": None, "caption": ""}]
    print(json.dumps({"shown": shown, "warnings": ["odd"] if step == 20 else []}), flush=True)
"""


class Told:
    """A tracker that remembers."""

    def __init__(self) -> None:
        self.shown: list[tuple[int, list[str]]] = []

    def samples(self, shown: Any, step: int) -> None:
        self.shown.append((step, [each.path.name for each in shown]))


@pytest.fixture
def previews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Previews, Told, list[str]]]:
    script = tmp_path / "answers.py"
    script.write_text(ANSWERS)
    monkeypatch.setattr(preview_process, "command", lambda run: [sys.executable, "-S", str(script), str(run)])

    def start(**keys: Any) -> tuple[Previews, Told, list[str]]:
        recipe = PretrainConfig(
            run=str(tmp_path / "run"), text="", video="", steps=100,
            data=StreamConfig(sources=[Source(path="x")], tasks={"t2v": 1.0}, length=128),
            samples=SampleConfig(every=10, prompts=["a fox"]),
        )  # fmt: skip
        told, said = Told(), list[str]()
        options: Any = {"enabled": True, "resume_step": 0, "say": said.append} | keys
        return Previews(recipe, told, **options), told, said  # type: ignore[arg-type]

    return start


def save(tmp_path: Path, *steps: int) -> None:
    """Checkpoints with nothing in them."""
    for step in steps:
        folder = tmp_path / "run/checkpoints" / f"step-{step}"
        clear(folder.with_suffix(".tmp"))
        sink = write_bytes(folder.with_suffix(".tmp") / "state.json", json.dumps({"step": step}).encode())
        seal(folder.with_suffix(".tmp"), folder, {sink.path.name: sink.about})


def until(done: Callable[[], bool], previews: Previews) -> None:
    for _ in range(3000):
        previews.poll()
        if done():
            return
        time.sleep(0.01)
    raise AssertionError("nothing came within half a minute")


def running(previews: Previews) -> bool:
    return previews._process is not None and previews._process.poll() is None


def test_samples_are_made_once_their_checkpoint_is_there_and_shown_with_its_step(previews: Any, tmp_path: Path) -> None:
    ours, told, said = previews()
    ours.ask(9)
    assert ours.needed() == set(), "none are due"
    ours.ask(10)
    ours.poll()
    assert (ours.needed(), running(ours)) == ({10}, False), "it is still being written"
    save(tmp_path, 10)
    until(lambda: bool(told.shown), ours)
    save(tmp_path, 20)
    ours.ask(20)
    ours.close(stopped=lambda: 0)
    assert told.shown == [(10, ["step-10-0.mp4"]), (20, ["step-20-0.mp4"])]
    assert said == ["waiting for samples", "warning: odd"]
    assert ours.needed() == set()
    assert not running(ours)


def test_nobody_waits_for_samples_and_a_stop_leaves_them_to_the_next_start(previews: Any, tmp_path: Path) -> None:
    ours, told, _ = previews()
    save(tmp_path, 30, 50)
    ours.ask(30)
    ours.ask(50)
    for _ in range(100):
        ours.poll()  # comes back at once
    assert (ours.needed(), told.shown) == ({30, 50}, [])
    assert running(ours)
    ours.close(stopped=lambda: 15)
    assert not running(ours)
    (tmp_path / "run/samples").mkdir()
    (tmp_path / "run/samples/step-50-0.mp4").write_text("")
    again, _, _ = previews(resume_step=60)
    assert again.needed() == {30}
    earlier, _, _ = previews(resume_step=20)
    assert earlier.needed() == set(), "of steps that are trained anew"


def test_a_process_that_dies_is_told_of_and_started_again(previews: Any, tmp_path: Path) -> None:
    ours, told, said = previews()
    save(tmp_path, 40, 50)
    ours.ask(40)
    ours.ask(50)
    ours.close(stopped=lambda: 0)
    assert "warning: no samples of step 40: their process has died" in said
    assert told.shown == [(40, []), (50, ["step-50-0.mp4"])]


def test_a_checkpoint_that_was_not_written_and_a_sampler_too_slow_are_told_of(previews: Any, tmp_path: Path) -> None:
    ours, _, said = previews()
    ours.ask(10)
    save(tmp_path, 30)
    ours.poll()
    assert said == ["warning: no samples of step 10: its checkpoint is not there"]
    ours.ask(30)
    ours.poll()
    for step in range(50, 50 + 10 * (WAITING + 1), 10):
        ours.ask(step)
    assert said[1:] == ["warning: no samples of step 50: making them takes too long"]
    assert ours.needed() == {30, *range(60, 60 + 10 * WAITING, 10)}
    ours.close(stopped=lambda: 2)


def test_other_processes_of_the_training_have_none(previews: Any, tmp_path: Path) -> None:
    save(tmp_path, 10)
    ours, _, _ = previews(enabled=False, resume_step=10)
    ours.ask(20)
    ours.poll()
    ours.close(stopped=lambda: 0)
    assert ours.needed() == set()


def test_the_process_ends_with_the_training(tmp_path: Path) -> None:
    """However that ends: the kernel closes what it was asked by. The folder has no recipe, which it comes to later."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_RECIPE, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.close()
    try:
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()


SLOW_RECIPE = """
import sys, time
from pathlib import Path
from vpoet.evaluate import preview_process
preview_process.config.load = lambda *_: time.sleep(3600)  # at work when the training ends
preview_process.serve(Path(sys.argv[1]), sys.stdin, sys.stdout)
"""
