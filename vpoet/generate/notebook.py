"""A progress bar in a notebook, where there is one."""

import importlib
import sys

from vpoet.generate.decode import OnStep

_TIMES = 50
"""How often a bar moves."""


def progress_bar() -> OnStep | None:
    """What shows how far decoding is, below the cell that runs; None where no notebook runs it."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if not hasattr(shell, "kernel"):  # a terminal of IPython's has none
        return None
    shown = importlib.import_module("IPython.display")
    handle = shown.display(shown.HTML(""), display_id=True)
    last = -1

    def on_step(step: int, steps: int) -> None:
        nonlocal last
        if (now := _TIMES * step // max(1, steps)) != last:
            last = now
            bar = f'<progress value="{step}" max="{steps}"></progress> {step} of {steps} tokens'
            handle.update(shown.HTML("" if step >= steps else bar))

    return on_step
