"""What programs and the page ask of a studio: JSON in, JSON and server-sent events out.

    GET    /api                     this, as OpenAPI
    GET    /api/models              what there is, and what it serves
    POST   /api/uploads             the bytes of a video or an image, or of the record of a clip with its codes
    GET    /api/uploads/ID          what it is;  /api/uploads/ID/preview  shows it
    POST   /api/jobs                ask for clips (`vpoet.serve.asked`)
    GET    /api/jobs                all that are not done;  /api/jobs/ID  one
    GET    /api/jobs/ID/events      what happens to it, as server-sent events, to its end
    DELETE /api/jobs/ID             cancel it
    GET    /api/clips               what was made;  /api/clips/ID.KIND  one clip, as mp4, gif, png, webp, rgb, npz, json
    DELETE /api/clips/ID            forget it
    WS     /api/live                events of many requests on one socket

Every name is looked up among those that the server gave out; none becomes a path.
"""

import contextlib
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from vpoet.data.fields import parse_json
from vpoet.errors import DataError, VpoetError
from vpoet.generate.model import Model
from vpoet.media.control import MAKERS
from vpoet.sequence.conditions import TABLE, Learnt
from vpoet.serve.asked import orders
from vpoet.serve.history import KINDS
from vpoet.serve.openapi import description
from vpoet.serve.studio import Busy, Job, Studio
from vpoet.serve.warned import noted

LONGEST = 200_000
"""Bytes of a question in JSON: a story of 64 prompts."""
WATCHED = 512
"""Requests on one socket, that are not over."""
PATIENCE = 30
"""Seconds for a question to arrive."""
Answer = Callable[[Request], Awaitable[Response]]


class _Missing(VpoetError):
    pass


def routes(studio: Studio, plays: str = "") -> list[BaseRoute]:
    """Of all that is above; ``plays`` is the name of the model that the page of play shows."""
    api = _Api(studio, plays)
    return [
        Route("/api", _told(api.openapi)),
        Route("/api/models", _told(api.models)),
        Route("/api/uploads", _told(api.upload), methods=["POST"]),
        Route("/api/uploads/{id}", _told(api.about_upload)),
        Route("/api/uploads/{id}/preview", _told(api.preview)),
        Route("/api/jobs", _told(api.submit), methods=["POST"]),
        Route("/api/jobs", _told(api.jobs)),
        Route("/api/jobs/{id}", _told(api.cancel), methods=["DELETE"]),
        Route("/api/jobs/{id}", _told(api.job)),
        Route("/api/jobs/{id}/events", _told(api.events)),
        Route("/api/clips", _told(api.clips)),
        Route("/api/clips/{id}", _told(api.forget), methods=["DELETE"]),
        Route("/api/clips/{id}.{kind}", _told(api.clip)),
        WebSocketRoute("/api/live", api.live),
    ]


def told(name: str, model: Model) -> dict[str, Any]:
    """What a page knows of a model."""
    config, controls = model.bundle.config, model.bundle.transformer.config.controls
    conditions = {name: _choices(name, learnt) for name, learnt in config.conditions.items()}
    return {
        "name": name, "hash": model.bundle.hash, "tasks": config.tasks, "words": config.words, "frames": config.frames,
        "height": config.height, "width": config.width, "fps": config.fps, "guidance": config.guidance,
        "temperature": config.temperature, "stride": model.bundle.video.stride, "tokenizer": model.bundle.video.hash,
        "controls": controls, "makes": [kind for kind in controls if kind in MAKERS], "conditions": conditions,
    }  # fmt: skip


def _choices(name: str, learnt: Learnt) -> dict[str, Any]:
    """What a model can be asked for of a condition: ranges, with a value in each."""
    each = [(bucket, *learnt.ends(bucket)) for bucket in learnt.met or range(len(learnt.edges) + 1)]
    choices = [
        {"low": low, "high": high, "value": learnt.inside(at), "words": learnt.about(at)} for at, low, high in each
    ]
    return {"meaning": TABLE[name].meaning, "choices": choices}


def _told(answer: Answer) -> Answer:
    """Errors as JSON."""

    async def answered(request: Request) -> Response:
        try:
            return await answer(request)
        except _Missing as error:
            return JSONResponse({"error": str(error)}, 404)
        except Busy as error:
            return JSONResponse({"error": str(error)}, 429)
        except VpoetError as error:
            return JSONResponse({"error": str(error)}, 400)
        except ClientDisconnect:
            return Response(status_code=400)

    return answered


async def _body(request: Request) -> Any:
    data = b""
    with anyio.move_on_after(PATIENCE):
        async for piece in request.stream():
            data += piece
            if len(data) > LONGEST:
                raise DataError(f"a question may have {LONGEST} bytes at most")
        told = parse_json(data)
        json.loads(data, parse_constant=_finite, parse_float=_finite)  # what is no number is nothing that was left out
        return told
    raise DataError(f"the question did not arrive within {PATIENCE} seconds")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise DataError(f"{text[:40]}: no finite number")
    return number


class _Api:
    def __init__(self, studio: Studio, plays: str) -> None:
        self._studio, self._plays = studio, plays
        self._writers = anyio.CapacityLimiter(2)

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(description())

    async def models(self, request: Request) -> Response:
        models = [told(name, model) for name, model in self._studio.models.items()]
        return JSONResponse({"models": models, "plays": self._plays})

    async def upload(self, request: Request) -> Response:
        return JSONResponse(await self._studio.uploads.add(request.stream()))

    async def about_upload(self, request: Request) -> Response:
        return JSONResponse(self._upload(request))

    async def preview(self, request: Request) -> Response:
        try:
            shown = self._studio.uploads.preview(self._upload(request)["id"])
        except DataError as error:  # it has just been let go
            raise _Missing(str(error)) from None
        return Response(shown, media_type="image/webp")

    def _upload(self, request: Request) -> dict[str, Any]:
        about = self._studio.uploads.about(request.path_params["id"])
        if about is None:
            raise _Missing("no such upload")
        return about

    async def submit(self, request: Request) -> Response:
        body = await _body(request)
        with noted():  # what is told here is told once more when the clip is begun
            asked = await run_sync(orders, body, self._studio.models, self._studio.uploads, self._studio.history)
        jobs = self._studio.submit(asked)
        return JSONResponse({"jobs": [self._state(job) for job in jobs]}, 201)

    async def jobs(self, request: Request) -> Response:
        return JSONResponse({"jobs": [self._state(job) for job in self._studio.unfinished()]})

    async def job(self, request: Request) -> Response:
        return JSONResponse(self._state(self._job(request.path_params["id"])))

    def _job(self, name: str) -> Job:
        job = self._studio.job(name)
        if job is None:
            raise _Missing("no such request")
        return job

    def _state(self, job: Job) -> dict[str, Any]:
        found = job.told()
        if job in self._studio.waiting:
            found["position"] = self._studio.position(job)
        return found | ({"end": job.end} if job.end else {})

    async def cancel(self, request: Request) -> Response:
        job = self._job(request.path_params["id"])
        self._studio.cancel(job)
        return JSONResponse(self._state(job))

    async def events(self, request: Request) -> Response:
        job = self._job(request.path_params["id"])

        async def lines() -> AsyncIterator[str]:
            async for event in self._studio.events(job):
                yield f"event: {event['event']}\ndata: {json.dumps(event)}\n\n"

        return StreamingResponse(lines(), media_type="text/event-stream")

    async def clips(self, request: Request) -> Response:
        return JSONResponse({"clips": self._studio.history.all()})

    def _clip(self, name: str) -> str:
        if self._studio.history.about(name) is None:
            raise _Missing("no such clip")
        return name

    async def forget(self, request: Request) -> Response:
        self._studio.history.remove(self._clip(request.path_params["id"]))
        return JSONResponse({})

    async def clip(self, request: Request) -> Response:
        name, kind = self._clip(request.path_params["id"]), request.path_params["kind"]
        if kind not in KINDS:
            raise _Missing(f"a clip can be had as {', '.join(KINDS)}")
        try:
            data = await run_sync(self._studio.history.file, name, kind, limiter=self._writers)
        except DataError as error:  # it was forgotten while it waited
            raise _Missing(str(error)) from None
        return Response(data, media_type=KINDS[kind])

    async def live(self, socket: WebSocket) -> None:
        """The page sends ``{"watch": [ID, ...]}``, and is sent ``{"job": ID, "event": ...}``."""
        await socket.accept()
        watched: set[str] = set()
        one = anyio.Lock()

        async def follow(job: Job) -> None:
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # it is told to somebody who has left
                async for event in self._studio.events(job):
                    async with one:
                        await socket.send_json({"job": job.id, **event})
            watched.discard(job.id)

        async with anyio.create_task_group() as following:
            with contextlib.suppress(WebSocketDisconnect, DataError, KeyError):
                while True:
                    message = parse_json(await socket.receive_text())
                    names = message.get("watch") if isinstance(message, dict) else None
                    if not isinstance(names, list) or len(watched) + len(names) > WATCHED:
                        break
                    for name in (each for each in names if isinstance(each, str) and each not in watched):
                        if (job := self._studio.job(name)) is not None:
                            watched.add(name)
                            following.start_soon(follow, job)
                        else:
                            async with one:
                                await socket.send_json({"job": name, "event": "unknown"})
            following.cancel_scope.cancel()
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await socket.close(1003)
