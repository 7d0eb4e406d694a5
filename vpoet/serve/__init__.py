"""The pages of models: `app` puts them together. That of play has a socket for each game; that of everything else asks
an API, as programs do, and `studio` decodes for all who wait."""

from importlib.util import find_spec
from pathlib import Path

from vpoet.errors import BackendError


def expect_installed() -> None:
    """BackendError: what serves the page is not there; films of play need none of it."""
    if missing := [name for name in ("starlette", "uvicorn", "websockets") if find_spec(name) is None]:
        raise BackendError(f'the page needs {", ".join(missing)}: pip install "vpoet[page]"')


def name_of(bundle: Path) -> str:
    """What a server calls the model of a bundle: by its folder, or that of the run in which it is ``bundle``."""
    whole = bundle.absolute()
    return whole.parent.name if whole.name == "bundle" else whole.name
