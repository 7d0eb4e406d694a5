"""The page of a model, for this machine alone: `app` puts it together of parts that each have a socket of their own."""

from importlib.util import find_spec

from vpoet.errors import BackendError


def expect_installed() -> None:
    """BackendError: what serves the page is not there; films of play need none of it."""
    if missing := [name for name in ("starlette", "uvicorn", "websockets") if find_spec(name) is None]:
        raise BackendError(f'the page needs {", ".join(missing)}: pip install "vpoet[page]"')
