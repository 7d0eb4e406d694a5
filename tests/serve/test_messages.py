"""What a page may say, and frames as bytes."""

import struct

import numpy as np
import pytest

from vpoet.errors import DataError
from vpoet.serve.messages import FRAME, Ask, frame, heard
from vpoet.serve.worlds import Shown


def test_what_a_page_says_is_heard() -> None:
    assert heard('{"do": "press", "key": 2, "at": 17, "more": 1}') == Ask("press", {"key": 2, "at": 17})
    assert heard('{"do": "pace", "fps": 2.5}').told == {"fps": 2.5}
    assert heard('{"do": "record", "on": true, "view": "both"}').told == {"on": True, "view": "both"}
    assert heard('{"do": "restart", "seed": 3, "prompt": ""}').told == {"seed": 3, "prompt": ""}


@pytest.mark.parametrize(
    "message",
    [
        *("", "x", "[]", "3", "null", '"press"', "{}", '{"do": "open", "path": "/etc/passwd"}', '{"do": ["press"]}'),
        *('{"do": "press"}', '{"do": "press", "key": -1, "at": 0}', '{"do": "press", "key": 1.5, "at": 0}'),
        *('{"do": "press", "key": true, "at": 0}', '{"do": "press", "key": "1", "at": 0}'),
        *('{"do": "pace", "fps": 0}', '{"do": "pace", "fps": 1e9}', '{"do": "pace", "fps": NaN}'),
        *('{"do": "pause", "on": 1}', '{"do": "record", "on": true, "view": "../x"}'),
        *('{"do": "record", "on": true, "view": ["both"]}', '{"do": "restart", "seed": -1, "prompt": ""}'),
        *('{"do": "restart", "seed": 1, "prompt": 5}', '{"do": "prompt", "text": "' + 2000 * "x" + '"}'),
        *("[" * 4000, '{"do": "restart", "seed": 99999999999999999999, "prompt": ""}'),
    ],
)
def test_what_makes_no_sense_is_refused(message: str) -> None:
    with pytest.raises(DataError):
        heard(message)


def test_a_frame_holds_its_pictures_as_they_are() -> None:
    pictures = tuple(np.random.default_rng(i).integers(0, 256, (2, 3, 3), np.uint8) for i in range(2))
    data = frame(Shown(7, pictures, (0.5, -2.0), (False, True), 1.5), 9)
    head = struct.unpack("<BBHHIIfbBbB", data[:22])
    assert head == (FRAME, 2, 2, 3, 7, 9, 1.5, 1, 0, -1, 1)
    assert data[22:] == pictures[0].tobytes() + pictures[1].tobytes()
