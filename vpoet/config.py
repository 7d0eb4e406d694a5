"""Configuration: dataclasses beside the parts they configure, YAML files, dotted overrides.

OmegaConf's structured merge does the reading, so a value is converted by its field's type (``3e-4`` is a float,
although YAML 1.1 calls it a string) and an unknown key is refused. This module adds what a user needs to mend the file:
its name, the full key, and the nearest name that exists.
"""

import dataclasses
import difflib
import io
import sys
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from omegaconf import MISSING, DictConfig, ListConfig, Node, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vpoet.errors import ConfigError

T = TypeVar("T")

REQUIRED = MISSING
"""Default of a field that the user must give."""

NODES = 100_000
"""Values that a file can hold, its aliases unfolded: a few hundred bytes of them can stand for a billion."""

BASE = "base"
"""Key of a file that names the file it changes."""


def load(path: str | Path, schema: type[T], overrides: Sequence[str] = ()) -> T:
    """Read a YAML file into ``schema``, then ``key.sub=value`` overrides; ConfigError names file, key and remedy.

    A file may name another with ``base: FILE``, relative to its own folder: it then says only what it changes.
    """
    return _merge(schema, [*_read(Path(path)), *_parse_overrides(overrides)])


def check_overrides(schema: type[T], overrides: Sequence[str]) -> None:
    """ConfigError if one is no ``key=value``, or no key of ``schema``, or its value of another type: what can be told
    of them before there is a file for them to change."""
    _merged(schema, _parse_overrides(overrides))


def given(path: str | Path) -> dict[str, Any]:
    """What a YAML file and its bases give, before any schema; ConfigError if that is no mapping."""
    merged = OmegaConf.merge(*(values for _, values in _read(Path(path))))
    return cast(dict[str, Any], OmegaConf.to_container(merged))


def _read(path: Path, above: tuple[Path, ...] = ()) -> list[tuple[str, DictConfig]]:
    """A file's values behind its bases'."""
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path}: a folder, pipe or device, not a config file")
        text = path.read_text(encoding="utf-8")
        if _nodes(yaml.compose(text, yaml.SafeLoader), {}) > NODES:
            raise ConfigError(f"{path}: more than {NODES} values, aliases unfolded; write them out, or fewer")
        values = OmegaConf.load(io.StringIO(text))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file{f' (the base of {above[-1]})' if above else ''}") from None
    except ConfigError:
        raise
    except RecursionError:
        raise ConfigError(f"{path}: not readable as YAML: nested without end") from None
    except (OSError, ValueError, TypeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(values, DictConfig):
        raise ConfigError(f"{path}: a config is a mapping of keys to values, not {type(values).__name__}")
    base = values.pop(BASE, None)
    if base is None:
        return [(str(path), values)]
    if path.resolve() in (file.resolve() for file in above):
        raise ConfigError(f"{path}: is its own base, by way of {', '.join(map(str, above))}")
    return [*_read(path.parent / str(base), (*above, path)), (str(path), values)]


def _nodes(node: yaml.Node | None, known: dict[int, int]) -> int:
    """Values below a node, each alias counted anew. More than there can be for one inside itself."""
    if isinstance(node, yaml.MappingNode | yaml.SequenceNode):
        if id(node) not in known:
            known[id(node)] = sys.maxsize  # until it is known, for what is inside itself
            inside = (part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,)))
            known[id(node)] = 1 + sum(_nodes(part, known) for part in inside)
        return known[id(node)]
    return 1


def from_dict(values: dict[str, Any], schema: type[T], where: str = "config") -> T:
    """Check a plain dictionary against ``schema``; ``where`` names its origin in errors."""
    return _merge(schema, [(where, OmegaConf.create(values))])


def to_dict(config: object) -> dict[str, Any]:
    """The nested dictionary of a config dataclass, in YAML's and JSON's own types: paths as text, tuples as lists."""
    return cast(dict[str, Any], _plain(OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)))


def save(config: object, path: str | Path) -> None:
    """Write a config dataclass as YAML that `load` reads back equal."""
    Path(path).write_text(yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True), encoding="utf-8")


def differences(old: dict[str, Any], new: dict[str, Any], *, but: Iterable[str] = (), prefix: str = "") -> list[str]:
    """The values in which two configs (`to_dict`) differ, as "key: old, now new"; top-level keys in ``but`` may."""
    found = []
    for key in sorted((old.keys() | new.keys()) - set(but)):
        before, now = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            found += differences(before, now, prefix=f"{prefix}{key}.")
        elif before != now:
            found.append(f"{prefix}{key}: {before}, now {now}")
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _parse_overrides(overrides: Sequence[str]) -> list[tuple[str, DictConfig]]:
    parsed = []
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"override {override!r}: write it as key=value, for instance optimizer.lr=3e-4")
        try:
            parsed.append((f"override {override!r}", OmegaConf.from_dotlist([override])))
        except RecursionError:
            raise ConfigError(f"override {override[:80]!r}: nested without end") from None
        except (OmegaConfBaseException, ValueError, TypeError, yaml.YAMLError) as error:
            raise ConfigError(f"override {override!r}: {error}") from None
    return parsed


def _merge(schema: type[T], sources: Sequence[tuple[str, DictConfig]]) -> T:
    config = _merged(schema, sources)
    where = sources[-1][0]
    try:
        missing = sorted(str(key) for key in OmegaConf.missing_keys(config))
        if missing:
            raise ConfigError(f"{sources[0][0]}: required and not given: {', '.join(missing)}")
    except OmegaConfBaseException as error:
        raise ConfigError(f"{where}: {str(error).splitlines()[0]}") from None
    try:
        return cast(T, OmegaConf.to_object(config))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{where}: {str(error).splitlines()[0]}") from None
    except ConfigError as error:  # from a schema's own __post_init__, which does not know the file
        raise ConfigError(f"{', '.join(name for name, _ in sources)}: {error}") from None


def _merged(schema: type[T], sources: Sequence[tuple[str, DictConfig]]) -> Any:
    config = OmegaConf.structured(schema)
    for where, values in sources:
        _check_keys(values, schema, where)
        try:
            config = OmegaConf.merge(config, values)
        except OmegaConfBaseException as error:
            message = str(error).splitlines()[0]
            raise ConfigError(f"{where}: {getattr(error, 'full_key', None) or 'value'}: {message}") from None
    return config


def _check_keys(values: Any, schema: Any, where: str, key: str = "") -> None:
    """Refuse unknown keys before OmegaConf does, with the file, the full key and the nearest name.

    ``values`` is what a source gives for ``key``, ``schema`` the type of its field: ``Part``, ``Part | None``,
    ``list[Part]``, ``dict[str, Part]`` or a plain type, which is left to OmegaConf.
    """
    inner = [argument for argument in typing.get_args(schema) if dataclasses.is_dataclass(argument)]
    if typing.get_origin(schema) in (typing.Union, types.UnionType) and inner:
        schema = inner[0]
    if isinstance(values, Node) and (values._is_none() or values._is_missing() or values._is_interpolation()):
        return
    if dataclasses.is_dataclass(schema):
        fields = {field.name: field.type for field in dataclasses.fields(schema)}
        if not isinstance(values, DictConfig):
            raise ConfigError(f"{where}: {key}: takes keys ({', '.join(fields)}), not {values}")
        for name in map(str, values):
            if name not in fields:
                near = difflib.get_close_matches(name, fields, n=1, cutoff=0.0)
                hint = f"did you mean {_join(key, near[0])}?" if near else "it takes no keys"
                raise ConfigError(f"{where}: unknown key {_join(key, name)!r}; {hint}")
            _check_keys(values._get_node(name), fields[name], where, _join(key, name))
    elif typing.get_origin(schema) is list and not isinstance(values, ListConfig):
        raise ConfigError(f"{where}: {key} is a list, and is given whole: {key}=[...]")
    elif set(typing.get_args(schema)) <= {str, int, float} and isinstance(values, ListConfig):
        for part in range(len(values)):
            if isinstance(values._get_node(part), ListConfig | DictConfig):
                raise ConfigError(f"{where}: {_join(key, str(part))} is one value, not a list or keys")
    elif inner and isinstance(values, ListConfig | DictConfig):
        names: Iterable[Any] = range(len(values)) if isinstance(values, ListConfig) else list(values)
        for part in names:
            _check_keys(values._get_node(part), inner[0], where, _join(key, str(part)))


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
