"""The house stands: where files lie, what they may be called, how long they are, and what a wheel holds.

Who may import whom is import-linter's to guard (`make lint`).
"""

import ast
import importlib.metadata
import re
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from vpoet import cli

ROOT = Path(__file__).parent.parent
PROGRAM_FOLDERS = ("tokenizers", "train", "sample")
PROGRAMS = sorted(path for folder in PROGRAM_FOLDERS for path in (ROOT / folder).rglob("*.py"))
LIBRARY = sorted((ROOT / "vpoet").rglob("*.py"))


def named(path):
    return path.relative_to(ROOT).as_posix()


def lines(path):
    return len(path.read_text(encoding="utf-8").splitlines())


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_program_folders_are_no_packages():
    """A regular package `tokenizers` at the root would shadow Hugging Face's wherever the root is on sys.path."""
    assert not [named(path) for path in PROGRAMS if path.name == "__init__.py"]


def test_program_names_are_unique_and_nobody_elses(project):
    """sys.path[0] is the program's own folder: train/json.py would be everybody's json."""
    stems = [path.stem for path in PROGRAMS]
    assert len(set(stems)) == len(stems)
    extras = [requirement for extra in project["optional-dependencies"].values() for requirement in extra]
    wanted = {re.split(r"[^\w-]", requirement)[0].lower() for requirement in [*project["dependencies"], *extras]}
    homes = importlib.metadata.packages_distributions()
    modules = {module for module, owners in homes.items() if wanted & {owner.lower() for owner in owners}}
    assert {"torch", "yaml", "PIL"} <= modules
    assert not set(stems) & (sys.stdlib_module_names | modules | {"vpoet"})


@pytest.mark.parametrize("path", PROGRAMS, ids=named)
def test_a_program_is_short_and_hands_its_main_to_the_cli(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert lines(path) <= 200, "parts belong into vpoet/"
    assert ast.get_docstring(tree), "its first line is the program's line in `vpoet --help`"
    assert not [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)], "classes belong into vpoet/"
    assert path.read_text().endswith('\n\nif __name__ == "__main__":\n    cli.run(main)\n')
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [item.name for item in node.names])
    }
    assert not imported & ({program.stem for program in PROGRAMS} | set(PROGRAM_FOLDERS) - {"tokenizers"})


@pytest.mark.parametrize("path", LIBRARY, ids=named)
def test_a_library_file_can_be_read_in_one_sitting(path):
    assert lines(path) <= 350


def test_a_function_of_more_than_eight_parameters_is_two_things():
    """But for a program's `main`, whose parameters are its flags."""
    crowded = set()
    for path in [*PROGRAMS, *LIBRARY]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names = [argument.arg for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]]
                if len(names) - (names[:1] in (["self"], ["cls"])) > 8:
                    crowded.add(f"{named(path)}:{node.name}")
    mains = {f"{named(path)}:main" for path in PROGRAMS}
    assert not crowded - mains


def test_every_command_has_its_program():
    assert {named(path) for path in PROGRAMS} == set(cli.PROGRAMS.values())
    assert cli.programs_folder() == ROOT


def test_tests_mirror_the_library_under_unique_names():
    tests = sorted((ROOT / "tests").rglob("*.py"))
    assert not [named(path) for path in tests if path.name == "__init__.py"]
    stems = [path.stem for path in tests if path.parent.name != "bench" and path.stem not in ("conftest", "__main__")]
    assert len(set(stems)) == len(stems)
    folders = {path.parent.relative_to(ROOT / "tests") for path in tests} - {
        Path("bench"),
        Path("golden"),
        Path("gpu"),
        Path("programs"),
    }
    assert not [str(folder) for folder in folders if not (ROOT / "vpoet" / folder).is_dir()]


def test_hugging_face_tokenizers_stays_importable(python):
    pytest.importorskip("tokenizers")
    shown = python("-c", "import tokenizers; print(tokenizers.Tokenizer.__name__)", cwd=ROOT)
    assert shown.stdout == "Tokenizer\n", shown.stderr


def test_the_weights_that_ship_stay_small():
    assert sum(path.stat().st_size for path in (ROOT / "vpoet" / "weights").rglob("*")) < 60e6


def test_a_wheel_is_one_package_that_carries_the_programs(tmp_path, python):
    built = python("-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=ROOT)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        archive.extractall(tmp_path / "site")
    assert {name.partition("/")[0] for name in names} == {"vpoet"}
    assert {f"vpoet/programs/{path}" for path in cli.PROGRAMS.values()} <= names
    assert {"vpoet/py.typed", *map(named, LIBRARY)} <= names
    assert {named(path) for path in (ROOT / "vpoet/serve/page").iterdir()} <= names
    configs = [path for folder in PROGRAM_FOLDERS for path in (ROOT / folder).rglob("*.yaml")]
    assert {f"vpoet/programs/{named(path)}" for path in configs} <= names
    assert not [name for name in names if "__pycache__" in name]
    for shipped in ("video-4x8x8", "play-1x8x8"):
        assert {f"vpoet/weights/{shipped}/{part}" for part in ("config.yaml", "model.safetensors", "card.md")} <= names
    assert {
        f"vpoet/weights/platformer-64/{part}" for part in ("config.yaml", "model.safetensors", "text.model")
    } <= names

    # The wheel's own copy, found although the repository is installed: -P keeps the working folder off sys.path.
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); from vpoet import cli; cli.main(sys.argv[1:])"
    )
    shown = python("-P", "-c", script, "train-text", "--help", cwd=tmp_path)
    assert shown.stdout.startswith("Usage: vpoet train-text"), shown.stderr
    assert not any("__init__.py" in name for name in names if name.startswith("vpoet/programs/"))


def test_constraints_pin_every_dependency(project):
    """What `pip install -c constraints.txt` installs is what was tested, from whichever index the user has."""
    pins = dict(re.findall(r"^([\w.-]+)==([\w.]+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    pinned = {name.lower().replace("_", "-") for name in pins}
    extras = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *extras["worlds"], *extras["gym"], *extras["atari"], *extras["dev"]]:
        name, least = re.fullmatch(r"([\w-]+)>=([\d.]+)", requirement).groups()
        assert name in pinned, f"{name} has no pin in constraints.txt"
        pin = next(version for key, version in pins.items() if key.lower().replace("_", "-") == name)
        assert tuple(map(int, re.findall(r"\d+", pin))) >= tuple(map(int, least.split(".")))
    rest = [line for line in (ROOT / "constraints.txt").read_text().splitlines()[1:] if "==" not in line or "+" in line]
    assert not rest
