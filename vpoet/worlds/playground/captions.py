"""Sentences about the playground: captions, what they state, and prompts read back."""

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from vpoet.errors import DataError
from vpoet.worlds.platformer.captions import PLACES, SKIES, article
from vpoet.worlds.platformer.scenery import CHARACTERS

PHRASINGS = 3
"""All captions; only the first says nothing of the sky."""
_WHO = re.compile(rf"\ban? ({'|'.join(CHARACTERS)})\b", re.IGNORECASE)
_GROUND = re.compile(rf"\b(?:on|onto|towards) (?:an? )?({'|'.join(PLACES)})\b", re.IGNORECASE)
_SKY = re.compile(rf"\b({'|'.join(SKIES.values())})\b", re.IGNORECASE)


def captions(truth: Mapping[str, Any]) -> list[str]:
    """Phrasings of who is where."""
    who, place, sky = article(truth["who"]), PLACES[truth["ground"]], SKIES[truth["sky"]]
    return [f"{who} on {place}", f"{who} on {place} {sky}", f"{sky}, {who} plays on {place}"]


def stated(truth: Mapping[str, Any], phrasing: int) -> dict[str, str]:
    """What caption number ``phrasing`` (below `PHRASINGS`) says, by names of ``truth``."""
    return {name: str(truth[name]) for name in ("who", "ground", "sky")[: 2 if phrasing == 0 else 3]}


def understood(prompt: str) -> dict[str, str]:
    """Who, ground and sky, as far as a prompt names them; the captions of the platformer world can be read too.

    DataError: words, and none of them says who or where.
    """
    found = {}
    if named := _WHO.search(prompt):
        found["who"] = named[1].lower()
    if named := _GROUND.search(prompt):
        found["ground"] = named[1].lower()
    if named := _SKY.search(prompt):
        found["sky"] = next(sky for sky, words in SKIES.items() if words == named[1].lower())
    if prompt.strip() and not found:
        raise DataError(
            f"prompt {prompt!r}: it names nobody and no place; for instance 'a robot on grass at night', of "
            f"{', '.join(CHARACTERS)}; on {', '.join(PLACES)}; {', '.join(SKIES.values())}"
        )
    return found


def timeline(truths: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What a figure does from frame to frame, ``from`` this one up to but without that one (``to``).

    A jump is one thing, up and down.
    """
    told: list[dict[str, Any]] = []
    at = 0
    for text, run in groupby(map(doing, truths)):
        last = at + len(list(run))
        jumps = bool(told) and text.endswith(" falls") and told[-1]["text"].endswith(" jumps")
        if jumps:
            told[-1]["to"] = last
        else:
            told.append({"from": at, "to": last, "text": text})
        at = last
    return told


def doing(truth: Mapping[str, Any]) -> str:
    """What the figure does in one frame."""
    words = {"stand": "stands still", "walk": f"walks {truth['facing']}", "climb": "is on the ladder"}
    return f"{article(truth['who'])} {words.get(truth['action'], truth['action'] + 's')}"
