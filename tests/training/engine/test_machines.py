"""Two machines, as far as one can be two: network namespaces with an address each, joined by a cable that is pulled."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vpoet.training.run import checkpoint
from vpoet.training.run.tracking import read_metrics

NAMES = (f"vpoet{os.getpid() % 10000}a", f"vpoet{os.getpid() % 10000}b")
ADDRESSES = ("10.213.77.1", "10.213.77.2")


def ip(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


@pytest.fixture
def machines() -> Iterator[tuple[str, str]]:
    """Two namespaces whose only way to each other is one cable, by the names of its ends."""
    if shutil.which("ip") is None:
        pytest.skip("no `ip` here to make network namespaces with (apt install iproute2)")
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        pytest.skip("DeepSpeed compiles an op on CPUs: no C++ compiler here")
    made = [ip("netns", "add", name) for name in NAMES]
    try:
        if any(each.returncode for each in made):
            pytest.skip(f"network namespaces are not allowed here: {made[0].stderr.strip()}")
        steps = [ip("link", "add", NAMES[0], "type", "veth", "peer", "name", NAMES[1])]
        for name, address in zip(NAMES, ADDRESSES, strict=True):
            steps.append(ip("link", "set", name, "netns", name))
            steps.append(ip("-n", name, "addr", "add", f"{address}/24", "dev", name))
            steps += [ip("-n", name, "link", "set", device, "up") for device in ("lo", name)]
        if failed := [each.stderr.strip() for each in steps if each.returncode]:
            pytest.skip(f"no cable between network namespaces here: {failed[0]}")
        yield NAMES
    finally:
        for name in NAMES:
            ip("netns", "del", name)


@dataclass
class Job:
    """The launcher on each machine."""

    launchers: list[subprocess.Popen[str]]

    def wait(self) -> list[tuple[int, str]]:
        """Exit status and stderr of each."""
        said = [launcher.communicate(timeout=240)[1] for launcher in self.launchers]
        return [(launcher.returncode, text) for launcher, text in zip(self.launchers, said, strict=True)]


@pytest.fixture
def start(machines: tuple[str, str], root: Path, tmp_path: Path) -> Iterator[Callable[..., Job]]:
    """Start the launcher on each machine by hand (``--no_ssh``), as train/README.md says."""
    hosts = tmp_path / "hostfile"
    hosts.write_text("".join(f"{address} slots=1\n" for address in ADDRESSES))
    launchers = []

    def both(*arguments: object) -> Job:
        job = Job([])
        for rank, name in enumerate(machines):
            environment = {
                **os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "GLOO_SOCKET_IFNAME": name,
            }  # fmt: skip
            command = [
                "ip", "netns", "exec", name, sys.executable, "-m", "deepspeed.launcher.runner",
                "--hostfile", str(hosts), "--no_ssh", "--node_rank", str(rank), "--master_addr", ADDRESSES[0],
                str(root / "train/pretrain.py"), *map(str, arguments),
            ]  # fmt: skip
            job.launchers.append(
                subprocess.Popen(
                    command,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                    env=environment,
                )
            )
        launchers.extend(job.launchers)
        return job

    yield both
    for launcher in launchers:
        with suppress(ProcessLookupError):
            os.killpg(launcher.pid, signal.SIGKILL)
        launcher.communicate()


def test_two_machines_train_as_one_and_a_pulled_cable_costs_only_a_resume(
    tokens: Any, tmp_path: Path, program: Callable[..., Any], machines: tuple[str, str],
    start: Callable[..., Job],
) -> None:  # fmt: skip
    alone = tokens.recipe(tmp_path / "alone.yaml", steps=40, save_every=4, evaluate_every=20)
    assert program("train/pretrain.py", alone)[0] == 0

    run = tmp_path / "run"
    job = start(alone, f"run={run}", "engine.timeout=20")
    deadline = time.monotonic() + 180
    while not ((run / "metrics.jsonl").exists() and len(read_metrics(run / "metrics.jsonl")) >= 9):
        assert time.monotonic() < deadline, [launcher.poll() for launcher in job.launchers]
        time.sleep(0.01)
    assert ip("-n", machines[1], "link", "set", machines[1], "down").returncode == 0
    for status, said in job.wait():
        assert status != 0
        assert "Traceback" in said or "Timeout (0:00:25)!\nThread" in said
    done = len(read_metrics(run / "metrics.jsonl"))
    assert done < 40, "the cable was pulled too late to test anything"
    newest = checkpoint.newest(run)
    assert checkpoint.damage(newest) == []
    assert int(newest.name.removeprefix("step-")) >= done - 4

    assert ip("-n", machines[1], "link", "set", machines[1], "up").returncode == 0
    for status, said in start(alone, f"run={run}", "engine.timeout=60", "--resume").wait():
        assert status == 0, said
    curves = [read_metrics(folder / "metrics.jsonl") for folder in (tmp_path / "alone", run)]
    assert [row["step"] for row in curves[1]] == list(range(1, 41))
    for expected, found in zip(*curves, strict=True):
        assert found["train/loss"] == pytest.approx(expected["train/loss"], rel=1e-3), expected["step"]
