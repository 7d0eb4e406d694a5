"""Environments of gymnasium of which vpoet knows what their frames show: truth by names, a judge, and a player.

One file adds one. Of all others `vpoet.worlds.gym` makes recordings, under random actions, and nobody judges them.
"""

from importlib import import_module

from vpoet.worlds.environments.known import Environment

MODULES = {"gym_pusht/PushT-v0": "pusht", "ALE/Breakout-v5": "breakout"}


def known(name: str) -> type[Environment] | None:
    """What is known of the environment of that name."""
    if name not in MODULES:
        return None
    found: type[Environment] = import_module(f"{__name__}.{MODULES[name]}").ENVIRONMENT
    return found
