"""Reading configurations: values by the field's type, and errors that say where, what and how to mend it."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from vpoet import config
from vpoet.errors import ConfigError


@dataclass(kw_only=True)
class Optimizer:
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    warmup: int | None = None


@dataclass(kw_only=True)
class Source:
    folder: Path = Path("raw")
    weight: float = 1.0


@dataclass(kw_only=True)
class Recipe:
    steps: int = config.REQUIRED
    optimizer: Optimizer = field(default_factory=Optimizer)
    teacher: Optimizer | None = None
    sources: list[Source] = field(default_factory=list)
    named: dict[str, Source] = field(default_factory=dict)
    compile: bool = False

    def __post_init__(self) -> None:
        if self.steps != config.REQUIRED and self.steps < 1:
            raise ConfigError(f"steps = {self.steps}: must be at least 1")


@pytest.fixture
def load(tmp_path):
    def load(text, *overrides):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return config.load(path, Recipe, overrides)

    return load


def test_values_take_their_fields_type(load):
    recipe = load("steps: 3\noptimizer: {lr: 3e-4, betas: [0, 1]}\nsources: [{folder: a/b, weight: 1e2}]\n")
    assert recipe == Recipe(
        steps=3, optimizer=Optimizer(lr=3e-4, betas=(0.0, 1.0)), sources=[Source(folder=Path("a/b"), weight=100.0)]
    )
    assert isinstance(recipe.optimizer.lr, float)


def test_overrides_win_and_the_last_one_most(load):
    recipe = load("steps: 3", "optimizer.lr=1e-5", "compile=true", "sources=[{weight: 2}]", "steps=4", "steps=5")
    assert (recipe.steps, recipe.optimizer.lr, recipe.compile) == (5, 1e-5, True)
    assert recipe.sources == [Source(weight=2.0)]
    assert load("steps: 3", "teacher.lr=1").teacher == Optimizer(lr=1.0)


@pytest.mark.parametrize(
    ("text", "key", "near"),
    [
        ("steps: 3\ncompiel: true", "compiel", "compile"),
        ("steps: 3\noptimizer: {beta: 3}", "optimizer.beta", "optimizer.betas"),
        ("steps: 3\nteacher: {larning: 3}", "teacher.larning", "teacher.lr"),
        ("steps: 3\nsources: [{}, {wieght: 3}]", "sources.1.wieght", "sources.1.weight"),
        ("steps: 3\nnamed: {droid: {wieght: 3}}", "named.droid.wieght", "named.droid.weight"),
        ("steps: 3\n1: 3", "1", "steps"),
    ],
)
def test_unknown_key_names_file_key_and_nearest(load, text, key, near):
    with pytest.raises(ConfigError, match=rf"recipe\.yaml: unknown key '{key}'; did you mean") as error:
        load(text)
    if key != "1":
        assert str(error.value).endswith(f"did you mean {near}?")


def test_unknown_key_of_an_override_names_the_override(load):
    with pytest.raises(ConfigError, match=r"override 'optimizer.lrr=1': unknown key 'optimizer.lrr'.*optimizer\.lr\?"):
        load("steps: 3", "optimizer.lrr=1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: many", "recipe.yaml: steps: .*'many'"),
        ("steps: 3.5", "recipe.yaml: steps: .*'3.5'"),
        ("compile: maybe", "recipe.yaml: compile: .*'maybe'"),
        ("optimizer: 4", "recipe.yaml: optimizer: takes keys .lr, betas, warmup., not 4"),
        ("optimizer: null", "recipe.yaml: optimizer: .*not Optional"),
        ("sources: {weight: 3}", "recipe.yaml: sources is a list"),
        ("", "recipe.yaml: required and not given: steps"),
        ("- 3", "recipe.yaml: a config is a mapping"),
        ("steps: [", "recipe.yaml: not readable as YAML"),
        ("steps: 3\nsteps: 4", "recipe.yaml: not readable as YAML.*duplicate key"),
        ("steps: ${oc.env:VPOET_UNSET}", "recipe.yaml: .*VPOET_UNSET"),
    ],
)
def test_wrong_values_name_file_and_key(load, text, message):
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        load(text)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr", "write it as key=value"),
        ("=3", "write it as key=value"),
        ("steps=[", r"override 'steps=\['"),
        ("sources.0.weight=3", r"sources is a list, and is given whole: sources=\[\.\.\.\]"),
        ("optimizer.betas=[1,2,3]", "override 'optimizer.betas"),
        ("optimizer.betas=[1,[2]]", "optimizer.betas.1 is one value, not a list or keys"),
    ],
)
def test_wrong_overrides(load, override, message):
    with pytest.raises(ConfigError, match=message):
        load("steps: 3\nsources: [{weight: 1}]", override)


def test_a_schemas_own_check_names_the_file_and_the_overrides(load):
    with pytest.raises(ConfigError, match=r"recipe\.yaml, override 'steps=0': steps = 0: must be at least 1"):
        load("steps: 3", "steps=0")


def test_files_that_are_none(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such config file"):
        config.load(tmp_path / "nowhere.yaml", Recipe)
    with pytest.raises(ConfigError, match="a folder, pipe or device"):
        config.load(tmp_path, Recipe)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ConfigError, match=r"binary\.yaml: not readable"):
        config.load(tmp_path / "binary.yaml", Recipe)


def test_saving_is_plain_yaml_that_loads_equal(tmp_path):
    recipe = Recipe(steps=2, optimizer=Optimizer(lr=3e-5), sources=[Source(folder=Path("träume"))], teacher=Optimizer())
    path = tmp_path / "resolved.yaml"
    config.save(recipe, path)
    assert config.load(path, Recipe) == recipe
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == config.to_dict(recipe)
    assert config.from_dict(json.loads(json.dumps(config.to_dict(recipe))), Recipe) == recipe


def test_from_dict_names_its_origin():
    with pytest.raises(ConfigError, match=r"step-8/config: unknown key 'step'; did you mean steps\?"):
        config.from_dict({"step": 3}, Recipe, where="step-8/config")


def test_a_file_says_only_what_it_changes_of_its_base(load, tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "all.yaml").write_text("steps: 3\noptimizer: {lr: 1, warmup: 2}\nsources: [{folder: a}]\n")
    (tmp_path / "more.yaml").write_text("base: shared/all.yaml\noptimizer: {warmup: 7}\nnamed: {x: {folder: b}}\n")
    recipe = load("base: more.yaml\nsteps: 4\nsources: [{folder: c}, {folder: d}]\n", "optimizer.lr=5")
    assert recipe == Recipe(
        steps=4, optimizer=Optimizer(lr=5.0, warmup=7), sources=[Source(folder=Path("c")), Source(folder=Path("d"))],
        named={"x": Source(folder=Path("b"))},
    )  # fmt: skip
    assert set(config.given(tmp_path / "recipe.yaml")) == {"steps", "optimizer", "sources", "named"}


def test_errors_of_a_base_name_its_file(load, tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.yaml: no such config file \(the base of .*recipe\.yaml\)"):
        load("base: gone.yaml\nsteps: 3")
    (tmp_path / "first.yaml").write_text("stepps: 3\n")
    with pytest.raises(ConfigError, match=r"first\.yaml: unknown key 'stepps'; did you mean steps\?"):
        load("base: first.yaml\nsteps: 3")
    (tmp_path / "first.yaml").write_text("base: recipe.yaml\n")
    with pytest.raises(ConfigError, match=r"recipe\.yaml: is its own base, by way of .*recipe\.yaml, .*first\.yaml"):
        load("base: first.yaml\nsteps: 3")


def unfolding(levels: int) -> str:
    """Aliases that stand for 9 to the power of ``levels`` values."""
    lines = ["a0: &a0 [x]"]
    return "\n".join(lines + [f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]" for i in range(levels)])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (unfolding(12), "more than 100000 values, aliases unfolded"),
        ("steps: &a [*a]", "more than 100000 values"),
        ("steps: " + "[" * 9000 + "]" * 9000, "nested without end"),
        ("steps: !!python/object/apply:os.system [ls]", "not readable as YAML"),
        ("? [a, b]\n: 3", "not readable as YAML"),
    ],
    ids=["bomb", "itself", "deep", "tag", "key"],
)
def test_hostile_files_are_refused_at_once(tmp_path, text, said):
    (tmp_path / "hostile.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"hostile\.yaml: .*{said}"):
        config.load(tmp_path / "hostile.yaml", Recipe)


def test_an_override_that_refers_to_nothing_is_refused(tmp_path):
    (tmp_path / "recipe.yaml").write_text("steps: 3\n")
    with pytest.raises(ConfigError, match="Interpolation key 'nope' not found"):
        config.load(tmp_path / "recipe.yaml", Recipe, ["steps=${nope}"])


def test_a_base_that_is_no_file_is_refused(tmp_path):
    (tmp_path / "recipe.yaml").write_text("base: /dev/zero\n")
    with pytest.raises(ConfigError, match="/dev/zero: a folder, pipe or device"):
        config.load(tmp_path / "recipe.yaml", Recipe)


def test_differences_name_the_full_key_and_both_values() -> None:
    old = {"steps": 4, "model": {"width": 8, "levels": [1, 2]}, "run": "a", "gone": 1}
    new = {"steps": 4, "model": {"width": 8, "levels": [1, 3]}, "run": "b", "come": None}
    assert config.differences(old, new, but=("run",)) == ["gone: 1, now None", "model.levels: [1, 2], now [1, 3]"]
    assert config.differences(old, old) == []
