"""The flags of a program, from the fields of what can be asked for."""

import inspect
from collections.abc import Callable
from inspect import Parameter
from typing import Annotated, Any

import typer

from vpoet.generate.fields import Function, about, declared, written


def flags(*groups: Any, before: str) -> Callable[[Function], Function]:
    """Show typer a ``main`` of ``**asked`` as one that has a flag for each field of these dataclasses, except for those
    that it names itself; on the help page they stand in front of the parameter ``before``."""

    def decorated(main: Function) -> Function:
        signature = inspect.signature(main)
        own = {name: each for name, each in signature.parameters.items() if each.kind is not Parameter.VAR_KEYWORD}
        made = {}
        for name, field in declared(*groups).items():
            if name in own:
                continue
            found, kind = about(field), written(field)
            names = [f"--{each.replace('_', '-')}" for each in (found.alias, name) if each]
            option = typer.Option(*names, help=found.help, metavar=found.metavar)
            default = None if found.own or field.default == () else field.default
            hint: Any = Annotated[kind | None if default is None else kind, option]
            made[name] = Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=hint)
        at = list(own).index(before)
        parameters = [*list(own.values())[:at], *made.values(), *list(own.values())[at:]]
        main.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        main.__annotations__ = {each.name: each.annotation for each in parameters}
        return main

    return decorated
