"""What processes do together, in two of them; alone nothing waits."""

import json
import os
import socket
from pathlib import Path

import pytest
import torch
from torch.nn import Parameter

from vpoet import processes
from vpoet.errors import ConfigError
from vpoet.processes import Processes, announced, own_device, watch

CPU = torch.device("cpu")


def talk(together: Processes) -> dict[str, object]:
    mine = torch.tensor([1.0, 10.0]) * (together.rank + 1)
    mean, first = mine.clone(), mine.clone()
    together.average(mean)
    together.take_first(first)
    parameters = [Parameter(torch.zeros(2)), Parameter(torch.zeros(1, 3)), Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = mine.clone(), torch.full((1, 3), float(together.rank))
    together.average_gradients(parameters)
    return {
        "place": [together.rank, together.world],
        "gathered": together.gather({"rank": together.rank}),
        "total": together.total(mine.clone()).tolist(),
        "mean": mean.tolist(),
        "first": first.tolist(),
        "gradients": [None if p.grad is None else p.grad.tolist() for p in parameters],
    }


def one_of_two(rank: int, folder: Path, port: int) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    assert announced() == (rank, 2)
    together = Processes.join(CPU)
    assert Processes.joined() == together
    (folder / f"{rank}.json").write_text(json.dumps(talk(together)))
    together.leave()
    assert Processes.joined() == Processes()


def test_two_processes_have_the_same_totals_means_and_firsts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(one_of_two, (tmp_path, port), nprocs=2, start_method="fork")
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    for rank, each in enumerate(told):
        assert each == {
            "place": [rank, 2],
            "gathered": [{"rank": 0}, {"rank": 1}],
            "total": [3.0, 30.0],
            "mean": [1.5, 15.0],
            "first": [1.0, 10.0],
            "gradients": [[1.5, 15.0], [[0.5, 0.5, 0.5]], None],
        }


def test_alone_everything_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert announced() == (0, 1)
    alone = Processes.join(CPU)
    assert alone == Processes(rank=0, world=1)
    assert talk(alone)["total"] == talk(alone)["mean"] == talk(alone)["first"] == [1.0, 10.0]


def test_a_watch_inside_another_leaves_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    monkeypatch.setattr(processes.faulthandler, "dump_traceback_later", lambda after, exit: done.append(after))
    monkeypatch.setattr(processes.faulthandler, "cancel_dump_traceback_later", lambda: done.append("off"))
    with watch(float("inf")):
        assert done == []
    with watch(10.0):
        with watch(3.0):
            pass
        assert done == [15.0]
    assert done == [15.0, "off"]
    with watch(3.0):
        assert done == [15.0, "off", 8.0]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "0"}, "RANK = 0 and WORLD_SIZE = nothing: .* start with torchrun or deepspeed, or unset"),
        ({"WORLD_SIZE": "3"}, "RANK = nothing and WORLD_SIZE = 3"),
        ({"RANK": "first", "WORLD_SIZE": "3"}, "RANK = first"),
        ({"RANK": "3", "WORLD_SIZE": "3"}, "RANK = 3 and WORLD_SIZE = 3"),
        ({"RANK": "-1", "WORLD_SIZE": "3"}, "RANK = -1"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE = 0"),
        ({"RANK": "0", "WORLD_SIZE": "1"}, "MASTER_ADDR = nothing"),
        ({"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "99999"}, "MASTER_PORT = 99999"),
    ],
)
def test_half_a_launch_is_told(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert announced() == (0, 1)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        announced() and Processes.sharing()


def test_a_device_that_is_none_is_refused() -> None:
    assert own_device("cpu") == CPU
    with pytest.raises(ConfigError, match="device is 'gpu'; choose one of auto, cpu, cuda"):
        own_device("gpu")


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert chosen == [own_device("auto")] == [torch.device("cuda", 1)]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match="this machine shows 2 GPUs"):
        own_device("auto")
