"""Errors a user can cause and cure. Each message says where, what is wrong, and what to do.

Programs print the message alone and exit with status 2; a traceback means a fault of ours.
"""

import re

_HALF = re.compile(
    r"(/[^\s'\":]+\.(?:so|o|a)): ?(?:file too short|invalid ELF header|file not recognized|file truncated)"
)


class VpoetError(ValueError):
    """Base of every error below."""


class ConfigError(VpoetError):
    """A YAML file or an override that does not describe a valid configuration."""


class DataError(VpoetError):
    """A video, image, shard or manifest that cannot be read, or holds nothing usable."""


class OutputError(VpoetError):
    """A file or folder that cannot be written: a full disk, no right to, or another process that is writing there."""


class ShapeError(VpoetError):
    """A size that a part cannot take: a grid the tokenizer can't make, a sequence longer than the cache or the pack."""


class HashMismatch(VpoetError):
    """Two artefacts that do not belong together, by their content hashes."""


class PromptError(VpoetError):
    """A request for a sample that the model cannot serve."""


class BackendError(VpoetError):
    """A backend that is not installed, or cannot do what was asked of it."""


class CheckpointError(VpoetError):
    """A checkpoint or bundle with a missing, damaged or foreign part."""


class HubError(VpoetError):
    """A hub of models that can't be reached, has not what was asked for, or does not let us."""


class TrainingError(VpoetError):
    """A training that goes wrong and would not mend by going on."""


class VpoetWarning(UserWarning):
    """Something went wrong that does not stop the work. Programs print the message alone."""


def half_compiled(error: BaseException | None) -> str:
    """What to say of an error of a loader or linker that met half of a file, which a compiler that was killed has left
    in its cache, where it stays in the way; "" of any other error."""
    while error is not None:
        if found := _HALF.search(str(error)):
            return f"{found[1]}: half of a file, left by a compiler that was stopped; remove it, and run this again"
        error = error.__cause__
    return ""
