"""Tables as readers see them."""

import math

from vpoet.evaluate.tables import facts_in_words, markdown, means


def test_figures_are_flush_right_and_texts_flush_left() -> None:
    table = markdown(["what", "how much", "why"], [["a", "1", "b"]], text=(0, 2))
    assert table == "| what | how much | why |\n| --- | --: | --- |\n| a | 1 | b |"
    assert markdown(["", "share"], []) == "|  | share |\n| --- | --: |"


def test_an_interval_stands_behind_its_mean() -> None:
    lines = [
        {"kind": "b", "seeds": 2, "dB": 21.0, "dB_interval": 12.706},
        {"kind": "a", "seeds": 1, "dB": 10.0, "dB_interval": math.nan},
    ]
    table = means(lines, {"kind": ("which", "{}"), "seeds": ("seeds", "{}"), "dB": ("PSNR", "{:.1f}")})
    assert table == "| which | seeds | PSNR |\n| --- | --: | --: |\n| b | 2 | 21.0 ± 12.7 |\n| a | 1 | 10.0 |"


def test_facts_are_lines_and_nested_ones_stand_further_in() -> None:
    facts = {"tokens": 12345, "share": 0.123456, "of": {"a": [1, 2], "b": True}, "none": []}
    assert list(facts_in_words(facts)) == [
        "  tokens  12,345",
        "  share   0.1235",
        "  of",
        "      a  1, 2",
        "      b  True",
        "  none    none",
    ]
