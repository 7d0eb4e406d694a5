"""A prompt found word by word."""

from vpoet.generate.wording import best_words

KNOWN = ["a", "cat", "dog", "runs", "sits", "fast"]


def test_words_are_changed_and_left_out_until_the_score_is_least() -> None:
    true = ["a", "dog", "sits"]
    asked: list[int] = []

    def score(prompts: list[list[str]]) -> list[float]:
        asked.append(len(prompts))
        return [
            sum(a != b for a, b in zip(words, true, strict=False)) + 2 * abs(len(words) - len(true))
            for words in prompts
        ]

    assert best_words(["a", "cat", "unheard", "runs", "fast"], KNOWN, score) == true
    assert max(asked) <= len(KNOWN) + 1
    assert best_words(true, KNOWN, score) == true


def test_of_equal_words_the_one_that_is_there_stays() -> None:
    assert best_words(["cat", "runs"], KNOWN, lambda prompts: [0.0] * len(prompts)) == ["cat", "runs"]
