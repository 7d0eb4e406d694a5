"""A chain's plan in words, for the person who will wait for it."""

import time
from collections.abc import Mapping
from pathlib import Path

from vpoet.evaluate.chain.stages import Plan, shown


def duration(seconds: float) -> str:
    """``1 h 5 min``, ``12 min``, ``1 min 40 s``, ``8 s``."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    if whole >= 600:
        return f"{round(seconds / 60)} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def plan_in_words(plan: Plan, out: Path, done: Mapping[str, float], now: float, commands: bool) -> list[str]:
    """What is planned, stage by stage. ``done``: seconds of those that are; ``now``: seconds since the epoch."""
    left = sum(stage.seconds for stage in plan.stages if stage.name not in done)
    lines = [f"{out}: from {', '.join(map(str, plan.asked.get('sources', [])))} to a model, in {plan.hours:g} h"]
    lines += [f"  {note}" for note in plan.notes]
    for stage in plan.stages:
        when = "done" if stage.name in done else f"about {duration(stage.seconds)}"
        lines.append(f"  {stage.name:20}{when:18}{stage.what}")
        lines += [f"    {shown(stage.command)}"] if commands else []
    if left:
        end = time.strftime("%H:%M", time.localtime(now + left))
        lines.append(f"  about {duration(left)} from now, until {end}")
    return lines
