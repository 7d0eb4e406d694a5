"""Measure planning: the share of goal pictures reached by the world itself, a model, and chance."""

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from vpoet import cli, worlds
from vpoet.arrays import Frames
from vpoet.devices import pick
from vpoet.errors import DataError, PromptError
from vpoet.evaluate.intervals import wilson
from vpoet.evaluate.rows import episode_done
from vpoet.evaluate.tables import markdown
from vpoet.files import aside, write_atomic
from vpoet.generate.model import load
from vpoet.media.sheet import contact_sheet
from vpoet.outputs import expect_folder
from vpoet.play.commands import commands, obedient, obeyed
from vpoet.play.control import Episode
from vpoet.play.futures import space_of
from vpoet.play.players import players
from vpoet.play.reaching import AHEAD, FIRST, Start, attempt, judged, nearness, starts

MOST = 1_000_000
"""Plans at a time."""
SHOWN = 3
"""Episodes of each row that pictures show: those that failed first."""
SHOWN_FRAMES = 10
console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def main(
    out: Annotated[Path, typer.Option(help="Folder for the table, the episodes and their pictures.")],
    world: Annotated[str, typer.Argument(help="Its recordings say state and place.")] = "world:playground",
    model: Annotated[Path | None, typer.Option(help="Bundle of a model that was trained for play.")] = None,
    count: Annotated[int, typer.Option(help="Starts.", min=2, max=1_000_000)] = 200,
    samples: Annotated[str, typer.Option(help="Plans that are tried each time, a row for each.")] = "64,256",
    every: Annotated[int, typer.Option(help="Plan again after so many actions.", min=1)] = 8,
    ahead: Annotated[int, typer.Option(help="Steps from a start to its goal; one has twice as many.", min=1)] = AHEAD,
    texts: Annotated[bool, typer.Option("--texts", help="Commands instead of goals: 'a robot walks left'.")] = False,
    seed: Annotated[int, typer.Option(help="Of whoever acts, with the number of the start.", min=0)] = 0,
    first: Annotated[int, typer.Option(help="Number of the first clip.", min=0)] = FIRST,
    size: Annotated[int, typer.Option(help="Pixels of a side, if no bundle says it.", min=32, max=4096)] = 64,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Measure planning: the share of goal pictures reached by the world itself, a model, and chance.

    A start is the first frame of a recording of the world, and its goal the picture that the recording comes to 16
    steps later (--ahead), played half of the time by random keys and half by a player who seeks coins. It is reached
    if the figure comes within 3 pixels (of 64) of its place there, in any of twice as many steps. Recordings that end
    early, or where they began, are left out. In env:gym_pusht/PushT-v0 half of the recordings are of a script that
    pushes, and there is where disc and block together are within 20 units of 512, and the block's angle is within 20
    degrees.

    Rows: random keys; random shooting and the cross-entropy method in the world itself (the oracle); with --model the
    same in the learned world, with and without plans that the model suggests, the actions that it reads off an imagined
    video, and its policy, which knows no goal. Intervals are of 95%, Wilson's.

    With --texts a start is given a command, the next other thing that the recording's player does ("a robot jumps"),
    and 16 steps. Rows: random keys; the model's policy without the command, with it, and guided towards it; and the
    actions that it reads off a video of the command that it imagines.

    OUT gets results.md, results.json, episodes/ROW-CLIP.json (what is there is not done again) and reach.png: starts,
    what was imagined, what came of it, and the goal.

    Examples:

        vpoet reach --out runs/reach
        vpoet reach --model runs/play/bundle --count 200 --samples 64,256,1024 --out runs/reach-learned
        vpoet reach --texts --model runs/play/bundle --out runs/commands
        vpoet reach env:gym_pusht/PushT-v0 --ahead 25 --every 25 --count 50 --out runs/reach-pusht
    """
    expect_folder(out)
    pick(device)
    sizes = [int(each) for each in samples.split(",") if each.strip().isdecimal()]
    if not sizes or not 1 <= min(sizes) <= max(sizes) <= MOST or len(sizes) < len(samples.split(",")):
        raise PromptError(f"--samples {samples}: numbers from 1 to {MOST}, with commas between")
    player = None if model is None else load(model, device)
    shape = (size, size, 8.0)
    if player is not None:
        shape = (player.bundle.config.height, player.bundle.config.width, float(player.bundle.config.fps))
    real = worlds.stepped(world, *shape)
    if player is not None and player.bundle.config.actions != space_of(real):
        raise DataError(f"{model}: its actions are not those of {world}: it was trained on another world, or without")
    if player is not None and not texts and "play" not in player.bundle.config.tasks:
        raise PromptError(f"{model}: was not trained for play; it was for {', '.join(player.bundle.config.tasks)}")
    if texts:
        if world.startswith(worlds.ENV):
            raise PromptError(f"{world}: its recordings have no words for what is done; world:playground's have")
        if ahead != AHEAD:
            raise PromptError(f"--ahead is of goals' pictures; commands (--texts) are carried out within {AHEAD} steps")
        clips = worlds.find(world.removeprefix(worlds.WORLD))(*shape, AHEAD + 1)
        candidates, who = commands(clips, first), obedient(real, player)
        told_by = partial(obeyed, real, clips.doing)
    else:
        near = nearness(real)
        clip = worlds.maker(world, *shape[:2], real.fps, ahead + 1)
        candidates, who = starts(clip, near, ahead + 1, first), players(real, player, sizes, every, near, ahead)
        told_by = partial(judged, real, near)

    cli.hold(out)

    looked: list[Start | None] = []
    for each in candidates:
        looked.append(each)
        if len(taken := [each for each in looked if each]) == count:
            break
    setting = {"world": world, "shape": list(shape), "every": every, "seed": seed, "ahead": ahead, "texts": texts}
    setting["model"] = None if player is None else player.bundle.hash
    lines, sheet = [], list[tuple[str, Frames]]()
    for name, play in who.items():
        told = list[dict[str, Any]]()
        made: dict[int, Episode] = {}  # the first of either outcome, for the pictures
        for start in track(taken, name, console=console, disable=not console.is_terminal):
            file = out / "episodes" / f"{name.replace(', ', '-').replace(' ', '-')}-{start.seed}.json"
            kept = episode_done(file, setting)
            if kept is None:
                begun = time.process_time()
                episode = attempt(real, start, play, seed)
                passed = time.process_time() - begun
                kept = told_by(start, episode) | {"seconds": passed, "setting": setting}
                write_atomic(file, json.dumps(kept))
                if sum(one["reached"] == kept["reached"] for one in told) < SHOWN:
                    made[start.seed] = episode
            told.append(kept)
        lines.append(line(name, told))
        console.print(f"{name}: {lines[-1]['reached']} of {count}")
        pairs = sorted(zip(taken, told, strict=True), key=lambda pair: bool(pair[1]["reached"]))
        for start, kept in pairs[:SHOWN]:
            episode = made.get(start.seed) or attempt(real, start, play, seed)
            came = np.concatenate([episode.seen.frames, start.goal[None]])
            came_to = "reached" if kept["reached"] else "missed"
            label = f"{name}, clip {start.seed}: {start.text or 'goal'} {came_to}; the goal is the last"
            sheet += [(f"{label}; imagined", np.concatenate([episode.imagined, start.goal[None]])), ("what came", came)]
    rows = [[str(line[key]) for key in ("who", "reached", "share", "interval", "steps", "seconds")] for line in lines]
    table = markdown(["who", "reached", "share", "95%", "median steps", "CPU seconds a plan"], rows)
    left = f"{count} starts of clips {first} to {first + len(looked) - 1} of {world}; {len(looked) - count} left out."
    with aside(out / "reach.png") as unfinished:
        contact_sheet(sheet, max_frames=SHOWN_FRAMES, scale=1).save(unfinished)
    result = {"rows": lines, "starts": count, "left_out": len(looked) - count} | setting
    write_atomic(out / "results.json", json.dumps(result, indent=1))
    write_atomic(out / "results.md", f"{table}\n\n{left}\n")
    console.print(f"{table}\n\n{left}\n{out}: results.md, episodes, and reach.png")
    cli.finish(result | {"out": out}, as_json)


def line(name: str, told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A row of the table, of all its episodes."""
    reached = [each for each in told if each["reached"]]
    low, high = wilson(len(reached), len(told))
    searches = sum(each["searches"] for each in told)
    return {
        "who": name, "reached": len(reached), "of": len(told), "share": f"{len(reached) / len(told):.1%}",
        "interval": f"{low:.1%} to {high:.1%}",
        "steps": statistics.median(each["steps"] for each in reached) if reached else "-",
        "seconds": f"{sum(each['seconds'] for each in told) / searches:.2f}" if searches else "-",
        "by_policy": {
            policy: [sum(each["policy"] == policy for each in some) for some in (reached, told)]
            for policy in sorted({each["policy"] for each in told})
        },
    }  # fmt: skip


if __name__ == "__main__":
    cli.run(main)
