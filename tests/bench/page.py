"""The page of everything in Chromium, with the model that ships. Needs Chromium (apt install chromium).

`page_alone`: ``bytes`` is what the page takes over the line; ``usable_ms`` from the address to "Ready.";
``first_frame_ms`` from the click to the frame on the screen, and ``cancel_ms`` from that click until the clip is gone;
each the median of `ROUNDS`.

`page_throughput`: ``clips_s`` are the seconds from the click until `CLIPS` clips stand on the page, ``command_s`` those
in which `vpoet sample` makes and writes the same ones, without its start: the best of `ROUNDS` of each, in turns, and
``share`` the former over the latter. ``share_of_work`` is the same of processor time, the server's over the command's
without its start, which other work on the machine changes less.

`page_tabs`: in `TABS` tabs at once a clip each is asked for, `FLOODS` times. ``positions`` is how many of them were
told how many stood before them, ``lost`` how many clips are missing, ``memory_mb`` what the server took before, and
after each flood.
"""

import contextlib
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from servers import running

ROOT = Path(__file__).parents[2]
ROUNDS, CLIPS, TABS, FLOODS = 3, 8, 20, 3
FRAMES = 5
"""Of a tab's clip."""
PROMPT = "a robot walks right on grass"
WAIT = 600_000
SEEN = """selector => new Promise((done) => {
  const began = performance.now();
  new MutationObserver((_, watch) => {
    if (!document.querySelector("article[data-seen]")) return;
    watch.disconnect();
    requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - began)));
  }).observe(document.querySelector("#running"), { subtree: true, attributes: true, childList: true });
  document.querySelector(selector).click();
})"""
"""Milliseconds from the click until the first frame is on the screen."""
GONE = """() => new Promise((done) => {
  const began = performance.now();
  new MutationObserver((_, watch) => {
    if (document.querySelector("#running article:not([data-done])")) return;
    watch.disconnect();
    done(performance.now() - began);
  }).observe(document.querySelector("#running"), { childList: true });
  document.querySelector("#running article:not([data-done]) button").click();
})"""
PLACES = """() => {
  window.places = new Set();
  if (window.looks) window.looks.disconnect();
  window.looks = new MutationObserver(() => {
    for (const words of document.querySelectorAll("#running .words"))
      if (/before it|next/.test(words.textContent)) window.places.add(words.textContent);
  });
  window.looks.observe(document.querySelector("#running"), { subtree: true, childList: true, characterData: true });
}"""


@contextlib.contextmanager
def studio() -> Iterator[tuple[Any, str, int]]:
    """A browser, and the address and the process of a server."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    assert chromium, "needs Chromium: apt install chromium"
    with tempfile.TemporaryDirectory() as made, serving(Path(made)) as (address, server), sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"], timeout=WAIT)
        yield browser, address, server
        browser.close()


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[str, int]]:
    """A server of the model that ships: its address, and its process."""
    command = [sys.executable, str(ROOT / "sample/serve.py"), "--no-browser", "--port=0", f"--out={folder}/serve"]
    with running([*command, "--device=cpu"]) as one:
        assert one.stderr is not None
        address = next(found[0] for line in one.stderr if (found := re.search(r"http://[^; ]+", line)))
        yield address, one.pid


def opened(browser: Any, address: str, polling: int = 5) -> Any:
    context = browser.new_context(bypass_csp=True)
    context.set_default_timeout(WAIT)
    one = context.new_page()
    one.goto(address)
    one.wait_for_function("document.body.dataset.ready === 'all'", polling=polling)
    one.fill("#prompt", PROMPT)
    return one


def page_alone(_: float) -> dict[str, Any]:
    with studio() as (browser, address, _server):
        return alone(browser, address)


def alone(browser: Any, address: str) -> dict[str, Any]:
    usable, first, cancelled, size = [], [], [], 0
    for seed in range(ROUNDS):
        context = browser.new_context(bypass_csp=True)
        context.set_default_timeout(WAIT)
        one, sizes = context.new_page(), []
        one.on("response", lambda answer, sizes=sizes: sizes.append(int(answer.headers.get("content-length", 0))))
        one.goto(address)
        one.wait_for_function("document.body.dataset.ready === 'all'", polling=5)
        usable.append(one.evaluate("performance.now()"))
        size = sum(sizes)
        one.fill("#prompt", PROMPT)
        one.fill("#seed", str(seed))
        first.append(one.evaluate(SEEN, "#make"))
        cancelled.append(one.evaluate(GONE))
        context.close()
    medians = {"usable_ms": usable, "first_frame_ms": first, "cancel_ms": cancelled}
    return {"bytes": size} | {name: round(statistics.median(values)) for name, values in medians.items()}


def page_throughput(_: float) -> dict[str, Any]:
    with studio() as (browser, address, server), tempfile.TemporaryDirectory() as made:
        return beside_the_command(browser, address, server, Path(made))


def beside_the_command(browser: Any, address: str, server: int, folder: Path) -> dict[str, Any]:
    here, there, worked, commanded, started = [], [], [], [], []
    for number in range(ROUNDS):
        one = opened(browser, address)
        one.fill("#count", str(CLIPS))
        one.fill("#seed", str(100 * number))
        began, before = time.perf_counter(), work(server)
        one.click("#make")
        one.wait_for_function(f"document.querySelectorAll('#running article[data-done]').length === {CLIPS}", polling=5)
        here.append(time.perf_counter() - began)
        worked.append(work(server) - before)
        one.context.close()
        command = [sys.executable, str(ROOT / "sample/generate.py"), "--prompt", PROMPT, f"--count={CLIPS}", "--json"]
        command += [f"--seed={100 * number}", f"--batch-size={CLIPS}", "--device=cpu"]
        seconds, whole = commands([*command, f"--out={folder}/command/{number}"])
        there.append(sum(took for name, took in seconds.items() if name not in ("start", "load")))
        commanded.append(whole)
        started.append(commands([*command, f"--out={folder}/command/{number}"])[1])  # all are there already
    command_work = min(commanded) - min(started)
    return {
        "clips_s": round(min(here), 2), "command_s": round(min(there), 2), "share": round(min(here) / min(there), 3),
        "work_s": round(min(worked), 2), "command_work_s": round(command_work, 2),
        "share_of_work": round(min(worked) / command_work, 3),
    }  # fmt: skip


def commands(command: list[str]) -> tuple[dict[str, float], float]:
    """The seconds that a command tells, and those of a processor that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds: dict[str, float] = json.loads(said.splitlines()[-1])["seconds"]
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def work(process: int) -> float:
    """Seconds of a processor that a process has taken."""
    told = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")


def page_tabs(_: float) -> dict[str, Any]:
    with studio() as (browser, address, server):
        return crowd(browser, address, server)


def crowd(browser: Any, address: str, server: int) -> dict[str, Any]:
    tabs = [opened(browser, address, polling=50) for _ in range(TABS)]
    memory, positions, lost = [megabytes(server)], 0, 0
    for flood in range(FLOODS):
        for number, tab in enumerate(tabs):
            tab.evaluate(PLACES)
            tab.fill("#seed", str(1000 * flood + number))
            tab.fill("#frames", str(FRAMES))
        for tab in tabs:
            tab.click("#make")
        for tab in tabs:
            tab.wait_for_function(
                f"document.querySelectorAll('#running article[data-done]').length === {flood + 1}", polling=50
            )
            positions += bool(tab.evaluate("window.places.size"))
        made = tabs[0].evaluate("fetch('/api/clips').then((answer) => answer.json())")["clips"]
        lost += TABS - len({clip["asked"]["seed"] for clip in made} & set(range(1000 * flood, 1000 * flood + TABS)))
        memory.append(megabytes(server))
    return {"tabs": TABS, "floods": FLOODS, "positions": positions, "lost": lost, "memory_mb": memory}


def megabytes(process: int) -> int:
    """What a process holds in memory."""
    told = Path(f"/proc/{process}/status").read_text()
    return round(int(next(line.split()[1] for line in told.splitlines() if line.startswith("VmRSS"))) / 1024)
