"""Serve models on a page and an API: clips that are seen while they are made, and kept."""

import itertools
import json
import os
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vpoet import cli, serve
from vpoet.bundle import SHIPPED
from vpoet.errors import ConfigError, VpoetError
from vpoet.generate.compiled_step import StepCompiler
from vpoet.generate.environment import session
from vpoet.generate.model import Model, load
from vpoet.outputs import expect_folder
from vpoet.serve.history import History
from vpoet.serve.uploads import Uploads
from vpoet.serve.worlds import Worlds, side_worlds

console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def main(
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(help="Bundle folders, or hf://USER/NAME. [default: the one that ships]", show_default=False),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder where clips, and what people sent, are kept, for the next time, too.")
    ] = Path("runs/serve"),
    world: Annotated[
        str, typer.Option(help="For play, the real world beside the learned one: world:NAME, env:NAME, none or auto.")
    ] = "auto",
    host: Annotated[
        str, typer.Option(help="The address to listen at; any but this machine's own needs a token to be known.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free.", min=0, max=65535)] = 8137,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    openapi: Annotated[bool, typer.Option(help="Print the description of the API, as OpenAPI, and end.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="Of the weights: auto, fp32, bf16 or, on a CPU, int8.")] = "auto",
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the decoder first; on a CPU once.")] = False,
    guesses: Annotated[int | None, typer.Option(help="Codes guessed per pass. [default: as many as are exact]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Serve models on a page and an API: clips that are seen while they are made, and kept.

    The page makes all that the bundles can: from text, pictures, clips and masks, with frames that appear as they are
    decoded. It is for this machine alone; with --host for whoever has the address with the token, which is told when
    it starts (or set it: VPOET_TOKEN). Programs ask the API, described at /api, or `vpoet sample --server URL`.
    Several people wait in one line. Ctrl-C ends it; started again in the same folder it has all clips still.

    Examples:

        vpoet serve
        vpoet serve runs/demo/bundle runs/play/bundle --out runs/clips
        vpoet serve --host 0.0.0.0 --port 8137 --no-browser
    """
    serve.expect_installed()
    expect_folder(out)
    compiler = StepCompiler(lambda path: console.print(f"compiling the decoder, once: {path}")) if compiled else None
    models: dict[str, Model] = {}
    for path in bundles or [SHIPPED]:
        model = load(path, device, precision, compiler, guesses=guesses)
        stem = serve.name_of(path)
        name = next(each for i in itertools.count(1) if (each := stem if i == 1 else f"{stem}-{i}") not in models)
        models[name] = model
        console.print(f"{name}: {path}")

    from vpoet.serve.openapi import description

    if openapi:
        print(json.dumps(description(), indent=1))
        return
    from vpoet.serve.app import listen, server, studio_page
    from vpoet.serve.guard import LOOPBACK, new_token
    from vpoet.serve.play import House
    from vpoet.serve.studio import Studio

    token = os.environ.get("VPOET_TOKEN", "")
    if host not in (LOOPBACK, "localhost"):
        token = token or new_token()
    if token and len(token) < 16:
        raise ConfigError("VPOET_TOKEN: a token has 16 characters or more")
    plays = next((name for name, model in models.items() if "play" in model.bundle.config.tasks), "")
    opening: Callable[[], Worlds] | None = None
    first: Worlds | None = None
    if plays:
        player = models[plays]
        opening = lambda: side_worlds(world, session(player.bundle, player.decoding, player.sampling()))  # noqa: E731
        try:
            first = opening()
        except VpoetError as error:
            console.print(f"warning: {plays} cannot be played here: {error}")
            plays = ""
    cli.hold(out)
    studio = Studio(models, Uploads(out / "uploads"), History(out / "clips"))
    house: House | None = None
    if first is not None and opening is not None:
        height, width = first.session.size
        about = {"model": models[plays].bundle.hash, "world": first.source, "seed": 0, "prompt": "", "name": plays}
        house = House(opening, {**about, "height": height, "width": width}, first.session.fps, studio.turns)

    with listen(port, host) as at:
        door = {"port": at.getsockname()[1], "host": host, "token": token}
        address = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{door['port']}/"
        shown = f"{address}?token={token}" if token else address
        console.print(f"{shown}; Ctrl-C ends it")
        if browser:
            webbrowser.open(shown)
        server(studio_page(studio, house, plays, door), at).run(sockets=[at])
    cli.finish({"address": address}, as_json)


if __name__ == "__main__":
    cli.run(main)
