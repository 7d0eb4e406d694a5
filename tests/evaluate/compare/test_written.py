"""A protocol in one word."""

import pytest

from vpoet.errors import ConfigError
from vpoet.evaluate.compare.protocol import PRESETS, Protocol
from vpoet.evaluate.compare.written import read_protocol


def test_a_word_is_a_preset_and_what_is_other_than_it() -> None:
    assert read_protocol("stylegan-v-16") == PRESETS["stylegan-v-16"]
    assert read_protocol("vpoet-16, frames=5,size=64 ,fps=7.5,antialias=false,fit=stretch") == Protocol(
        frames=5, size=64, fps=7.5, antialias=False, fit="stretch"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fvd", "no protocol 'fvd'"),
        ("vpoet-16,frame=5", "'frame=5' is not FIELD=VALUE"),
        ("vpoet-16,frames", "'frames' is not FIELD=VALUE"),
        ("vpoet-16,network=x", "'network=x' is not FIELD=VALUE"),
        ("vpoet-16,frames=five", "frames is a whole number, not 'five'"),
        ("vpoet-16,antialias=1", "antialias is true or false, not '1'"),
        ("vpoet-16,fps=nan", "fps is 0 or more"),
        ("vpoet-16,fit=none", "fit none and size 128"),
        ("", "no protocol ''"),
    ],
)
def test_what_is_no_protocol_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_protocol(text)
