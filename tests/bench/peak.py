"""The most memory that a process has had since its program began.

Not the maximum that the system tells of a process that has ended: a child inherits that of the process that started it,
and a benchmark that has imported torch starts with some 400 MB.
"""

import resource
import sys
from pathlib import Path


def megabytes(process: int | str = "self") -> float:
    """Of a running process (Linux; elsewhere only of this one)."""
    status = Path(f"/proc/{process}/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
