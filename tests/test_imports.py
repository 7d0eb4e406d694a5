"""No module of the library imports, by whatever way, a module that imports it.

import-linter keeps the floors; this looks inside a folder, and counts imports in functions and under TYPE_CHECKING too.
"""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "vpoet"


def modules(package: Path) -> dict[str, Path]:
    """The modules below a package's folder by their full name; not its own ``__init__``, which may show any of them."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    del found[package.name]
    return found


def imports(package: Path) -> dict[str, set[str]]:
    """Which modules each module imports, anywhere in its file."""
    found = modules(package)
    graph: dict[str, set[str]] = {name: set() for name in found}
    for name, path in found.items():
        home = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                wanted = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                above = ".".join(home[: len(home) + 1 - node.level]) if node.level else ""
                source = ".".join(part for part in (above, node.module) if part)
                # `from package import module` is an import of the module, `from module import name` of its module
                wanted = [
                    f"{source}.{alias.name}" if f"{source}.{alias.name}" in found else source for alias in node.names
                ]
            else:
                continue
            graph[name] |= found.keys() & set(wanted)
    return graph


def cycles(package: Path) -> list[list[str]]:
    """Groups of modules that reach each other by imports, each sorted; a module that imports itself is one."""
    graph = imports(package)

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        left = [start]
        while left:
            fresh = graph[left.pop()] - seen
            seen |= fresh
            left += fresh
        return seen

    reach = {name: reached(name) for name in graph}
    groups = {tuple(sorted(other for other in reach[name] if name in reach[other])) for name in graph}
    return sorted(list(group) for group in groups if group)


def test_no_module_imports_one_that_imports_it() -> None:
    assert cycles(PACKAGE) == []


@pytest.mark.parametrize(
    "back",
    [
        "from house.upstairs import attic\n",
        "import house.upstairs.attic\n",
        "from .upstairs.attic import floor\n",
        "def late():\n    from house.upstairs.attic import floor\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.upstairs import attic\n",
    ],
)
def test_a_planted_cycle_is_found(tmp_path: Path, back: str) -> None:
    house = tmp_path / "house"
    (house / "upstairs").mkdir(parents=True)
    (house / "__init__.py").write_text("from house.cellar import stone\n")
    (house / "upstairs/__init__.py").write_text("from .attic import floor\n")
    (house / "upstairs/attic.py").write_text("import os\nfrom ..hall import door\nfrom house import VERSION\n")
    (house / "hall.py").write_text("from house import cellar\n")
    (house / "cellar.py").write_text("import json\n")
    assert cycles(house) == []
    (house / "cellar.py").write_text(back)
    assert cycles(house) == [["house.cellar", "house.hall", "house.upstairs.attic"]]
