"""Play in the world that a model has learned: on a page, or from a file of keys to a film."""

import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

from vpoet import cli, serve
from vpoet.errors import DataError
from vpoet.generate.clip_file import Film
from vpoet.generate.compiled_step import StepCompiler
from vpoet.generate.environment import session
from vpoet.generate.fields import those_of
from vpoet.generate.flags import flags
from vpoet.generate.kept_codes import beside
from vpoet.generate.model import load
from vpoet.generate.sampling import Sampling
from vpoet.outputs import expect_apart, expect_file
from vpoet.serve.film import SCALE, played, record
from vpoet.serve.keys import FASTEST, SLOWEST, Log, is_rate, read_keys
from vpoet.serve.worlds import BOTH, MODEL, VIEWS, Worlds, side_by_side, side_worlds

FILMS = (".mp4", ".gif", ".webp")
LARGEST_SEED = 2**32 - 1
console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


@flags(Sampling, before="seed")
def main(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder of a model that was trained for play.")],
    prompt: Annotated[
        str, typer.Option(help="Who is where. A real world says it itself, if this leaves it open.")
    ] = "",
    world: Annotated[
        str,
        typer.Option(
            help="The real world beside the learned one: world:NAME, env:NAME, none, or auto: the one of vpoet whose "
            "actions the model has."
        ),
    ] = "auto",
    recorded: Annotated[
        Path | None,
        typer.Option(
            "--record",
            metavar="FILE",
            help="Play these keys, without a page: lines as `right 12`; or the "
            "record beside a film, which makes it again.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Film of --record: .mp4, .gif or .webp.")] = None,
    show: Annotated[
        str, typer.Option(help="In the film: real, model or both. [default: the record's, or all there are]")
    ] = "",
    scale: Annotated[int, typer.Option(help="Pixels of the film for each of a frame.", min=1, max=32)] = SCALE,
    fps: Annotated[
        float | None, typer.Option(help="Frames a second. [default: the record's, or those of the training data]")
    ] = None,
    port: Annotated[
        int, typer.Option(help="Of the page, on this machine alone; 0: any free one.", min=0, max=65535)
    ] = 8137,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    seed: Annotated[int, typer.Option(help="The same seed and keys show the same.", min=0, max=LARGEST_SEED)] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="Of the weights: auto, fp32, bf16 or, on a CPU, int8.")] = "auto",
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the decoder first; on a CPU once.")] = False,
    guesses: Annotated[int | None, typer.Option(help="Codes guessed per pass. [default: as many as are exact]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
    **asked: Any,
) -> None:
    """Play in the world that a model has learned, and in the real one beside it, with the same keys.

    The page is for this machine alone. A file of keys has a line for each key and how many steps it is held; `prompt`
    and words change the prompt of the learned world from there on:

        right 12
        jump
        prompt a robot on snow

    Examples:

        vpoet play runs/play/bundle
        vpoet play runs/play/bundle --prompt "a robot on grass" --seed 3 --compile
        vpoet play runs/play/bundle --record keys.txt --out both.mp4
        vpoet play runs/play/bundle --record both.mp4.json --show model --out again.gif
        vpoet play runs/breakout/bundle --world env:ALE/Breakout-v5
    """
    if (recorded is None) != (out is None):
        raise DataError("--record FILE and --out FILM belong together; without both, the page is served")
    if show not in ("", *VIEWS):
        raise DataError(f"--show {show}: there are {', '.join(VIEWS)}")
    if fps is not None and not is_rate(fps):
        raise DataError(f"--fps {fps}: {SLOWEST} to {FASTEST}")
    expect_file(out, FILMS)
    expect_apart(out, [recorded])
    if recorded is None:
        serve.expect_installed()
    compiler = StepCompiler(lambda path: console.print(f"compiling the decoder, once: {path}")) if compiled else None
    model = load(bundle, device, precision, compiler, guesses=guesses)
    sampling = model.sampling(**those_of(Sampling, asked))

    def open_worlds() -> Worlds:
        return side_worlds(world, session(model.bundle, model.decoding, sampling))

    worlds = open_worlds()
    rate, real = fps or worlds.session.fps, worlds.source
    if unknown := model.unknown(prompt):
        console.print(f"warning: words that this model never met: {', '.join(unknown)}")
    about = {"model": model.bundle.hash, "world": real, "seed": seed, "prompt": prompt}

    if recorded is not None and out is not None:
        script = read_keys(recorded, worlds.actions)
        seed, prompt = script.told.get("seed", seed), script.told.get("prompt", prompt)
        for name in ("model", "world"):
            if script.told.get(name, about[name]) != about[name]:
                console.print(f"warning: {recorded} is of another {name}, {script.told[name]!r}: this is another film")
        views = VIEWS if real else (MODEL,)
        was = str(script.told.get("view", views[-1]))
        view = show or (was if was in views else views[-1])
        rate, log = fps or script.told.get("fps", rate), Log(worlds.actions)
        frames: Iterator[Any] = played(worlds, script, log, seed, prompt)
        totals = [0.0] * len(worlds.shows)
        with Film(out, rate) as film:
            for shown in track(frames, "playing", script.steps + 1, console=console, disable=not console.is_terminal):
                film.add(side_by_side(shown, worlds.shows, view, scale)[None])
                totals = [total + reward for total, reward in zip(totals, shown.rewards, strict=True)]
            game = about | {"seed": seed, "prompt": prompt, "view": view, "fps": rate, "first": 0}
            film.finish(record(log, **game, frames=worlds.number + 1, whole=not log.full, rewards=totals))
        console.print(f"{out}: {worlds.number + 1} frames, {' | '.join(worlds.shows) if view == BOTH else view}")
        cli.finish({"out": out, "record": beside(out), "frames": worlds.number + 1, "rewards": totals}, as_json)
        return

    from vpoet.serve.app import listen, play_page, server
    from vpoet.serve.play import House

    worlds.begin(seed, prompt)  # what is wrong with it is told here
    height, width = worlds.session.size
    page = {"name": bundle.resolve().name, "height": height, "width": width}
    house = House(open_worlds, about | page, rate)
    with listen(port) as at:
        port = at.getsockname()[1]
        address = f"http://127.0.0.1:{port}/"
        console.print(f"{address} shows {' and '.join(worlds.shows)}, {rate:g} frames a second; Ctrl-C ends it")
        if browser:
            webbrowser.open(address)
        server(play_page(house, port), at).run(sockets=[at])
    cli.finish({"address": address}, as_json)


if __name__ == "__main__":
    cli.run(main)
