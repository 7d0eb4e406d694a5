"""Fetch a bundle or a video tokenizer from a hub of models, each file checked by its hash."""

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vpoet import bundle, cli, hub
from vpoet.errors import OutputError
from vpoet.files import folder_aside
from vpoet.outputs import expect_folder
from vpoet.tokenizer.video import FILES


def main(
    repository: Annotated[str, typer.Argument(help="user/name, or user/name@revision: a branch, a tag or a commit.")],
    out: Annotated[
        Path | None, typer.Option(help="The folder to write; without it, it stays in huggingface_hub's cache.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Fetch a bundle or a video tokenizer from a hub of models, each file checked by its hash.

    Each file is held against the hub's hash, and the whole against its own; what is wrong is refused and not kept. A
    pull that was stopped goes on where it was. With HF_HUB_OFFLINE=1 the cache alone is read.

    Wherever a bundle or a video tokenizer is loaded, hf://user/name@revision may stand for its folder, too.

    Needs huggingface_hub (pip install 'vpoet[hub]'). For private repositories `hf auth login` or HF_TOKEN says who you
    are.

    Examples:

        vpoet pull someone/robots --out runs/robots
        vpoet pull someone/robots@v2
        vpoet sample --model hf://someone/robots@v2 --prompt "a robot walks right" --out clip.mp4
    """
    console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    wanted = hub.address(repository)
    if out is not None:
        check_vacant(out)
        cli.hold(out, replaced=True)
    folder = hub.fetch(wanted, bundle.FILES)
    if out is None:
        (kind, own_hash), where = bundle.verify(folder), folder
    else:
        with folder_aside(out) as fresh:
            for name in bundle.files_of(folder):
                (fresh / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(folder / name, fresh / name)
            kind, own_hash = bundle.verify(fresh)
        where = out
    loader = "load" if kind == "bundle" else "VideoTokenizer.load"
    console.print(f"{where}: a {kind}, hash {own_hash}; next: vpoet inspect {where}")
    console.print(f'in Python: vpoet.{loader}("{wanted if out is None else out}")')
    cli.finish({"folder": where, "kind": kind, "hash": own_hash, "commit": folder.name}, json)


def check_vacant(out: Path) -> None:
    """OutputError: there is something that is neither a bundle nor a video tokenizer, or nothing can be written."""
    expect_folder(out)
    found = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if more := sorted(found - {*bundle.PARTS} if {*FILES} <= found else found):
        raise OutputError(f"{out}: holds {more[0]}; choose another name, or remove it yourself")


if __name__ == "__main__":
    cli.run(main)
