"""Put a bundle or a video tokenizer on a hub of models, with a card made from its run."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vpoet import bundle, cli, hub
from vpoet.evaluate import model_card
from vpoet.files import fingerprint


def main(
    folder: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle, or the folder of a video tokenizer.")],
    repository: Annotated[str, typer.Argument(help="user/name; it is made unless it is there.")],
    run: Annotated[
        Path | None, typer.Option(help="The run folder that it came from: its figures, curves and samples.")
    ] = None,
    picture: Annotated[
        list[Path] | None, typer.Option(help="Shown on the card (.png, .jpg, .gif, .webp, .mp4); may be repeated.")
    ] = None,
    license: Annotated[
        str | None, typer.Option(help="Of the weights, as the hub names it (apache-2.0, cc-by-4.0, other).")
    ] = None,
    private: Annotated[bool, typer.Option(help="Make the repository for yourself alone.")] = False,
    json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Put a bundle or a video tokenizer on a hub of models, with a card made from its run.

    The folder is checked by its own hash before anything is sent. With it goes a model card, README.md: the bundle's
    card.md, how to use it, its sizes, and of the run its recipe, data, figures, curves and samples. At the end the
    hub's hash of each file is compared. Large files that the hub has are not sent again, so a push that was stopped
    goes on with the next one.

    Needs huggingface_hub (pip install 'vpoet[hub]'). `hf auth login` or HF_TOKEN says who you are, HF_ENDPOINT which
    hub it is.

    Examples:

        vpoet push runs/demo/bundle someone/robots --run runs/demo/pretrain --license apache-2.0
        vpoet push runs/video/tokenizer someone/video-4x8x8 --run runs/video --picture sheet.png --private
    """
    console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    wanted = hub.repository(repository)
    kind, own_hash = bundle.verify(folder)
    files: dict[str, Path | bytes] = {name: folder / name for name in bundle.files_of(folder)}
    with tempfile.TemporaryDirectory() as scratch:
        about = model_card.About(wanted.repo, run, tuple(picture or ()), license)
        text, pictures = model_card.write(folder, kind, about, Path(scratch))
        files |= {"README.md": text.encode(), **pictures}
        sizes = [len(data) if isinstance(data, bytes) else int(fingerprint(data)["bytes"]) for data in files.values()]
        console.print(f"a {kind}, hash {own_hash}: {len(files)} files, {sum(sizes) / 1e6:.1f} MB, to {wanted}")
        commit, page = hub.send(wanted, files, f"vpoet push: {own_hash}", private)
    console.print(f"{page}: there, each file by its hash; next: vpoet pull {wanted.repo}, on any machine")
    cli.finish(
        {
            "repository": wanted.repo,
            "kind": kind,
            "commit": commit,
            "hash": own_hash,
            "files": sorted(files),
            "page": page,
        },
        json,
    )


if __name__ == "__main__":
    cli.run(main)
