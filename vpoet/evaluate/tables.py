"""Tables for readers: in Markdown, and of facts."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]], text: Collection[int] = (0,)) -> str:
    """The table; columns are flush right, as figures are, but for those at the positions ``text``."""
    rule = ["---" if column in text else "--:" for column in range(len(heads))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows))


def means(lines: Sequence[Mapping[str, Any]], columns: Mapping[str, tuple[str, str]]) -> str:
    """A table of the lines of `vpoet.evaluate.intervals.over_seeds`: an interval stands behind its mean, after ±.

    A column is key -> (heading, format, as "{:.2f}").
    """
    rows = []
    for line in lines:
        halves = {key: line.get(f"{key}_interval", math.nan) for key in columns}
        rows.append(
            [
                form.format(line[key]) + ("" if math.isnan(halves[key]) else f" ± {form.format(halves[key])}")
                for key, (_, form) in columns.items()
            ]
        )
    text = [at for at, key in enumerate(columns) if lines and isinstance(lines[0][key], str)]
    return markdown([heading for heading, _ in columns.values()], rows, text)


def facts_in_words(facts: Mapping[str, Any], indent: str = "  ") -> Iterator[str]:
    """Facts as people read them, nested ones indented."""
    width = max((len(name) for name, value in facts.items() if not isinstance(value, dict)), default=0)
    for name, value in facts.items():
        if isinstance(value, dict):
            yield f"{indent}{name}"
            yield from facts_in_words(value, indent + "    ")
        else:
            yield f"{indent}{name:<{width}}  {_readable(value)}"


def _readable(value: object) -> str:
    """Thousands apart, floats to four digits, lists by commas."""
    if isinstance(value, list):
        return ", ".join(map(_readable, value)) or "none"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}"
