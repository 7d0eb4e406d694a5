"""A protocol in one word of a command line: ``vpoet-16``, or ``vpoet-16,frames=5,size=64``.

A preset, and after it the fields of `Protocol` that are other than the preset's. The network's are not among them: they
follow from the network that is given.
"""

from dataclasses import fields
from typing import Any

from vpoet.errors import ConfigError
from vpoet.evaluate.compare.protocol import Protocol, choose

FIELDS = {field.name: field.type for field in fields(Protocol) if not field.name.startswith("network")}
TRUTH = {"true": True, "false": False}


def read_protocol(text: str) -> Protocol:
    """The protocol that the word says. ConfigError: no such preset or field, or a value that the field cannot have."""
    preset, *words = text.split(",")
    changes: dict[str, Any] = {}
    for word in words:
        name, is_given, value = (part.strip() for part in word.partition("="))
        if not is_given or name not in FIELDS:
            raise ConfigError(
                f"protocol {text[:80]!r}: {word.strip()[:40]!r} is not FIELD=VALUE; write a preset and then, for "
                f"instance, frames=5,size=64, of the fields {', '.join(FIELDS)}"
            )
        changes[name] = _value(name, value)
    return choose(preset.strip(), changes)


def _value(name: str, value: str) -> Any:
    kind = FIELDS[name]
    try:
        if kind is bool:
            return TRUTH[value]
        return kind(value) if kind in (int, float) else value
    except (KeyError, ValueError):
        wanted = "true or false" if kind is bool else "a whole number" if kind is int else "a number"
        raise ConfigError(f"{name} is {wanted}, not {value[:40]!r}") from None
