"""Recordings: clips with what was done in them, what came of it, and captions that change in time.

What lists and raw json say of a recording is timed in its frames:

    actions         one for each step between two frames: an index or a name, or a vector
    action_space    {"names": [...]} or {"low": [...], "high": [...]}, by which actions are understood
    outcomes        {"reward": [...], "end": [...]}, one of each for a step
    captions        [{"from": frame, "to": frame, "text": ...}, ...]: ``to`` is the first frame that it says no more of

It is checked, follows the frames when they are cut and resampled, and lies in token shards as values of the vocabulary:

    KEY.actions.npy     uint16 [T - 1, a]    values of the range "actions" (`vpoet.sequence.actions`)
    KEY.outcomes.npy    uint16 [T - 1]
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vpoet.arrays import Ints
from vpoet.data.fields import parse_json
from vpoet.data.npy import ints_to_npy, npy_to_ints
from vpoet.errors import DataError
from vpoet.sequence.actions import ActionSpace, outcome_values

NAMES = ("actions", "action_space", "outcomes", "captions")
Fields = dict[str, Any]


def from_list(record: Fields, folder: Path) -> Fields:
    """A list's row, with what its cells spell as JSON read, and files that they name found from the list's folder."""
    found = dict(record)
    for name in NAMES:
        cell = record.get(name)
        if isinstance(cell, str) and cell.lstrip()[:1] in ("[", "{"):
            try:
                found[name] = parse_json(cell)
            except DataError as error:
                raise DataError(f"column {name}: {error}") from None
        elif isinstance(cell, str) and Path(cell).suffix in (".json", ".npy"):
            found[name] = str(folder / cell)
    return found


def loaded(fields: Mapping[str, Any]) -> Fields:
    """Fields with the content of the files that they name. DataError: one is not there, or holds something else."""
    return {name: _read(name, value) if name in NAMES else value for name, value in fields.items()}


def _read(name: str, value: Any) -> Any:
    if not isinstance(value, str) or Path(value).suffix not in (".json", ".npy"):
        return value
    try:
        if value.endswith(".npy"):
            return np.load(value, allow_pickle=False).tolist()
        return parse_json(Path(value).read_bytes())
    except OSError as error:
        raise DataError(f"{name}: {value}: {error.strerror or error}") from None
    except Exception as error:  # a damaged header of a .npy asks for any size and type
        raise DataError(f"{name}: {value}: {error}") from None


def is_timed(fields: Mapping[str, Any]) -> bool:
    """Whether they speak of single frames or steps."""
    return "actions" in fields or changes(fields) is not None


def resampled(fields: Mapping[str, Any], *, frames: int, own: float, fps: float) -> Fields:
    """Fields of a source of ``frames`` frames at its ``own`` rate as those of its frames at ``fps``.

    At half the rate an action stands for two steps, so it must be the same in both; their rewards add up. DataError:
    the actions are not one for each step, or cannot be told at that rate.
    """
    actions, outcomes = fields.get("actions"), fields.get("outcomes")
    found = dict(fields)
    if isinstance(actions, list):
        _check_count("actions", actions, frames)
        held = round(own / fps)
        if held < 1 or not math.isclose(own / fps, held, rel_tol=1e-6):
            raise DataError(f"made at {own:g} frames per second, which is no multiple of {fps:g}; {_remedy(own)}")
        steps = [actions[first : first + held] for first in range(0, held * ((frames - 1) // held), held)]
        if any(action != step[0] for step in steps for action in step):
            raise DataError(f"they change within the {held} steps of one at {fps:g} frames per second; {_remedy(own)}")
        found["actions"] = [step[0] for step in steps]
        if outcomes is not None:
            rewards, ends = _outcomes(outcomes, frames)
            firsts = range(0, held * len(steps), held)
            try:
                sums = [math.fsum(rewards[first : first + held]) for first in firsts]
            except OverflowError:
                raise DataError(f"outcomes: rewards too large to add up; {_remedy(own)}") from None
            found["outcomes"] = {
                "reward": sums,
                "end": [any(ends[first : first + held]) for first in firsts],
            }
    elif actions not in (None, ""):
        raise DataError(f"actions: {str(actions)[:40]!r} is no list, no JSON of one, and no name of a .json or .npy")
    if (told := changes(fields)) is not None:
        found["captions"] = [
            {"from": round(first * fps / own), "to": round(behind * fps / own), "text": text}
            for first, behind, text in told
        ]
    return found


def _remedy(own: float) -> str:
    return f"ingest it at {own:g} (--fps 0 keeps each file's own)"


def cut(fields: Mapping[str, Any], first: int, frames: int) -> Fields:
    """What a recording says of ``frames`` of its frames, ``first`` on."""
    found: Fields = {}
    steps = slice(first, first + frames - 1)
    if isinstance(fields.get("actions"), list):
        found["actions"] = fields["actions"][steps]
        outcomes = fields.get("outcomes")
        if isinstance(outcomes, Mapping):
            lists = {name: values for name, values in outcomes.items() if isinstance(values, list)}
            found["outcomes"] = {name: values[steps] for name, values in lists.items()}
    if (told := changes(fields)) is not None:
        shifted = [(max(0, a - first), min(frames, b - first), text) for a, b, text in told]
        found["captions"] = [{"from": a, "to": b, "text": text} for a, b, text in shifted if a < b]
    return found


def changes(fields: Mapping[str, Any]) -> list[tuple[int, int, str]] | None:
    """(from, to, text) of a timeline, in order; None if ``captions`` is none. DataError: it is a broken one."""
    told = fields.get("captions")
    if not isinstance(told, list) or not told or not all(isinstance(entry, Mapping) for entry in told):
        return None
    entries = [(entry.get("from"), entry.get("to"), entry.get("text")) for entry in told]
    found: list[tuple[int, int, str]] = []
    for first, behind, text in entries:
        if not (_is_count(first) and _is_count(behind) and isinstance(text, str) and first < behind):
            raise DataError(
                f'captions: {first!r} to {behind!r}: each is {{"from": frame, "to": a later frame, "text": ...}}'
            )
        found.append((first, behind, text))
    found.sort()
    for (_, behind, _), (first, _, _) in pairwise(found):
        if first < behind:
            raise DataError(f"captions: two speak of frame {first}")
    return found


def timeline(fields: Mapping[str, Any], frames: int, cells: int) -> tuple[tuple[int, str], ...] | None:
    """The captions of a clip of so many frames, in ``cells`` of time: the first cell of each, ascending from 0.

    A caption begins with the cell whose first frame is nearest to its own, and says nothing if that leaves it none;
    where no caption speaks, the text is empty. None: it has no such captions.
    """
    told = changes(fields)
    if told is None or cells < 2:
        return None
    stride, rest = divmod(frames - 1, cells - 1)
    if rest or told[-1][1] > frames:
        raise DataError(f"captions of {told[-1][1]} frames for a clip of {frames} in {cells} cells")
    found: list[tuple[int, str]] = []
    at = 0
    for first, behind, text in told:
        start, stop = (0 if frame == 0 else 1 + math.ceil((frame - 1) / stride - 0.5) for frame in (first, behind))
        if start < stop:
            found += [(at, "")] if at < start else []
            found.append((start, text))
            at = stop
    return (*found, *([(at, "")] if at < cells else []))


def action_space(fields: Mapping[str, Any]) -> ActionSpace | None:
    """By which its actions are understood; None if it has none that can be. DataError: it says something else."""
    if fields.get("actions") is None or fields.get("action_space") is None:
        return None
    return ActionSpace.of(fields["action_space"])


def parts(fields: Mapping[str, Any], frames: int) -> dict[str, bytes]:
    """What a token shard holds of the steps of a clip of so many frames, by extension; none without an action space.

    DataError: they are not one for each step, there is no such action, or the outcomes are broken.
    """
    space, actions = action_space(fields), fields.get("actions")
    if space is None:
        return {}
    if not isinstance(actions, list):
        raise DataError("actions: not a list")
    _check_count("actions", actions, frames)
    found = {"actions.npy": ints_to_npy(space.values(actions))}
    if fields.get("outcomes") is not None:
        found["outcomes.npy"] = ints_to_npy(outcome_values(*_outcomes(fields["outcomes"], frames)))
    return found


def from_parts(held: Mapping[str, bytes], space: ActionSpace) -> tuple[Ints, Ints | None]:
    """Actions [n, a] and outcomes [n] of a sample of a token shard; DataError for what `parts` does not give."""
    sizes = dict(space.ranges)
    actions = npy_to_ints(held["actions.npy"], (None, space.arity), below=sizes["actions"])
    if "outcomes.npy" not in held:
        return actions, None
    return actions, npy_to_ints(held["outcomes.npy"], (len(actions),), below=sizes["outcomes"])


def _outcomes(outcomes: Any, frames: int) -> tuple[list[Any], list[Any]]:
    if not isinstance(outcomes, Mapping) or not all(isinstance(outcomes.get(name), list) for name in ("reward", "end")):
        raise DataError('outcomes is {"reward": [...], "end": [...]}')
    for name in ("reward", "end"):
        _check_count(f"outcomes: {name}", outcomes[name], frames)
    outcome_values(outcomes["reward"], outcomes["end"])
    return outcomes["reward"], outcomes["end"]


def _check_count(what: str, values: Sequence[Any], frames: int) -> None:
    if len(values) != frames - 1:
        told = "; one is said of each step between two frames, not of each frame" if len(values) == frames else ""
        raise DataError(f"{what}: {len(values)} for {frames} frames, which have {frames - 1} steps{told}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
