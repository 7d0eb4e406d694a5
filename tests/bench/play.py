"""Play: ``play_without_end``, what a frame costs later; ``play_pace``, frames a second, and a browser's key to pixel;
``play_futures``, what a planner waits for.

**Without end**: milliseconds a frame near its beginning and 10,000 frames later, and the memory it holds. A network of
random weights (4 blocks of width 192), frames of 8x8 codes of 1,024, a window of 16 frames. Processor time, one thread,
the best of three stretches of ten frames; the two places are timed in turn.

**Pace**: frames a second from keys to pixels under random keys, each held for a while: code by code, guessed as by
default, with guidance, and compiled; ``ratio`` is that of guessed frames to those of one code a pass. In processor time
of one thread. Then a page of it in Chromium, if that is there: the time from a key to the first frame on the canvas
that heeds it, of `PRESSES` keys at random moments, and the frames that were shown in a second, by the clock. The bundle
is that of the environment's VPOET_PLAY_BUNDLE, or the first of those that ship that plays; without either it has random
weights and the sizes of train/configs/play.yaml, whose guesses are never right.

**Futures**: milliseconds a frame, in processor time of one thread, for the futures of `PLANS` plans of `STEPS` actions,
drawn at random, in the bundle of **pace**: side by side, and one after the other, on forks, each code by code and
guessed; no plan shares what another one made. ``plan_s`` are the seconds by the clock that a planner waits for `PLANS`
plans of `HORIZON` steps as it draws them, which share their beginnings, by how many threads torch has.
"""

import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from interactive import compiled_anew
from servers import running

from vpoet import bundle as bundles
from vpoet import config
from vpoet.generate.decoder import Decoding
from vpoet.generate.environment import Session
from vpoet.generate.model import Model
from vpoet.generate.play_decoder import PlayDecoder, Scene
from vpoet.nn.attention import backend
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.play.futures import futures
from vpoet.play.proposals import Odds
from vpoet.sequence.actions import ActionSpace
from vpoet.sequence.vocabulary import Vocabulary, grouped
from vpoet.tokenizer.autoencoder import Autoencoder, AutoencoderConfig
from vpoet.tokenizer.quantiser import QuantiserConfig
from vpoet.tokenizer.text import TextTokenizer
from vpoet.tokenizer.video import VideoTokenizer
from vpoet.worlds.recording import Sticky

ROOT = Path(__file__).parents[2]
FRAMES, PRESSES = 12, 60
PLANS, STEPS, HORIZON, COLOUR = 32, 3, 16, 2.0
WINDOW, LATER, STRETCH, ROUNDS = 16, 10_000, 10, 3
SPACE = ActionSpace(names=["left", "right", "jump", "climb"])


def play_without_end(_: float) -> dict[str, Any]:
    """One token a pass, so that each frame takes as many passes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = TransformerConfig(width=192, depth=4, heads=4, kv_heads=2, hidden=512)
    transformer = Transformer(sizes, SPACE.vocabulary(Vocabulary(512, (32, 32), "text", "video"))).eval()
    decoding = Decoding(
        transformer=transformer, attention=backend("sdpa", torch.device("cpu"), torch.float32), window=WINDOW
    )
    scene = Scene(fps=8, grid=(8, 8), actions=1)
    soon = PlayDecoder(decoding, scene, [np.arange(12, dtype=np.int32)], length=2048)
    soon.step(None, [np.random.default_rng(0)])
    _frames(soon, WINDOW)
    late = soon.fork()
    late._cache.frames += LATER  # what lies in the cache costs the same, whatever it is
    costs = {"soon": float("inf"), "late": float("inf")}
    for _ in range(ROUNDS):
        for name, decoder in (("soon", soon), ("late", late)):
            began = time.process_time()
            _frames(decoder, STRETCH)
            costs[name] = min(costs[name], (time.process_time() - began) / STRETCH)
    held = sum(x.nbytes for x in (*late._cache.keys, *late._cache.values))
    torch.set_num_threads(threads)
    return {
        "milliseconds_a_frame": {name: round(1000 * cost, 1) for name, cost in costs.items()},
        "late_over_soon": round(costs["late"] / costs["soon"], 3),
        "cache_megabytes": round(held / 1e6, 2),
        "frames": late.frames,
    }


def _frames(decoder: PlayDecoder, count: int) -> None:
    for _ in range(count):
        decoder.step(np.full((1, 1), 1, np.int32), [np.random.default_rng(decoder.frames)])


def play_pace(_: float) -> dict[str, Any]:
    """Without a browser, then with one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = os.environ.get("VPOET_PLAY_BUNDLE") or _shipped() or _random(Path(folder))
        bundle = bundles.load(found)
        guided = {"guidance": 2.0}
        one, guessed = _pace(Model(bundle, guesses=0)), _pace(Model(bundle))
        line: dict[str, Any] = {"bundle": Path(found).name, "code_by_code": one, "guessed": guessed}
        line |= {"ratio": round(guessed["fps"] / one["fps"], 2), "guided": _pace(Model(bundle), **guided)}
        with compiled_anew() as compiler:
            line["compiled"] = _pace(Model(bundle, compiler))
            line["compiled_guided"] = _pace(Model(bundle, compiler), **guided)
        torch.set_num_threads(threads)
        return line | {"browser": _in_browser(Path(found)) if shutil.which("chromium") else "no Chromium here"}


def play_futures(_: float) -> dict[str, Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = os.environ.get("VPOET_PLAY_BUNDLE") or _shipped() or _random(Path(folder))
        bundle = bundles.load(found)
        by_code, guessed = (Model(bundle, guesses=guesses).play("", seed=1) for guesses in (0, None))
    plans = np.random.default_rng(0).integers(len(guessed.actions), size=(PLANS, STEPS))

    def together(session: Session) -> None:
        worlds, parents = session.branches(), [0] * PLANS
        assert worlds is not None
        for actions in plans.T:
            worlds.step(parents, actions.tolist())
            parents = list(range(PLANS))

    def one_after_the_other(session: Session) -> None:
        for plan in plans.tolist():
            place = session.fork()
            for action in plan:
                place.outcome = "unknown"  # goes on, whatever the model says
                place.step(action)

    took: dict[str, Any] = {"bundle": Path(found).name}
    for name, way in (("together", together), ("one_after_the_other", one_after_the_other)):
        for how, session in (("code_by_code", by_code), ("guessed", guessed)):
            session.outcome = "unknown"
            began = time.process_time()
            way(session)
            took.setdefault(name, {})[how] = round(1000 * (time.process_time() - began) / plans.size, 1)
    plans, took["plan_s"] = Odds.even(len(guessed.actions), HORIZON).draw(np.random.default_rng(0), PLANS, COLOUR), {}
    for count in (1, 2):
        torch.set_num_threads(count)
        moment = time.perf_counter()
        futures(guessed, plans)
        took["plan_s"][count] = round(time.perf_counter() - moment, 1)
    torch.set_num_threads(threads)
    return took


def _pace(model: Model, **sampling: float) -> dict[str, float]:
    """Of a stretch behind one that is not counted."""
    world = model.play("", seed=1, **sampling)
    random = np.random.default_rng(0)
    keys: Sticky[int] = Sticky(lambda: int(random.integers(len(world.actions))), random)
    decoder = world._decoder
    assert decoder is not None

    def stretch() -> tuple[float, int]:
        began, passes = time.process_time(), decoder.passes
        for _ in range(FRAMES):
            world.outcome = "unknown"  # goes on, whatever the model says
            world.step(keys())
        return time.process_time() - began, decoder.passes - passes

    stretch()
    took, passes = stretch()
    return {"fps": round(FRAMES / took, 1), "passes_a_frame": round(passes / FRAMES, 1)}


def _in_browser(bundle: Path) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    command = [sys.executable, ROOT / "sample/play.py", bundle, "--world", "none", "--no-browser", "--port", "0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    with running(command, env=environment) as server:
        assert server.stderr is not None
        address = re.match(r"http://\S+", server.stderr.readline())
        assert address is not None
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(bypass_csp=True)
            page.goto(address[0])
            page.wait_for_function("document.body.dataset.frame > 3", timeout=60_000)
            page.select_option("#pace", "240")
            random, shown, began = np.random.default_rng(0), [], time.perf_counter()
            for _ in range(PRESSES):
                key = str(1 + random.integers(page.locator("#keys button").count()))
                page.keyboard.down(key)
                page.wait_for_timeout(float(random.uniform(50, 250)))
                page.keyboard.up(key)
                if "end" in page.inner_text("#status"):
                    page.keyboard.press("n")
                shown.append(float(page.evaluate("Number(measures.textContent.match(/([\\d.]+) a second/)[1])")))
            waits = page.evaluate("latencies")
            browser.close()
    return {
        "fps": round(float(np.median(shown)), 1),
        "key_to_pixel_ms": {"median": round(np.median(waits)), "p95": round(np.percentile(waits, 95))},
        "keys": len(waits),
        "seconds": round(time.perf_counter() - began, 1),
    }


def _shipped() -> Path | None:
    """The first bundle that ships that plays."""
    for folder in sorted(bundles.SHIPPED.parent.glob("*/")):
        told = folder / bundles.CONFIG
        if (folder / bundles.TEXT).is_file() and "play" in config.load(told, bundles.BundleConfig).tasks:
            return folder
    return None


def _random(folder: Path) -> Path:
    """A bundle of the sizes of train/configs/play.yaml and random weights."""
    torch.manual_seed(0)
    quantiser = QuantiserConfig(levels=[3] * 7)
    sizes = AutoencoderConfig(
        time_stride=1, widths=[64, 128], encoder_blocks=[1, 3], decoder_blocks=[1, 3], quantiser=quantiser
    )
    video = VideoTokenizer(Autoencoder(sizes))
    text = TextTokenizer.train(["a robot on grass", "a hero on sand"], folder / "text.model", 300)
    network = TransformerConfig(width=256, depth=4, heads=4, kv_heads=2, hidden=512, visual_groups=2)
    plain = Vocabulary(text.size, grouped(video.levels, network.visual_groups), text.hash, video.hash)
    told = bundles.BundleConfig(model=network, window=WINDOW, length=4096, tasks=["play"], actions=SPACE)
    bundles.save(folder / "random", Transformer(network, SPACE.vocabulary(plain)), told, text, video, "")
    return folder / "random"
