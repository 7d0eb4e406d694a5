"""Which words say best what a clip shows: prompts ranked by score, one word changed at a time."""

from collections.abc import Callable
from collections.abc import Sequence as Items

SWEEPS = 3
"""Times that all words are gone through at most."""


def best_words(start: Items[str], known: Items[str], score: Callable[[list[list[str]]], Items[float]]) -> list[str]:
    """From ``start`` on, each word becomes that of ``known``, or none, with which the ``score`` is least, until nothing
    changes (coordinate descent): a local best, which is the better the more of ``start`` is right.

    ``score`` takes many prompts at once. Of equal ones the word that is there stays.
    """
    words = [word for word in start if word in known]
    for _ in range(SWEEPS):
        before = list(words)
        at = 0
        while at < len(words):
            choices = [words, *([*words[:at], word, *words[at + 1 :]] for word in known if word != words[at])]
            if len(words) > 1:
                choices.append([*words[:at], *words[at + 1 :]])
            scores = list(score(choices))
            best = choices[scores.index(min(scores))]
            at += len(best) == len(words)
            words = best
        if words == before:
            break
    return words
