"""Plan the actions that lead to a goal picture, to rewards or to what a text says."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from vpoet import cli, worlds
from vpoet.devices import pick
from vpoet.errors import DataError, PromptError
from vpoet.files import aside, write_atomic
from vpoet.generate.model import load
from vpoet.media.sheet import contact_sheet
from vpoet.media.video import Video, first_frame, resize_frame
from vpoet.nn.features import EfficientNetLite0
from vpoet.outputs import expect_folder
from vpoet.play import costs
from vpoet.play.control import Control
from vpoet.play.dreams import Dreams
from vpoet.play.futures import space_of
from vpoet.play.goal_text import GoalText
from vpoet.play.planners import Planner
from vpoet.play.recorders import as_csv, candidates, imagined_and_real, named
from vpoet.play.suggestions import KINDS, suggestions

DISTANCES = ("pixels", "features")
console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def main(
    world: Annotated[str, typer.Argument(help="world:NAME, or env:NAME of gymnasium: where the plan is carried out.")],
    out: Annotated[Path, typer.Option(help="Folder for the plan, its video and the table of candidates.")],
    goal: Annotated[Path | None, typer.Option(help="A picture that the world is to show.")] = None,
    prompt: Annotated[str | None, typer.Option(help="What the world is to show, in words; needs --model.")] = None,
    reward: Annotated[bool, typer.Option("--reward", help="To get as many rewards as can be.")] = False,
    model: Annotated[
        Path | None,
        typer.Option(help="Bundle to imagine futures with. [default: the world itself]"),
    ] = None,
    scene: Annotated[str, typer.Option(help="Who is where at the beginning. [default: by the seed]")] = "",
    seed: Annotated[int, typer.Option(help="Of the world's beginning, and of the search.", min=0)] = 0,
    size: Annotated[
        int, typer.Option(help="Pixels of a side of the world, if no bundle says it.", min=1, max=4096)
    ] = 64,
    steps: Annotated[int, typer.Option(help="Actions that are carried out, at most.", min=1, max=100_000)] = 32,
    every: Annotated[int, typer.Option(help="Plan again after so many of them.", min=1)] = 8,
    horizon: Annotated[int, typer.Option(help="Actions of a plan.", min=1, max=10_000)] = 16,
    samples: Annotated[int, typer.Option(help="Plans that are tried, each time.", min=1, max=1_000_000)] = 256,
    rounds: Annotated[int, typer.Option(help="Of the cross-entropy method; 1 is random shooting.", min=1)] = 4,
    distance: Annotated[str, typer.Option(help="From the goal: pixels, or features of a network.")] = "pixels",
    proposals: Annotated[str, typer.Option(help="Plans by the model to begin from: policy, inverse or both.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Plan the actions that lead to a goal picture, to rewards or to what a text says, and carry them out.

    Plans are drawn, their futures imagined, and the best of them are what the next ones are drawn from (the
    cross-entropy method); the first actions of the best one are carried out, and one plans again. With --model futures
    are imagined by a model that was trained for play; without, in the world itself, which is the best that can be.

    OUT gets plan.json (the actions by name, what they cost and brought), plan.mp4 and plan.png (what was imagined, what
    came, and the goal, side by side), and candidates.csv: every plan that was tried, with its cost.

    Examples:

        vpoet plan world:playground --goal goal.png --out runs/plan
        vpoet plan world:playground --goal goal.png --model runs/play/bundle --proposals policy --out runs/plan
        vpoet plan world:playground --reward --scene "a robot on grass" --steps 64 --out runs/coins
        vpoet plan env:gym_pusht/PushT-v0 --reward --size 96 --horizon 10 --samples 64 --rounds 3 --out runs/push
    """
    expect_folder(out)
    pick(device)
    if (goal is not None) + (prompt is not None) + reward != 1:
        raise PromptError("say what for: one of --goal PICTURE, --prompt TEXT and --reward")
    if distance not in DISTANCES:
        raise PromptError(f"--distance {distance}: there are {', '.join(DISTANCES)}")
    asked = [each for each in proposals.split(",") if each]
    if unknown := [each for each in asked if each not in KINDS]:
        raise PromptError(f"--proposals {unknown[0]}: there are {', '.join(KINDS)}")
    if model is None and (prompt is not None or asked):
        raise PromptError("--prompt and --proposals are for a model to judge and to make: give --model")
    planner = Planner(horizon=horizon, samples=samples, rounds=min(rounds, samples))
    player = None if model is None else load(model, device)
    height, width = (size, size) if player is None else (player.bundle.config.height, player.bundle.config.width)
    real = worlds.stepped(world, height, width, *([] if player is None else [float(player.bundle.config.fps)]))
    space = space_of(real)
    if player is not None and player.bundle.config.actions not in (None, space):
        raise DataError(f"{model}: its actions are not those of {world}: it was trained on another world")
    first = real.reset(seed, scene)
    picture = None if goal is None else resize_frame(first_frame(goal), height, width)
    cost: costs.Cost = costs.reward
    if picture is not None:
        cost = costs.Goal(picture, costs.pixels if distance == "pixels" else costs.features(EfficientNetLite0()))
    elif prompt is not None and player is not None:
        cost = GoalText(player, prompt)
    dream = None if player is None else Dreams(player, scene, seed=seed, horizon=horizon)
    hints = suggestions(dream, asked, horizon, picture) if dream and asked else None
    control = Control(cost=cost, planner=planner, space=space, every=every, suggest=hints)
    cli.hold(out)

    with console.status("planning"):
        episode = control.run(real, first, steps=steps, seed=seed, dream=dream)
    seen = episode.seen
    told: dict[str, Any] = {
        "world": world, "seed": seed, "scene": scene, "model": None if player is None else player.bundle.hash,
        "actions": named(seen.actions, space), "rewards": seen.rewards, "ended": episode.ended,
        "costs": [planned.best.cost for planned in episode.searches],
        "tried": sum(len(each.candidates) for each in episode.searches),
    }  # fmt: skip
    if isinstance(cost, costs.Goal):
        told |= {"begins": cost.stay(first), "comes_to": cost.stay(seen.frames[-1])}
    Video(imagined_and_real(episode, picture), real.fps).write(out / "plan.mp4")
    rows = [("imagined", episode.imagined), ("real", seen.frames)]
    sheet = contact_sheet(rows + ([] if picture is None else [("goal", picture[None])]))
    with aside(out / "plan.png") as unfinished:
        sheet.save(unfinished)
    write_atomic(out / "candidates.csv", as_csv(candidates(episode.searches, space)))
    write_atomic(out / "plan.json", json.dumps(told, indent=1))
    words = " ".join(map(str, told["actions"]))
    console.print(words or "nothing was done: no plan that was tried comes nearer than staying; more --samples may")
    console.print(f"{out}: {len(seen.actions)} actions of {len(episode.parts)} plans, {sum(seen.rewards):g} rewards")
    cli.finish(told | {"out": out}, as_json)


if __name__ == "__main__":
    cli.run(main)
