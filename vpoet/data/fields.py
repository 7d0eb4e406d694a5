"""What others wrote about a clip: JSON, captions and names, brought to what our own files may hold."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from vpoet.errors import DataError

DEEPEST = 32
"""Lists and objects in each other."""
LONGEST_NUMBER = 256
"""Bits of an integer, those of a hash; what is computed with has to fit floating point, which ends at 1024."""
LONGEST_CAPTION = 100_000
"""Characters."""
LONGEST_NAME = 300
"""Characters of a name in a report."""
KEY = re.compile(r"[\w-]{1,90}", re.ASCII)
"""The keys that our own shards have."""
LONGEST_KEY = 80
"""Characters of a key of others that is kept as it is: a tar has 100 for key and extension."""


def parse_json(text: str | bytes) -> Any:
    """JSON as our own files may hold it: NaN and infinities, which JSON does not have, are null, and half characters
    (lone surrogates) are U+FFFD. DataError: it is no JSON, or nested too deeply."""
    try:
        return plain(json.loads(text))
    except RecursionError:
        raise DataError("nested too deeply") from None
    except UnicodeDecodeError:
        raise DataError("not UTF-8") from None
    except json.JSONDecodeError as error:
        raise DataError(f"not valid JSON ({error.msg})") from None
    except DataError:
        raise
    except ValueError:  # of a number of more digits than Python reads
        raise DataError("a number that is too long") from None


def plain(value: Any, depth: int = 0) -> Any:
    """A value of others as `parse_json` gives it; what JSON has no form for (times, bytes) as text: bytes that are
    UTF-8 as what they spell, which is how some write the texts of a .parquet. DataError: likewise."""
    if depth > DEEPEST:
        raise DataError("nested too deeply")
    if isinstance(value, dict):
        return {plain(name): plain(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, int) and value.bit_length() > LONGEST_NUMBER:
        raise DataError("a number that is too long")
    if isinstance(value, bytes):
        with suppress(UnicodeDecodeError):
            return value.decode()
    if not isinstance(value, str | int | float | None):
        return plain(printable(str(value)))
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_caption(caption: object) -> None:
    """DataError unless it is a text, a list of texts, or nothing."""
    texts = [] if caption is None else caption if isinstance(caption, list) else [caption]
    if not all(isinstance(text, str) for text in texts):
        raise DataError("the caption is neither a text nor a list of texts")
    if sum(map(len, texts)) > LONGEST_CAPTION:
        raise DataError(f"the caption is longer than {LONGEST_CAPTION} characters")


def captions(fields: Mapping[str, Any]) -> list[str]:
    """The wordings of a clip's caption; what is no text, or blank, is none."""
    caption = fields.get("caption")
    texts = caption if isinstance(caption, list) else [caption]
    return [text for text in texts if isinstance(text, str) and text.strip()]


def words(fields: Mapping[str, Any]) -> list[str]:
    """All texts of a sample: the wordings of its caption, its captions in time, the texts that it interleaves."""
    lists = [fields[name] for name in ("captions", "segments") if isinstance(fields.get(name), list)]
    parts = [part for parts in lists for part in parts if isinstance(part, Mapping)]
    return captions(fields) + [part["text"] for part in parts if isinstance(part.get("text"), str)]


def plain_key(key: str) -> str:
    """A key of others as our own shards may have it: itself if it is plain, else what is plain of it, and its hash."""
    if KEY.fullmatch(key) and len(key) <= LONGEST_KEY:
        return key
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{re.sub(r'[^0-9A-Za-z_-]+', '-', key)[: LONGEST_KEY - 13].strip('-')}-{digest}"


def printable(text: str) -> str:
    """A name from outside for reports and terminals: no control characters, nothing that is not UTF-8, not too long."""
    safe = re.sub(r"[^ -~]", lambda found: found[0] if found[0].isprintable() else repr(found[0])[1:-1], text)
    return safe if len(safe) <= LONGEST_NAME else f"{safe[: LONGEST_NAME - 3]}..."
