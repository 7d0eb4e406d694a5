"""What a request says of its clip beside words and pictures: of motion and quality."""

import math
import warnings

from vpoet.bundle import Bundle
from vpoet.errors import PromptError, VpoetWarning
from vpoet.generate.request import Request
from vpoet.sequence.conditions import TABLE, Pairs


def conditions(request: Request, bundle: Bundle) -> Pairs:
    """The conditions of a request as its documents tell them.

    PromptError: the model has learnt no such condition. VpoetWarning: no clip of its training data was like that, so
    that it is asked for the nearest that there were.
    """
    found = []
    for name in TABLE:
        value, learnt = getattr(request, name), bundle.config.conditions.get(name)
        if value is None:
            continue
        if learnt is None:
            knows = ", ".join(bundle.config.conditions) or "none"
            raise PromptError(
                f"{name} = {value:g}: this model has not learnt to be asked for {name} (it knows {knows}); a recipe "
                f"with `data.conditions: {{{name}: {{}}}}` trains it, on clips that `vpoet measure` has measured"
            )
        if not math.isfinite(value):
            raise PromptError(f"{name} = {value}: it must be a finite number")
        wanted, bucket = learnt.bucket(value), learnt.nearest(value)
        if bucket != wanted:
            warnings.warn(
                f"{name} = {value:g}: no clip that this model was trained on has {name} {learnt.about(wanted)}; the "
                f"nearest are asked for, {learnt.about(bucket)}",
                VpoetWarning,
                stacklevel=2,
            )
        found.append((name, bucket))
    return tuple(found)
