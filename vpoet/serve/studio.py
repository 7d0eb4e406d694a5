"""The models of a server, and who waits for them: requests in, what there is to see of them out.

    submit -> waiting (with its position) -> ready (its files are read) -> running -> done, failed or cancelled

One thread decodes, pass by pass (`vpoet.generate.batching`); all else happens in the server's own loop.
"""

import asyncio
import base64
import io
import threading
import traceback
from collections.abc import AsyncIterator, Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from vpoet.errors import VpoetError
from vpoet.generate.batching import Batching, batching
from vpoet.generate.growing import Filled, Growing, Seen
from vpoet.generate.model import Model
from vpoet.generate.prompt_file import record
from vpoet.serve.asked import Order
from vpoet.serve.given import Given, read, recorded
from vpoet.serve.history import History, new_name
from vpoet.serve.served import CLIPS, with_files
from vpoet.serve.turns import Turns
from vpoet.serve.uploads import Uploads
from vpoet.serve.warned import noted, routed

WAITING = 256
"""Requests that wait, at most."""
READY = 8
"""Requests whose files are held in memory before their turn."""
REMEMBERED = 512
"""Requests that are over, of which it is still told how they ended."""
_OURS = "an error of the server's own; its log says more"
_QUICKLY = 1
"""Of 1 to 9: frames to look at take a tenth more bytes, and a third of the time."""
_STEP = 0.04
"""Parts of a clip that are worth telling."""


class Busy(VpoetError):
    """Too many are waiting."""


class _Gone(Exception):
    """A request is not wanted any more."""


@dataclass(eq=False)
class Job:
    """A request, from when it is asked to how it ended."""

    id: str
    order: Order
    state: str = "waiting"
    part: float = 0.0
    seen: list[dict[str, Any]] = field(default_factory=list)
    """Events with frames to look at, until it is over."""
    end: dict[str, Any] | None = None
    """The last event."""
    given: Given | None = None
    """The files of the request, once they are read."""
    warnings: list[str] = field(default_factory=list)
    """What who asks should know of the clip."""
    filled: list[Filled] = field(default_factory=list)
    gone: bool = False
    """Nobody wants it any more; the thread that decodes looks at it with each pass."""

    def told(self) -> dict[str, Any]:
        return {"id": self.id, "state": self.state, "part": self.part, "asked": self.order.asked}


class Studio:
    """All requests to the models of a server. Enter it in the server's loop (`run`)."""

    def __init__(self, models: Mapping[str, Model], uploads: Uploads, history: History) -> None:
        self.models, self.uploads, self.history = models, uploads, history
        self.turns = Turns()
        """Whoever else uses one of the models waits for a turn, too."""
        self._jobs: dict[str, Job] = {}
        self.waiting: list[Job] = []
        self._moved = asyncio.Event()
        self._work = threading.Condition()
        self._stopping = False

    async def run(self, started: asyncio.Event) -> None:
        """Serve until it is cancelled."""
        self._loop = asyncio.get_running_loop()
        worker = threading.Thread(target=self._decode, name="decoding", daemon=True)
        worker.start()
        started.set()
        with routed():
            try:
                while True:
                    moved = self._moved
                    if not await self._prepare():
                        await moved.wait()
            finally:
                with self._work:
                    self._stopping = True
                    self._work.notify()
                await asyncio.to_thread(worker.join)

    def submit(self, orders: Items[Order]) -> list[Job]:
        """Busy: there is no room for all of them."""
        if len(self.waiting) + len(orders) > WAITING:
            raise Busy(f"{len(self.waiting)} requests are waiting here, and {WAITING} are the most; try again later")
        jobs = [Job(new_name(), order) for order in orders]
        for job in jobs:
            self._jobs[job.id] = job
        self.waiting += jobs
        over = [job for job in self._jobs.values() if job.end]
        for job in over[: max(0, len(over) - REMEMBERED)]:
            del self._jobs[job.id]
        self._tell()
        return jobs

    def job(self, name: str) -> Job | None:
        return self._jobs.get(name)

    def unfinished(self) -> list[Job]:
        return [job for job in self._jobs.values() if not job.end]

    def position(self, job: Job) -> int:
        """How many stand before it."""
        return self.waiting.index(job)

    def cancel(self, job: Job) -> None:
        job.gone = True
        if job in self.waiting:
            self._end(job, "cancelled")

    async def events(self, job: Job) -> AsyncIterator[dict[str, Any]]:
        """What happens to a request, from the beginning, to its end."""
        sent, place, part = 0, -1, 0.0
        while True:
            moved = self._moved
            if job.state == "waiting" and job in self.waiting and place != (place := self.position(job)):
                yield {"event": "waiting", "position": place}
            for event in job.seen[sent:]:
                sent += 1
                yield event
            if job.end is not None:
                yield job.end
                return
            if job.part >= part + _STEP:
                part = job.part
                yield {"event": "part", "part": round(part, 4)}
            await moved.wait()

    def _tell(self) -> None:
        """Wake all who wait for anything."""
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
        with self._work:
            self._work.notify()

    def _end(self, job: Job, state: str, **told: Any) -> None:
        if job.end is None:
            if job in self.waiting:
                self.waiting.remove(job)
            job.state, job.seen, job.given, job.filled = state, [], None, []
            job.end = {"event": state, **told}
            self._tell()

    async def _prepare(self) -> bool:
        """Read the files of the first request that needs it, unless enough are read; whether there was one."""
        ready = [job for job in self.waiting[:READY] if job.given is None]
        if not ready:
            return False
        job, model = ready[0], self.models[ready[0].order.model]
        try:
            given = await read(job.order.request, model, self.uploads, self.history)
        except VpoetError as error:
            self._end(job, "failed", error=str(error))
        except Exception as error:  # of one request: whoever waits behind it is served
            traceback.print_exception(error)
            self._end(job, "failed", error=_OURS)
        else:
            job.given = given
            self._tell()
        return True

    # From here on, of the thread that decodes.

    def _decode(self) -> None:
        running = {name: batching(model) for name, model in self.models.items()}
        owners: dict[Growing, Job] = {}
        while True:
            with self._work:
                self._work.wait_for(lambda: self._stopping or any(map(len, running.values())) or self._next(running))
                if self._stopping:
                    return
                job = self._next(running)
            if job is not None:
                job.state = "running"
                self._call(self._begin, job)
                if (growing := self._grown(job)) is not None:
                    owners[growing] = job
                    running[job.order.model].join(growing)
            for growing in [each for each, job in owners.items() if job.gone]:
                running[owners[growing].order.model].leave(growing)
                self._call(self._end, owners.pop(growing), "cancelled")
            for name, turns in running.items():
                try:
                    with self.turns:
                        found = turns.step()
                except Exception as error:  # of a pass that all share
                    found = [(growing, error) for growing, job in owners.items() if job.order.model == name]
                    for growing, _ in found:
                        turns.leave(growing)
                for growing, part in found:
                    self._take(owners[growing], growing, part)
                for growing in {growing for growing, part in found if _is_last(growing, part)}:
                    del owners[growing]

    def _call(self, does: Any, *arguments: Any, **named: Any) -> None:
        """In the server's loop, soon."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(lambda: does(*arguments, **named))

    def _next(self, running: Mapping[str, Batching]) -> Job | None:
        """The first in line whose files are read and whose model has room."""
        for job in [*self.waiting]:
            turns = running[job.order.model]
            if job.state == "waiting" and job.given is not None and not job.gone and len(turns) < turns.MOST:
                return job
        return None

    def _begin(self, job: Job) -> None:
        if job in self.waiting:
            self.waiting.remove(job)
        self._tell()

    def _grown(self, job: Job) -> Growing | None:
        told = 0.0

        def on_part(part: float) -> None:
            nonlocal told
            if job.gone:
                raise _Gone
            job.part = part
            if part >= told + _STEP:
                told = part
                self._call(self._tell)

        try:
            given = job.given
            if job.gone or given is None:  # it was cancelled just now, and its files are let go
                raise _Gone
            job.given = Given()
            request, model = with_files(job.order.request, given.clips), self.models[job.order.model]
            with self.turns, noted() as notes:
                growing = Growing(model, request, job.order.sampling, on_part)
                self._warn(job, [*given.warnings, *notes, *model.unfamiliar(request)])
            return growing
        except Exception as error:
            self._fail(job, error)
            return None

    def _warn(self, job: Job, said: Items[str]) -> None:
        strange = self.models[job.order.model].unknown(job.order.request.prompt)
        words = [f"words that this model never met: {', '.join(strange)}"] if strange else []
        job.warnings = [*words, *said]
        for each in job.warnings:
            self._call(self._show, job, {"event": "warning", "warning": each})

    def _take(self, job: Job, growing: Growing, part: Seen | Filled | Exception) -> None:
        try:
            if isinstance(part, Exception):
                raise part
            if isinstance(part, Seen):
                self._call(self._show, job, _event(part))
                return
            job.filled.append(part)
            if growing.document is None:
                self._call(self._end, job, "done", clip=self._kept(job, growing))
        except Exception as error:
            self._fail(job, error)

    def _kept(self, job: Job, growing: Growing) -> dict[str, Any]:
        order, model = job.order, self.models[job.order.model]
        none: dict[str, Any] = dict.fromkeys(CLIPS)
        made = record(replace(order.request, control=(), **none), order.sampling, model) | model.rounding
        made |= recorded(order.request, self.uploads)
        if growing.rollout.was:
            made |= {"was": order.request.was, "strength": order.request.strength, "shows": growing.rollout.was}
        for part in job.filled:
            made["nats"] = made.get("nats", 0.0) + float(part.decoded.nats.sum())
            made["tokens"] = made.get("tokens", 0) + len(part.decoded.nats)
        asked = {"hash": model.bundle.hash, **order.asked}
        return self.history.add(
            job.id, job.filled, growing.rollout.fps, record=made, asked=asked, whole=growing.rollout.whole,
            warnings=job.warnings,
        )  # fmt: skip

    def _show(self, job: Job, event: dict[str, Any]) -> None:
        if job.end is None:
            job.seen.append(event)
            self._tell()

    def _fail(self, job: Job, error: Exception) -> None:
        if isinstance(error, _Gone):
            self._call(self._end, job, "cancelled")
        elif isinstance(error, VpoetError):
            self._call(self._end, job, "failed", error=str(error))
        else:
            traceback.print_exception(error)
            self._call(self._end, job, "failed", error=_OURS)


def _is_last(growing: Growing, part: Seen | Filled | Exception) -> bool:
    return isinstance(part, Exception) or (isinstance(part, Filled) and growing.document is None)


def _event(seen: Seen) -> dict[str, Any]:
    """Frames as a .png, one below the other."""
    count, height, width = seen.frames.shape[:3]
    strip = io.BytesIO()
    Image.fromarray(seen.frames.reshape(-1, width, 3)).save(strip, "PNG", compress_level=_QUICKLY)
    told = {"first": seen.first, "frames": count, "height": height, "width": width}
    return {"event": "seen", **told, "png": base64.b64encode(strip.getvalue()).decode()}
