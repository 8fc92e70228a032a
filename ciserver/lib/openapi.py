"""The OpenAPI document: what all operations share, so that no view has to repeat it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema

PREFIX = "/api/v1/"
PROBLEM = {
    "type": "object",
    "description": "Why it was not done (RFC 9457), by a code that stays and the next step.",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string", "examples": ["about:blank"]},
        "title": {"type": "string", "examples": ["Not Found"]},
        "status": {"type": "integer", "examples": [404]},
        "code": {
            "type": "string",
            "description": "What programs may go by. Of the service as a whole: `invalid`, "
            "`parse-error`, `not-authenticated`, `authentication-failed`, `permission-denied`, "
            "`not-found`, `method-not-allowed`, `not-acceptable`, `unsupported-media-type`, "
            "`throttled`, `etag-differs`, `idempotency-key-reused`, `idempotency-in-flight`, "
            "`idempotency-key-unfit`; a refusal of one part has its own, such as "
            "`approval.over`.",
            "examples": ["not-found"],
        },
        "detail": {"type": "string", "description": "One sentence for a person."},
        "hint": {"type": "string", "description": "The next step."},
        "errors": {"description": "With `invalid`: what is wrong, by field."},
    },
}
READS = {
    400: "The request cannot be understood.",
    401: "There is no token, or it is unknown or has expired.",
    403: "The caller may not do this.",
    404: "There is no such thing, or the caller may not see it.",
    406: "No answer in the form that Accept asks for.",
    429: "More requests than the rate limit allows; Retry-After says when the next one may come.",
}
WRITES = READS | {
    409: "It cannot be done as things stand, or a request with this key is still being done.",
    412: "It is not what If-Match names any more.",
    413: "The request is too large.",
    415: "The body is no JSON.",
    422: "The Idempotency-Key was sent with another request before.",
    503: "What it needs does not answer, such as Redis or a worker: send it again later.",
}
KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Up to 255 characters that name this request: sent again within 24 hours,"
    " nothing is done twice and the same answer comes again.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "description": "Do it only if the resource still has this ETag.",
    "schema": {"type": "string"},
}
IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "description": "Answer 304 without a body if the resource still has this ETag.",
    "schema": {"type": "string"},
}

TEXT = {"schema": {"type": "string"}}
# Answered by plain views of Django, which drf-spectacular does not see.
PLAIN: dict[str, dict[str, Any]] = {
    f"{PREFIX}events/": {
        "operationId": "events",
        "summary": "New states of pipelines, releases and deployments, as server-sent events.",
        "description": "It never ends. `event` is a type as webhooks have them, `data` a JSON"
        " object, `id` what to send as Last-Event-ID to go on from there.",
        "tags": ["events"],
        "parameters": [
            {
                "name": "project",
                "in": "query",
                "description": "slug of a project; without it, all that the caller may see",
                "schema": {"type": "string"},
            },
            {
                "name": "Last-Event-ID",
                "in": "header",
                "description": "without it, the stream begins with what is new",
                "schema": {"type": "string", "pattern": "^[0-9]{1,18}$"},
            },
        ],
        "responses": {"200": {"description": "", "content": {"text/event-stream": TEXT}}},
    },
    f"{PREFIX}commands/{{id}}/stream/": {
        "operationId": "commands_stream",
        "summary": "What a command says, as server-sent events: `out`, `err` and `end`.",
        "tags": ["commands"],
        "parameters": [
            {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}
        ],
        "responses": {"200": {"description": "", "content": {"text/event-stream": TEXT}}},
    },
    f"{PREFIX}gantry.schema.json": {
        "operationId": "gantry_schema",
        "summary": "The JSON Schema of gantry.yml, for editors. It needs no token.",
        "tags": ["lint"],
        "responses": {
            "200": {"description": "", "content": {"application/schema+json": {"schema": {}}}}
        },
    },
    f"{PREFIX}registry/token": {
        "operationId": "registry_token",
        "summary": "A token to pull images, as registries ask for it.",
        "description": "Basic credentials: any name, and a token of Gantry's as the password.",
        "tags": ["registry"],
        "security": [{"basic": []}],
        "parameters": [
            {"name": "service", "in": "query", "schema": {"type": "string"}},
            {
                "name": "scope",
                "in": "query",
                "description": "repository:PROJECT:pull, again and again",
                "schema": {"type": "array", "items": {"type": "string"}},
            },
        ],
        "responses": {
            "200": {
                "description": "",
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "required": ["token", "access_token", "expires_in", "issued_at"],
                            "properties": {
                                "token": {"type": "string"},
                                "access_token": {"type": "string"},
                                "expires_in": {"type": "integer", "description": "seconds"},
                                "issued_at": {"type": "string", "format": "date-time"},
                            },
                        }
                    }
                },
            }
        },
    },
}


class Schema(AutoSchema):
    """The first line of the docstring is the summary, the rest of it the description."""

    def get_summary(self) -> str | None:
        return self._told()[0]

    def get_description(self) -> str:  # type: ignore[override]  # as drf-spectacular has it
        return self._told()[1]

    def _told(self) -> tuple[str | None, str]:
        first, _, rest = (super().get_description() or "").partition("\n")
        return first or None, rest.strip()


class TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # as it is
    """How ``Authorization`` is told of."""

    target_class = "ciserver.accounts.authentication.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        return {
            "type": "http",
            "scheme": "bearer",
            "description": "A token of the page /tokens/; one of scope `read` changes nothing.",
        }


def complete(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """A hook of drf-spectacular: errors, headers of all requests, no page of the docs."""
    result["paths"] = {
        path: operations for path, operations in result["paths"].items() if path.startswith(PREFIX)
    }
    for path, operation in deepcopy(PLAIN).items():
        result["paths"][path] = {"get": {"security": [{"token": []}], **operation}}
    result["paths"] = dict(sorted(result["paths"].items()))
    _plain(result)
    components = result.setdefault("components", {})
    components.setdefault("securitySchemes", {})["basic"] = {"type": "http", "scheme": "basic"}
    components.setdefault("schemas", {})["Problem"] = PROBLEM
    components["responses"] = {f"Problem{status}": _response(WRITES[status]) for status in WRITES}
    components["parameters"] = {"Key": KEY, "IfMatch": IF_MATCH, "IfNoneMatch": IF_NONE_MATCH}
    for operations in result["paths"].values():
        for method, operation in operations.items():
            _complete(method, operation)
    return result


def _plain(part: Any) -> None:
    """Anything at all is null too: of ``oneOf`` both fitted, which is none."""
    if isinstance(part, dict):
        if part.get("oneOf") == [{}, {"type": "null"}]:
            del part["oneOf"]
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            _plain(each)


def _response(description: str) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": description, "content": content}


def _complete(method: str, operation: dict[str, Any]) -> None:
    read = method == "get"
    statuses = READS if read else WRITES
    responses = operation["responses"]
    for status in statuses:
        shared = {"$ref": f"#/components/responses/Problem{status}"}
        responses.setdefault(str(status), shared)
    names = ["IfNoneMatch"] if read else ["Key"]
    if read:
        responses["304"] = {"description": "It is as If-None-Match names it."}
    elif method != "post":
        names.append("IfMatch")
    parameters = operation.setdefault("parameters", [])
    parameters += [{"$ref": f"#/components/parameters/{name}"} for name in names]
