"""What can be asked for, declared once: a field of `Request` or of `Sampling` is all that its flag, its name in a
prompt file, its argument of `Model.sample` and its check follow from.

    height: int | None = asked(None, "Pixels. [default: the model's]")
"""

import difflib
import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, dataclass, fields
from dataclasses import field as dataclass_field
from inspect import Parameter
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, cast, get_args

from vpoet.errors import PromptError

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers that a field may be."""

    least: float
    most: float = float("inf")
    off: float | None = None
    """The end of the range at which the field changes nothing, for people."""
    above: bool = False
    """Whether ``least`` itself is too little."""

    def __contains__(self, value: float) -> bool:
        return self.least <= value <= self.most and not (self.above and value == self.least)

    def __str__(self) -> str:
        least, most = (f"{end:g}{' (off)' if end == self.off else ''}" for end in (self.least, self.most))
        if self.most == float("inf"):
            return f"{least} or more"
        return f"above {least} and at most {most}" if self.above else f"{least} to {most}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a field says of itself beside its name, type and default."""

    help: str
    """One line or two, in the words of the command line."""
    alias: str = ""
    """Another name that flags and Python take it by."""
    metavar: str | None = None
    read: Callable[[Any], Any] | None = None
    """From how it is written to what it is. PromptError: it says something else."""
    written: Any = None
    """The type that ``read`` takes: str, or list[str]."""
    allowed: Range | None = None
    own: bool = False
    """Whether a model has a value of its own, in its `BundleConfig`, which holds where nothing is asked."""


def asked(default: Any, help: str, **about: Any) -> Any:
    """A field of a dataclass, with what `Asked` says of it."""
    return dataclass_field(default=default, metadata={"asked": Asked(help=help, **about)})


def about(field: Field[Any]) -> Asked:
    found: Asked = field.metadata["asked"]
    return found


def written(field: Field[Any]) -> Any:
    """The type of a field as it is written on a command line; Path for a video or an image."""
    kinds = [kind for kind in get_args(field.type) or (field.type,) if kind is not NoneType]
    return about(field).written or (Path if Path in kinds else kinds[0])


def check(values: Any) -> None:
    """PromptError: a field of the dataclass is a number out of its range."""
    for field in fields(values):
        value, allowed = getattr(values, field.name), about(field).allowed
        if allowed is not None and value is not None and value not in allowed:
            raise PromptError(f"{field.name} = {value}: it must be {allowed}")


def unknown(name: str, known: Iterable[str], what: str) -> str:
    """What to say of a name that is none of the known ones."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0)[0]
    return f"unknown {what} {name!r}; did you mean {near!r}?"


def declared(*groups: Any) -> dict[str, Field[Any]]:
    """The fields of several dataclasses by their names."""
    return {field.name: field for group in groups for field in fields(group)}


def those_of(group: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked for by fields of one dataclass."""
    return {field.name: asked[field.name] for field in fields(group) if field.name in asked}


def described(field: Field[Any]) -> str:
    """A line of a docstring: names, and the help with the names of flags as those of arguments."""
    found = about(field)
    words = re.sub(r"--([a-z]+)", r"``\1``", found.help)
    also = f" (or ``{found.alias}``)" if found.alias else ""
    return textwrap.fill(f"``{field.name}``{also}: {words}", 100, subsequent_indent="    ")


def takes(*groups: Any) -> Callable[[Function], Function]:
    """Give a function of ``**asked`` the fields of these dataclasses for arguments, by their aliases too: in what it
    takes, in its signature and in its docstring. Those that it names itself stay as they are.

    TypeError: there is no such argument.
    """
    found = declared(*groups)
    names = {each: name for name, field in found.items() for each in (name, about(field).alias) if each}

    def decorated(function: Function) -> Function:
        plain = inspect.signature(function)
        parameters = [each for each in plain.parameters.values() if each.kind is not Parameter.VAR_KEYWORD]
        known = {each.name: each.name for each in parameters} | names
        for field in (field for name, field in found.items() if name not in plain.parameters):
            alone = field.kw_only or parameters[-1].kind is Parameter.KEYWORD_ONLY
            kind = Parameter.KEYWORD_ONLY if alone else Parameter.POSITIONAL_OR_KEYWORD
            hint, default = cast(Any, field.type), field.default
            if about(field).own:
                hint, default = hint | None, None
            parameters.append(Parameter(field.name, kind, default=default, annotation=hint))
        signature = plain.replace(parameters=parameters)

        @functools.wraps(function)
        def checked(*args: Any, **given: Any) -> Any:
            for name in given:
                if name not in known:
                    raise TypeError(f"{function.__name__}: {unknown(name, known, 'argument')}")
            named = {known[name]: value for name, value in given.items()}
            if len(named) < len(given):
                raise TypeError(f"{function.__name__}: {', '.join(given)}: two of them are names of one argument")
            return function(**signature.bind(*args, **named).arguments)

        checked.__signature__ = signature  # type: ignore[attr-defined]
        checked.__doc__ = "\n".join([inspect.getdoc(function) or "", "", *map(described, found.values())])
        return cast(Function, checked)

    return decorated
