"""Sentences about a scene of the platformer world: compositional, and true in every word."""

from collections.abc import Mapping
from typing import Any

_SIMPLE = {
    "walk": "walks {direction}",
    "jump": "jumps up and down",
    "climb": "climbs {direction} a ladder",
    "fall": "falls from the sky",
    "idle": "stands still",
}
_GOING_ON = {
    "walk": "is walking to the {direction}",
    "jump": "is jumping up and down",
    "climb": "is climbing {direction} a ladder",
    "fall": "is falling from the sky",
    "idle": "is standing still",
}
_MOTION = {
    ("fly", "above"): ("flies above", "is flying above"),
    ("fly", "in the sky"): ("flies by", "is flying by"),
    ("crawl", "on the ground"): ("crawls {direction}", "is crawling to the {direction}"),
    ("swim", "in the water"): ("swims below", "is swimming below"),
}
PLACES = {"grass": "grass", "sand": "sand", "snow": "snow", "dirt": "dirt", "stone": "stone", "planet": "a planet"}
SKIES = {"day": "by day", "dusk": "at dusk", "night": "at night", "fog": "in fog"}
PHRASINGS = 3
"""The first so many captions state nothing that the judge does not see; only the first says nothing of the sky."""


def article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def captions(truth: Mapping[str, Any]) -> list[str]:
    """Phrasings of one scene, from the plainest to the fullest; each says less than ``truth`` or as much."""
    who, place, sky = article(truth["who"]), PLACES[truth["ground"]], SKIES[truth["sky"]]
    simple = _SIMPLE[truth["action"]].format(direction=truth["direction"])
    going_on = _GOING_ON[truth["action"]].format(direction=truth["direction"])
    also_simple = also_going_on = ""
    if truth["creatures"]:
        creature = truth["creatures"][0]
        moves = _MOTION[creature["motion"], creature["place"]]
        motions = [motion.format(direction=creature["direction"]) for motion in moves]
        also_simple = f" while {article(creature['name'])} {motions[0]}"
        also_going_on = f", and {article(creature['name'])} {motions[1]}"
    things = f"; there is {article(truth['items'][0]['name'])}" if truth["items"] else ""
    things += f"; there are {truth['backdrop']}" if truth["backdrop"] else ""
    where = f"on {place}"
    if truth["action"] == "fall":
        where = f"onto {place}" if truth["landed"] else f"towards {place}"
    return [
        f"{who} {simple} {where}{also_simple}",
        f"{who} {simple} {where} {sky}{also_simple}",
        f"{sky}, {who} {going_on} {where}{also_going_on}",
        f"{who} {going_on} {where} {sky}{also_going_on}{things}",
    ]


def stated(truth: Mapping[str, Any], phrasing: int) -> dict[str, str]:
    """What caption number ``phrasing`` (below `PHRASINGS`) says, by names that the judge tells.

    All captions tell of the creature if there is one: where none is told of, "" is asked for.
    """
    values = {name: str(truth[name]) for name in ("who", "action", "direction", "ground", "sky") if truth[name]}
    if phrasing == 0:
        del values["sky"]
    return values | {"creature": truth["creatures"][0]["name"] if truth["creatures"] else ""}
