"""Ctrl-C and SIGTERM are noted, not obeyed at once; the exit status is theirs."""

import os
import signal
from collections.abc import Iterator

import pytest

from vpoet.training.run.stop import SIGNALS, Stop, leave


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_noted_and_the_process_leaves_with_its_status(number: int, status: int) -> None:
    stop = Stop()
    assert stop.signal == 0
    os.kill(os.getpid(), number)
    assert stop.signal == number
    with pytest.raises(SystemExit) as left:
        leave(stop.signal)
    assert left.value.code == status
