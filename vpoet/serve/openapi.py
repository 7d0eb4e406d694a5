"""The API as OpenAPI 3.1 says it (https://spec.openapis.org/oas/v3.1.0).

The fields of a question are those of requests.
"""

from typing import Any, get_origin

from vpoet import __version__
from vpoet.generate.fields import about, written
from vpoet.serve.asked import COUNT
from vpoet.serve.history import KINDS
from vpoet.serve.served import CLIPS, fields_served

_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}


def question() -> dict[str, Any]:
    """The schema of what is asked for."""
    fields: dict[str, Any] = {
        "model": {"type": "string", "description": "A name of /api/models; by default the first."},
        "count": {
            "type": "integer",
            "minimum": 1,
            "maximum": COUNT,
            "description": "Clips, with seeds SEED, SEED+1 ..",
        },
    }
    for name, field in fields_served().items():
        found, kind = about(field), written(field)
        told: dict[str, Any] = {"description": found.help}
        if name in CLIPS:
            named = "The id of an upload, or of a clip here." if name == "edit" else "The id of an upload."
            told |= {"type": "string", "description": f"{found.help} {named}"}
        elif get_origin(kind) is list:
            told |= {"type": "array", "items": {"type": "string"}}
            if name == "control":
                told["description"] += " FILE is the id of an upload."
        else:
            told["type"] = _TYPES[kind]
        if found.allowed is not None:
            told["minimum" if not found.allowed.above else "exclusiveMinimum"] = found.allowed.least
            if found.allowed.most != float("inf"):
                told["maximum"] = found.allowed.most
        fields[name] = told
    return {"type": "object", "properties": fields, "additionalProperties": False}


def description() -> dict[str, Any]:
    """The whole API."""

    def answer(words: str, kind: str = "application/json", status: str = "200") -> dict[str, Any]:
        wrong = {"description": "What is wrong", "content": {"application/json": {"schema": _ERROR}}}
        return {status: {"description": words, "content": {kind: {}}}, "4XX": wrong}

    def call(words: str, answers: dict[str, Any], *names: str, **more: Any) -> dict[str, Any]:
        given = [{"name": name, "in": "path", "required": True, "schema": _NAMES[name]} for name in names]
        return {"summary": words, "responses": answers, **({"parameters": given} if given else {}), **more}

    asked = {"required": True, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Question"}}}}
    file = {"required": True, "content": {"application/octet-stream": {}}}
    paths = {
        "/api/models": {"get": call("The models, and what each serves", answer("{models, plays}"))},
        "/api/uploads": {"post": call("Send a video or an image", answer("What it is, with its id"), requestBody=file)},
        "/api/uploads/{id}": {"get": call("What was sent", answer("Its size, rate and comment"), "id")},
        "/api/uploads/{id}/preview": {"get": call("A small picture of it", answer("It", "image/webp"), "id")},
        "/api/jobs": {
            "post": call("Ask for clips", answer("{jobs}, one for each seed", status="201"), requestBody=asked),
            "get": call("The requests that are not done", answer("{jobs}")),
        },
        "/api/jobs/{id}": {
            "get": call("One request: its state, its position while it waits, and how it ended", answer("It"), "id"),
            "delete": call("Cancel it", answer("Its state"), "id"),
        },
        "/api/jobs/{id}/events": {
            "get": call("What happens to it: waiting, warning, part, seen, and last done, failed or cancelled",
                        answer("Server-sent events, each JSON", "text/event-stream"), "id"),
        },
        "/api/clips": {"get": call("What was made here, the latest first", answer("{clips}"))},
        "/api/clips/{id}": {"delete": call("Delete a clip", answer("Nothing"), "id")},
        "/api/clips/{id}.{kind}": {
            "get": call("A clip; npz holds frames and codes", answer("It", "application/octet-stream"), "id", "kind"),
        },
    }  # fmt: skip
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "vpoet serve",
            "version": __version__,
            "description": "Clips from prompts, pictures and clips.",
        },
        "paths": paths,
        "components": {
            "schemas": {"Question": question()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


_ERROR = {"type": "object", "properties": {"error": {"type": "string"}}}
_NAMES = {"id": {"type": "string"}, "kind": {"enum": list(KINDS)}}
