"""Play over a websocket: one game for each page that is open, all on one model, a step at a time.

Each game is a loop that shows a frame, makes the next one ahead for the key that is down, and waits until it is due.
All work of all games is done one piece after the other, in the order in which it was asked for: two games share the
model fairly, and none makes the other wrong. What a page sends beyond what a game takes waits in its socket.
"""

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import anyio
from anyio.to_thread import run_sync
from starlette.websockets import WebSocket, WebSocketDisconnect

from vpoet.errors import DataError, VpoetError
from vpoet.serve.film import SCALE, Tape, record
from vpoet.serve.keys import Held, Log
from vpoet.serve.messages import Ask, film, frame, heard
from vpoet.serve.turns import Turns
from vpoet.serve.worlds import Shown, Worlds, side_by_side

MOST = 4
"""Games at once."""
_ASKS = 16
"""Messages of a page that wait for a step to end."""
_WRONG = 20
"""Messages that make no sense, after which a socket is closed."""
T = TypeVar("T")


@dataclass
class House:
    """What is played here."""

    open: Callable[[], Worlds]
    """A new game; it may take a while."""
    about: dict[str, Any]
    """What films and the page are told of it: ``model``, ``world``, ``prompt``, ``seed`` ..."""
    fps: float
    turns: AbstractContextManager[Any] = field(default_factory=Turns)
    """For the model, which others may use, too."""
    games: int = 0
    """That are being played."""
    _one: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(1))

    async def work(self, does: Callable[..., T], *arguments: Any) -> T:
        """Done in a thread, while nothing else is."""

        def in_turn() -> T:
            with self.turns:
                return does(*arguments)

        return await run_sync(in_turn, limiter=self._one)

    async def welcome(self, socket: WebSocket) -> None:
        """The whole life of a page's socket."""
        await socket.accept()
        if self.games >= MOST:
            await socket.send_json({"say": "error", "text": f"{MOST} games are being played here; close one of them"})
            await socket.close(1013)
            return
        self.games += 1
        try:
            game = Game(self, socket, await self.work(self.open))
            async with anyio.create_task_group() as both:

                async def until_it_leaves() -> None:
                    with contextlib.suppress(WebSocketDisconnect):
                        await game.listen()
                    both.cancel_scope.cancel()

                both.start_soon(until_it_leaves)
                with contextlib.suppress(WebSocketDisconnect):
                    await game.run()
                both.cancel_scope.cancel()
        finally:
            self.games -= 1


class Game:
    """One page's game."""

    def __init__(self, house: House, socket: WebSocket, worlds: Worlds) -> None:
        self._house, self._socket, self._worlds = house, socket, worlds
        self._held, self._at = Held(worlds.idle), 0
        self._asks: asyncio.Queue[Ask] = asyncio.Queue(_ASKS)
        self._changed = asyncio.Event()
        self._fps, self._paused = house.fps, False
        self._seed, self._prompt = int(house.about["seed"]), str(house.about["prompt"])
        self._log = Log(worlds.actions)
        self._tape: Tape | None = None
        self._view = ""
        self._stopped = False
        """The learned world cannot go on."""
        self._last: Shown | None = None

    async def listen(self) -> None:
        """Hear the page until it leaves: keys count at once, all else between two steps."""
        wrong = 0
        while wrong < _WRONG:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect
            try:
                ask = heard(message.get("text") or "")
                if ask.do in ("press", "release") and ask.told["key"] >= len(self._worlds.actions):
                    raise DataError(f"{ask.do}: no such key")
            except DataError as error:
                wrong += 1
                await self._say("error", text=str(error))
                continue
            if ask.do == "press":
                self._held.press(ask.told["key"])
                self._at = ask.told["at"]
            elif ask.do == "release":
                self._held.release(ask.told["key"])
            else:
                await self._asks.put(ask)
            self._changed.set()

    async def run(self) -> None:
        """Play until the page has left."""
        worlds, house = self._worlds, self._house
        await self._say(
            "hello", **house.about, actions=list(worlds.actions), fps=house.fps, shows=list(worlds.shows)
        )  # fmt: skip
        if not await self._begin(self._seed, self._prompt):
            await self._begin(self._seed, "")
        due = asyncio.get_running_loop().time()
        while True:
            due = max(due + 1 / self._fps, asyncio.get_running_loop().time())
            await self._wait_until(due)
            action, at = self._held.take(), self._at
            try:
                shown = await house.work(worlds.step, action)
            except VpoetError as error:
                self._stopped = True
                await self._say("error", text=str(error))
                continue
            self._log.did(action)
            await self._show(shown, at)

    async def _wait_until(self, due: float) -> None:
        """Do what is asked, and make frames ahead, until the next step is due and may be taken."""
        clock = asyncio.get_running_loop().time
        made: int | None = None
        while True:
            self._changed.clear()
            while not self._asks.empty():
                ask = self._asks.get_nowait()
                made = None
                await self._do(ask)
            left = due - clock()
            still = self._paused or self._stopped or self._worlds.over
            if not still and left <= 0:
                return
            if not still and made != self._held.next:
                made = self._held.next
                with contextlib.suppress(VpoetError):  # the step itself will say it
                    await self._house.work(self._worlds.ahead, made)
                continue
            with anyio.move_on_after(None if still else left):
                await self._changed.wait()

    async def _do(self, ask: Ask) -> None:
        told = ask.told
        if ask.do == "restart":
            await self._begin(told["seed"], told["prompt"])
        elif ask.do == "pace":
            self._fps = float(told["fps"])
        elif ask.do == "pause":
            self._paused = told["on"]
            await self._say("paused", on=self._paused)
        elif ask.do == "record":
            await self._record(told["on"], told["view"])
        else:
            try:
                await self._house.work(self._worlds.prompt, told["text"])
            except VpoetError as error:
                await self._say("error", text=str(error))
                return
            self._log.said(told["text"])
            await self._say("told", prompt=told["text"])

    async def _begin(self, seed: int, prompt: str) -> bool:
        """Whether it began; if not, what was there goes on."""
        try:
            shown = await self._house.work(self._worlds.begin, seed, prompt)
        except VpoetError as error:
            await self._say("error", text=str(error))
            return False
        await self._record(False, self._view)
        self._seed, self._prompt, self._stopped = seed, prompt, False
        self._held.clear()
        self._log = Log(self._worlds.actions)
        await self._say("begun", seed=seed, prompt=prompt, told=self._worlds.told)
        await self._show(shown, self._at)
        return True

    async def _show(self, shown: Shown, at: int) -> None:
        self._last = shown
        if self._tape is not None:
            self._tape.add(side_by_side(shown, self._worlds.shows, self._view, SCALE))
            if self._tape.full:
                await self._record(False, self._view)
        await self._socket.send_bytes(frame(shown, at))

    async def _record(self, on: bool, view: str) -> None:
        """Begin a film, or end it and send it, its record first."""
        if on and self._tape is None and self._last is not None:
            try:
                picture = side_by_side(self._last, self._worlds.shows, view, SCALE)
            except DataError as error:
                await self._say("error", text=str(error))
                return
            self._view, self._tape = view, Tape(self._fps, self._last.number)
            self._tape.add(picture)
            await self._say("recording", on=True)
        elif not on and self._tape is not None:
            tape, self._tape = self._tape, None
            about = {name: self._house.about[name] for name in ("model", "world")}
            game = {"seed": self._seed, "prompt": self._prompt, "view": self._view, "fps": self._fps}
            told = record(self._log, **about, **game, first=tape.first, frames=tape.frames, whole=not self._log.full)
            await self._say("film", record=told)
            await self._socket.send_bytes(film(tape.finish()))

    async def _say(self, what: str, **told: Any) -> None:
        await self._socket.send_json({"say": what, **told})
