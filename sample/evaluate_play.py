"""Judge a model that plays against the simulator that it learned from: places, keys, coins, drift."""

import dataclasses
import json as json_module
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from vpoet import cli, worlds
from vpoet.errors import ConfigError
from vpoet.evaluate import courses, play
from vpoet.evaluate.rows import rows_done
from vpoet.evaluate.tables import markdown
from vpoet.files import aside, write_atomic
from vpoet.generate.fields import those_of
from vpoet.generate.flags import flags
from vpoet.generate.model import load
from vpoet.generate.sampling import Sampling
from vpoet.media.sheet import contact_sheet
from vpoet.outputs import expect_folder
from vpoet.play.futures import space_of

SHOWN = 8
"""Courses on the contact sheet, real and dreamt."""

console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


@flags(Sampling, before="device")
def main(
    model: Annotated[Path, typer.Option(help="Bundle folder of a model that was trained for play.")],
    out: Annotated[Path, typer.Option(help="Folder for courses.jsonl, results.md, results.json and sheet.png.")],
    world: Annotated[str, typer.Option(help="What it learned: a world by name, or env:NAME.")] = "playground",
    count: Annotated[int, typer.Option(help="Courses, each a recording never trained on.", min=1, max=100_000)] = 200,
    seen: Annotated[int, typer.Option(help="Frames of a course that the model is shown.", min=1, max=1000)] = 8,
    length: Annotated[int, typer.Option(help="Frames that it then makes, told the keys.", min=1, max=10_000)] = 64,
    drift: Annotated[int, typer.Option(help="Frames of one long play under random keys.", min=0)] = 2000,
    first: Annotated[
        int, typer.Option(help="Number of the first recording; others than those by which something was chosen.", min=0)
    ] = courses.UNSEEN,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
    **drawn: Any,
) -> None:
    """Judge a model that plays against the simulator that it learned from: places, keys, coins, drift.

    Of COUNT recordings that no model was trained on, half of them under random keys, the model is shown SEEN frames and
    plays on with the keys that were pressed. The world's judge reads the figure off its frames, and the simulator tells
    where it is. Beside each figure stands its ceiling: the real frames through the model's tokenizer. Of environments
    PushT and Breakout have a judge, of what is in them; there "judge" is how far it is off on real frames.

    In OUT, courses.jsonl has a line for each course as it is done; the same command again goes on behind the last.

    Examples:

        vpoet evaluate-play --model runs/play/bundle --out runs/play/judged
        vpoet evaluate-play --model runs/play/bundle --count 20 --drift 0 --out runs/play/quick
        vpoet evaluate-play --model runs/play/bundle --temperature 0 --cfg 2 --out runs/play/guided
        vpoet evaluate-play --model runs/pusht/bundle --world env:gym_pusht/PushT-v0 --out runs/pusht/judged
    """
    expect_folder(out)
    player = load(model, device)
    config = player.bundle.config
    sampling = player.sampling(**those_of(Sampling, drawn))
    session = player.play(**dataclasses.asdict(sampling))
    size, fps = (config.height, config.width), float(config.fps)
    named = world if world.startswith((worlds.WORLD, worlds.ENV)) else f"{worlds.WORLD}{world}"
    simulator = worlds.stepped(named, *size, fps)
    if (there := space_of(simulator)) != config.actions and config.actions is not None:
        raise ConfigError(
            f"{model}: its actions are {config.actions.told()}, and those of {named} {there.told()}; give the --world "
            "that it learned"
        )
    clip = worlds.maker(named, *size, simulator.fps, seen + length)
    cli.hold(out)
    asked: dict[str, Any] = {"model": player.bundle.hash, "world": world, "seen": seen, "length": length}
    asked |= dataclasses.asdict(sampling)
    rows = rows_done(out / "courses.jsonl", asked, lambda row: int(row["course"]))
    judged = []
    shown: list[tuple[str, Any]] = []
    found = courses.courses(clip, simulator, seen, length, first)
    with (out / "courses.jsonl").open("a") as lines:
        for number, course in enumerate(track(islice(found, count), "courses", total=count, console=console)):
            if number < SHOWN:
                dreamt, _ = play.dream(session, course, course.keys, course.number)
                shown += [(f"{course.text}: real", course.frames), ("dreamt with the same keys", dreamt)]
            if course.number not in rows:
                rows[course.number] = play.row(player, session, simulator, course) | asked
                lines.write(json_module.dumps(rows[course.number]) + "\n")
                lines.flush()
            judged.append(rows[course.number])
    figures = play.summary(judged)
    if drift:
        course = next(courses.courses(clip, simulator, seen, length, first))
        frames = track(
            play.wander(session, simulator, course, drift, seed=0), "a long play", total=drift, console=console
        )
        figures["drift_sound"] = float(np.mean(play.soundness(simulator, course.seen[-1:], np.stack(list(frames)))))
        figures["drift_frames"] = drift
    with aside(out / "sheet.png") as unfinished:
        contact_sheet(shown, max_frames=16, scale=1).save(unfinished)
    text = markdown(
        ("", "figure"), [(name, "-" if value is None else f"{value:.4g}") for name, value in figures.items()]
    )
    without = f" Left out: {why}." if (why := courses.left_out(simulator)) else ""
    write_atomic(out / "results.md", f"{text}\n\nModel {player.bundle.hash}, {named}.{without}\n".encode())
    write_atomic(out / "results.json", json_module.dumps(figures | asked, indent=2).encode())
    console.print(text)
    cli.finish(figures | asked | {"out": out}, json)


if __name__ == "__main__":
    cli.run(main)
