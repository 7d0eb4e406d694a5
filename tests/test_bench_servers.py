"""A benchmark that is told to end takes its server with it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent / "bench"
MEASURES = f"""
import sys, time
sys.path.insert(0, {str(BENCH)!r})
from servers import running
with running([sys.executable, "-c", "import time; time.sleep(600)"]) as server:
    print(server.pid, flush=True)
    time.sleep(600)
"""


def test_a_benchmark_that_is_told_to_end_leaves_no_server() -> None:
    with subprocess.Popen([sys.executable, "-c", MEASURES], stdout=subprocess.PIPE, text=True) as bench:
        assert bench.stdout is not None
        server = int(bench.stdout.readline())
        os.kill(server, 0)
        bench.terminate()
        assert bench.wait(60) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)
