"""What every test relies on: no network, no colours, the same random numbers on every machine."""

import os

# Before torch and matplotlib are imported anywhere.
os.environ.update(
    WANDB_MODE="disabled", WANDB_SILENT="true", MPLBACKEND="agg", TERM="dumb", NO_COLOR="1", COLUMNS="100"
)
# The real hub is nobody's to reach: `server` is one on this machine.
os.environ.update(HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_DISABLE_PROGRESS_BARS="1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")

import itertools
import json
import resource
import runpy
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from vpoet import cli
from vpoet.data.npy import codes_to_npy
from vpoet.data.shards import ShardWriter
from vpoet.errors import DataError
from vpoet.sequence.vocabulary import Vocabulary, grouped
from vpoet.tokenizer.autoencoder import Autoencoder, AutoencoderConfig
from vpoet.tokenizer.quantiser import QuantiserConfig
from vpoet.tokenizer.text import TextTokenizer
from vpoet.tokenizer.video import VideoTokenizer
from vpoet.worlds.world import SteppedWorld

hypothesis.settings.register_profile("vpoet", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("vpoet")

ROOT = Path(__file__).parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first: of the processes that files are handed out to, none is left with a long
    one at the end, while the others have nothing to do."""
    costs: Counter[Path] = Counter()
    for item in items:
        starts = {"launched", "python"}.intersection(getattr(item, "fixturenames", ()))
        costs[item.path] += 100 if item.get_closest_marker("slow") else 50 if starts else 1
    items.sort(key=lambda item: -costs[item.path])


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run this Python on arguments, as a user would: ``python("train/pretrain.py", "--help", cwd=...)``."""

    def run(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
        # Its own ninja before the system's: DeepSpeed compiles with it.
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, **options)

    return run


@pytest.fixture
def program(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a program in this process: exit status, stdout, stderr."""

    def run(path: str, *arguments: object) -> tuple[int, str, str]:
        main = runpy.run_path(str(ROOT / path), run_name="program")["main"]
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            cli.run(main, arguments=[str(argument) for argument in arguments])
            status: Any = 0
        except SystemExit as stop:
            status = stop.code
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        out, err = capsys.readouterr()
        return status or 0, out, err

    return run


@dataclass(frozen=True)
class Launched:
    """A process that `launched` has started."""

    pid: int
    _out: Path
    _err: Path
    _ask: Callable[[dict[str, Any]], Any]

    def wait(self, timeout: float = 600) -> int:
        """Its status, as subprocess has it."""
        status: int | None = self._ask({"wait": self.pid, "seconds": timeout})
        assert status is not None, f"it still runs after {timeout} seconds; so far it said: {self.err}"
        return status

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()


@pytest.fixture(scope="session")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Launched]]:
    """Start a Python file in a process of its own, one that has torch and DeepSpeed imported already
    (tests/fork_server.py): ``launched("train/pretrain.py", recipe, RANK=1)``; names are of the environment."""
    server = subprocess.Popen(
        [sys.executable, ROOT / "tests/fork_server.py"], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert server.stdin
    assert server.stdout
    asks, answers = server.stdin, server.stdout
    said = tmp_path_factory.mktemp("launched")
    numbers = itertools.count()

    def ask(request: dict[str, Any]) -> Any:
        print(json.dumps(request), file=asks, flush=True)
        return json.loads(answers.readline())

    def start(path: str | Path, *arguments: object, **environment: object) -> Launched:
        out, err = (said / f"{next(numbers)}.{name}" for name in ("out", "err"))
        for file in (out, err):
            file.touch()  # what it says can be asked for before it has begun
        added = {name: str(value) for name, value in environment.items()}
        request = {
            "file": str(ROOT / path), "arguments": [*map(str, arguments)], "environment": {**os.environ, **added},
            "folder": str(Path.cwd()), "out": str(out), "err": str(err),
        }  # fmt: skip
        return Launched(ask(request), out, err, ask)

    yield start
    asks.close()
    server.wait()


@pytest.fixture(scope="session")
def together(launched: Callable[..., Launched]) -> Callable[..., list[str]]:
    """Run a Python file in ``world`` processes of one group, as a launcher would; what each of them prints:
    ``together("train/pretrain.py", 2, recipe)``. The first ends with ``status``, the others with 0."""

    def run(path: str | Path, world: int, *arguments: str | Path, status: int = 0) -> list[str]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        everyone = []
        for rank in range(world):
            places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_SIZE": world}
            everyone.append(launched(path, *arguments, **places, MASTER_ADDR="127.0.0.1", MASTER_PORT=port))
        for rank, process in enumerate(everyone):
            assert process.wait() == (0 if rank else status), process.err
        return [process.out for process in everyone]

    return run


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Path]:
    """Save a bundle of random weights, for every task of plain clips:
    ``make_bundle(folder, depth=1, frames=5, height=16, width=16)``; what follows on the depth are fields of
    `BundleConfig`, or ``controls`` that it reads, kinds with blanks between them."""
    from vpoet import bundle
    from vpoet.nn.transformer import Transformer, TransformerConfig
    from vpoet.sequence.tasks import TABLE

    def make(folder: Path, depth: int = 2, time_stride: int = 4, controls: str = "", **settings: Any) -> Path:
        torch.manual_seed(0)
        folder.mkdir(exist_ok=True)
        levels = 3 if time_stride == 4 else 2
        small = AutoencoderConfig(
            widths=[8, 8, 8][-levels:],
            encoder_blocks=[0, 0, 1][-levels:],
            decoder_blocks=[0, 0, 1][-levels:],
            quantiser=QuantiserConfig(levels=[4, 3, 3]),
            time_stride=time_stride,
        )
        network = Autoencoder(small)
        for name, parameter in network.named_parameters():  # so that different frames have different codes
            if "norm" not in name:
                torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1)
        video = VideoTokenizer(network)
        text = TextTokenizer.train(["a robot walks right on grass", "a hero jumps on sand"], folder / "text.model", 300)
        sizes = TransformerConfig(width=32, depth=depth, heads=2, kv_heads=1, hidden=48, controls=controls.split())
        vocabulary = Vocabulary(text.size, grouped(video.levels, 2), text.hash, video.hash, levels=video.levels)
        if settings.get("actions"):
            vocabulary = settings["actions"].vocabulary(vocabulary)
        tasks = [name for name, task in TABLE.items() if task.needs != "actions" or settings.get("actions")]
        config = bundle.BundleConfig(model=sizes, fps=8, **{"tasks": tasks} | settings)
        transformer = Transformer(sizes, vocabulary)
        for features in transformer.controls.values():
            torch.nn.init.normal_(features.out.weight, std=4.0)  # as if something had been learned
        bundle.save(folder / "bundle", transformer, config, text, video, "")
        return folder / "bundle"

    return make


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A hub on this machine (`Hub` of tests/hub_server.py), which huggingface_hub takes for the hub, in this process
    and in those that it starts; its cache is empty, and we are the owner."""
    from huggingface_hub import constants

    server = runpy.run_path(str(ROOT / "tests" / "hub_server.py"))
    with server["Hub"]() as running:
        cache, template = tmp_path / "hf" / "hub", "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "ENDPOINT": running.url, "HUGGINGFACE_CO_URL_TEMPLATE": running.url + template, "HF_HUB_CACHE": str(cache),
            "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True,
        }.items():  # fmt: skip
            monkeypatch.setattr(constants, name, value)
        for name, text in {
            "HF_ENDPOINT": running.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": server["TOKEN"],
        }.items():  # fmt: skip
            monkeypatch.setenv(name, text)
        yield running


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Google Cloud Storage on this machine (`Storage` of tests/gcs_server.py), which gcsfs takes for Google's; nobody
    has credentials."""
    for name, text in {
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # it asks by gRPC what kind of bucket it is
        "CLOUDSDK_CONFIG": str(tmp_path / "gcloud"), "NO_GCE_CHECK": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, text)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    pytest.importorskip("gcsfs")
    with runpy.run_path(str(ROOT / "tests" / "gcs_server.py"))["Storage"]() as running:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.url)
        yield running


COLOURS = ("red", "green", "blue", "white", "black")


@dataclass(frozen=True)
class Tokens:
    """Tokenizers and token shards in one folder."""

    folder: Path
    text: TextTokenizer
    video: VideoTokenizer
    vocabulary: Vocabulary

    def recipe(self, path: Path, **changes: object) -> Path:
        """A recipe of a run that takes seconds; ``changes`` are further top-level lines."""
        lines = {
            "run": path.with_suffix(""),
            "text": self.folder / "text.model",
            "video": self.folder / "video",
            "data": f"{{sources: [{{path: {self.folder / 'train'}}}], length: 128, lookahead: 8, "
            "tasks: {t2v: 2, i2v: 1, continuation: 1, t2i: 1}}",
            "heldout": f"[{{path: {self.folder / 'heldout'}}}]",
            "model": "{width: 32, depth: 2, heads: 4, kv_heads: 2, hidden: 48, visual_groups: 2}",
            "optimizer": "{lr: 1e-2, warmup: 2}",
            "batch": 4,
            "steps": 8,
            "evaluate_every": 4,
            "evaluate_packs": 3,
            "save_every": 3,
            "log_every": 2,
            **changes,
        }
        path.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
        return path


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    folder = tmp_path_factory.mktemp("tokens")
    random = np.random.default_rng(0)
    captions = [f"a {a} ball rolls over a {b} floor" for a in COLOURS for b in COLOURS]
    text = TextTokenizer.train(captions, folder / "text.model", 300)
    torch.manual_seed(0)
    video = VideoTokenizer(
        Autoencoder(
            AutoencoderConfig(
                quantiser=QuantiserConfig(levels=[4, 4, 3]),
                widths=[8, 8, 8],
                encoder_blocks=[1, 1, 1],
                decoder_blocks=[1, 1, 1],
            )
        )
    )
    video.save(folder / "video")
    for split, count in (("train", 60), ("heldout", 10)):
        with ShardWriter(folder / split, kind="tokens", samples_per_shard=20, tokenizer=video.hash) as writer:
            for i in range(count):
                first = int(random.integers(48))
                codes = (first + np.arange(3 * 2 * 2).reshape(3, 2, 2)) % 48
                info = {"caption": captions[i % len(captions)], "fps": 8, "grid": [3, 2, 2], "tokenizer": video.hash}
                info["measures"] = {"motion": first / 4}
                writer.write(f"{split}-{i:04}", {"codes.npy": codes_to_npy(codes.astype(np.int32)), "json": info})
        writer.manifest().save(folder / split)
    vocabulary = Vocabulary(text.size, grouped(video.levels, 2), text.hash, video.hash, levels=video.levels)
    return Tokens(folder, text, video, vocabulary)


@pytest.fixture(scope="session")
def workers(together: Callable[..., list[str]]) -> Callable[..., list[dict[str, Any]]]:
    """Run a worker of tests/training/engine in ``world`` processes of one group, and read the JSON that each prints
    at the end: ``workers("deepspeed_worker.py", 2, "0-fp32")``."""

    def run(worker: str, world: int, *arguments: str) -> list[dict[str, Any]]:
        printed = together(Path("tests/training/engine") / worker, world, *arguments)
        return [json.loads(out.splitlines()[-1]) for out in printed]

    return run


@pytest.fixture
def full_disk() -> Iterator[Callable[[int], None]]:
    """Makes the disk take so many bytes of each file until the test ends."""
    kept = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda room: resource.setrlimit(resource.RLIMIT_FSIZE, (room, kept[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, kept)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def full(full_disk: Callable[[int], None]) -> None:
    """A disk that takes 1,000 bytes of each file."""
    full_disk(1000)


class _Lists(TorchFunctionMode):
    """Counts tensors that are made from a list for a device: copies for which the host waits, whatever is between."""

    def __init__(self, waits: Counter[str]) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        elsewhere = torch.device(kwargs.get("device") or "cpu").type != "cpu"
        if func in (torch.tensor, torch.as_tensor) and elsewhere and not isinstance(args[0], torch.Tensor):
            self.waits["tensor"] += 1
        return func(*args, **kwargs)


class Census(TorchDispatchMode):
    """Counts what is inside, by the names of operations: ``launches`` of kernels, ``waits`` of the host for a device,
    and ``copies`` to a device for which it does not wait."""

    WAITS = (
        "_local_scalar_dense", "item", "is_nonzero", "nonzero", "equal", "masked_select", "unique_dim", "_unique2",
        "unique_consecutive", "repeat_interleave",
    )  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self._lists = _Lists(self.waits)

    def __enter__(self) -> Any:
        self._lists.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._lists.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.name().split("::")[1].split(".")[0]
        if name == "copy_":
            to, source, quick = args[0].device, args[1], kwargs.get("non_blocking", args[2:3] == (True,))
        else:
            to, source, quick = kwargs.get("device"), args[0] if args else None, kwargs.get("non_blocking", False)
        moves = name in ("_to_copy", "copy_") and to not in (None, source.device)
        waits = name in self.WAITS or (name == "index" and any(x.dtype == torch.bool for x in args[1] if x is not None))
        if moves:
            (self.copies if quick and to.type != "cpu" else self.waits)[f"{name} to {to}"] += 1
        elif waits:
            self.waits[name] += 1
        result = func(*args, **kwargs)
        is_view = any(each.alias_info is not None and not each.alias_info.is_write for each in func._schema.returns)
        as_it_was = any(result is x for x in args) and not func._schema.is_mutable  # dropout, when not training
        if not (moves or waits or is_view or as_it_was or "empty" in name or name == "_unsafe_view"):
            self.launches[name] += 1
        return result


@pytest.fixture(scope="session")
def census() -> type[Census]:
    """`Census`: ``with census() as count``."""
    return Census


@pytest.fixture(scope="session")
def obeys_the_contract() -> Callable[..., None]:
    """Drive any world to step in, real or learned, through `reset`, `step`, `save` and `restore` alone: it has to be a
    function of seed and actions, from the beginning and from any saved state, up to its end."""

    def act(world: SteppedWorld, actions: list[int]) -> list[tuple[bytes, float, bool]]:
        found = []
        for action in actions:
            frame, reward, end = world.step(action)
            assert frame.dtype == np.uint8
            found.append((frame.tobytes(), reward, end))
            if end:
                break
        return found

    def check(world: SteppedWorld, seeds: int = 4, steps: int = 40) -> None:
        random = np.random.default_rng(0)
        for seed in range(seeds):
            actions = random.integers(len(world.actions), size=steps).tolist()
            first = world.reset(seed)
            assert first.dtype == np.uint8
            assert first.ndim == 3
            whole = act(world, actions)
            assert (world.reset(seed) == first).all()
            assert act(world, actions) == whole
            if whole[-1][2]:
                with pytest.raises(DataError):
                    world.step(0)
            middle = len(whole) // 2
            world.reset(seed)
            act(world, actions[:middle])
            state = world.save()
            for _ in range(2):  # forks
                world.reset(seed + 1)
                world.restore(state)
                assert act(world, actions[middle:]) == whole[middle:]
            world.reset(seed)
            for action in (-1, len(world.actions)):
                with pytest.raises(DataError):
                    world.step(action)

    return check
