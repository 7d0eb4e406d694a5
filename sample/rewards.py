"""Measure rewards by likelihood: whether they order players as the world itself does."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

from vpoet import cli, worlds
from vpoet.devices import pick
from vpoet.evaluate.plots import Panel, panels_figure, save
from vpoet.evaluate.ranks import area, spearman
from vpoet.evaluate.rows import episode_done
from vpoet.evaluate.tables import markdown
from vpoet.files import write_atomic
from vpoet.generate.model import load
from vpoet.outputs import expect_folder
from vpoet.play.mixtures import FIRST, SHARES, Told, episode, told
from vpoet.play.rewards import Terms

STILL = "stands still"
TERMS = {
    "log-likelihood alone": (0.0, 0.0),
    "and entropy": (Terms().entropy, 0.0),
    "and entropy and novelty": (Terms().entropy, Terms().novelty),
}
console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def main(
    model: Annotated[Path, typer.Argument(help="Bundle of a model that was trained on videos of an expert.")],
    out: Annotated[Path, typer.Option(help="Folder for the tables, the figure and the episodes.")],
    world: Annotated[str, typer.Option(help="A world that knows an expert.")] = "world:playground",
    count: Annotated[int, typer.Option(help="Episodes of each player.", min=2, max=100_000)] = 20,
    steps: Annotated[int, typer.Option(help="Of an episode, unless it ends before.", min=1, max=100_000)] = 64,
    first: Annotated[int, typer.Option(help="Number of the first scene.", min=0)] = FIRST,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Measure rewards by likelihood: whether they order players as the world itself does.

    Players are an expert for a share of the time and press random keys for the rest: 0%, 10% ... 100%. The model sees
    their frames alone, and its mean reward a frame is compared with their returns. Rows: the log-likelihood of what is
    seen (VIPER), the entropy that was expected on top, and what is new on top of that. Columns: Spearman's correlation
    of mean reward and mean return over the players, and over all their episodes; the area under the ROC curve by which
    the reward tells the expert's episodes from those of random keys, and from those of a player who stands still.

    OUT gets results.md, results.json, rewards.png and episodes/PLAYER-SCENE.json (what is there is not done again).

    Examples:

        vpoet rewards runs/play/expert/bundle --out runs/rewards
    """
    expect_folder(out)
    pick(device)
    judge = load(model, device)
    config = judge.bundle.config
    shape = (config.height, config.width, float(config.fps))
    real, clips = worlds.stepped(world, *shape), worlds.find(world.removeprefix(worlds.WORLD))
    cli.hold(out)

    setting = {"world": world, "shape": list(shape), "steps": steps, "model": judge.bundle.hash}
    found: dict[str, list[Told]] = {}
    for name, share in ({f"{share:.0%} random": share for share in SHARES} | {STILL: None}).items():
        found[name] = []
        for seed in track(range(first, first + count), name, console=console, disable=not console.is_terminal):
            file = out / "episodes" / f"{name.replace(' ', '-').replace('%', '')}-{seed}.json"
            kept = episode_done(file, setting)
            if kept is None:
                kept = asdict(told(judge, episode(real, clips, seed, share, steps))) | {"setting": setting}
                write_atomic(file, json.dumps(kept))
            found[name].append(Told(**{key: value for key, value in kept.items() if key != "setting"}))
        console.print(f"{name}: return {_mean([each.returned for each in found[name]]):.2f}")
    lines = [compared(found, name) for name in TERMS]
    rows = [[line["reward"], *(f"{line[key]:.3f}" for key in list(line)[1:])] for line in lines]
    table = markdown(["reward", "Spearman, players", "episodes", "AUC, expert: random", "expert: still"], rows)
    means = {
        name: [_mean([told.value(*terms) for told in each]) for each in found.values()] for name, terms in TERMS.items()
    }
    returns = [_mean([told.returned for told in each]) for each in found.values()]
    players = markdown(
        ["player", "return", *TERMS],
        [[name, f"{returns[at]:.2f}", *(f"{means[each][at]:.3f}" for each in TERMS)] for at, name in enumerate(found)],
    )
    drawn = [Panel("return", {"": (SHARES, returns[:-1])})]
    drawn += [Panel(f"reward: {name}", {"": (SHARES, means[name][:-1])}) for name in TERMS]
    save(panels_figure(drawn), out / "rewards.png")
    result = {"rows": lines, "episodes": count, "returns": dict(zip(found, returns, strict=True))} | setting
    write_atomic(out / "results.json", json.dumps(result, indent=1))
    write_atomic(out / "results.md", f"{table}\n\n{players}\n")
    console.print(f"{table}\n\n{players}\n{out}: results.md, episodes, and rewards.png")
    cli.finish(result | {"out": out}, as_json)


def compared(found: dict[str, list[Told]], name: str) -> dict[str, Any]:
    """A row of the table: how a reward, by name, orders players and episodes."""
    paid = {player: [each.value(*TERMS[name]) for each in episodes] for player, episodes in found.items()}
    earned = {player: [each.returned for each in episodes] for player, episodes in found.items()}
    *mixed, still = found
    return {
        "reward": name,
        "players": spearman(*([_mean(values[player]) for player in mixed] for values in (paid, earned))),
        "episodes": spearman(*([each for player in mixed for each in values[player]] for values in (paid, earned))),
        "expert_random": area(paid[mixed[0]], paid[mixed[-1]]),
        "expert_still": area(paid[mixed[0]], paid[still]),
    }


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values)


if __name__ == "__main__":
    cli.run(main)
