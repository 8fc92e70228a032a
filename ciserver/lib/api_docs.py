"""The API's documentation: drawn from its OpenAPI document, a page for each kind of thing."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.views import SpectacularAPIView
from rest_framework.renderers import BaseRenderer

# What stands for a value in an example, by the type of its field.
INSTEAD: dict[str, Any] = {"integer": 0, "number": 0, "boolean": True, "array": [], "object": {}}


@dataclass(frozen=True)
class Row:
    """A parameter or a field. ``place``: path, query or header, nothing for a field."""

    name: str
    kind: str
    told: str
    place: str = ""
    needed: bool = False
    answered: bool = False  # only

    @property
    def form(self) -> str:
        """The name of the form that it is of, if it is of one."""
        return self.kind.rpartition(" ")[2] if self.kind.rpartition(" ")[2] in forms() else ""


@dataclass(frozen=True)
class Form:
    name: str
    told: str
    rows: list[Row]
    words: str  # of an enumeration


@dataclass(frozen=True)
class Answer:
    status: str
    kind: str
    form: str


@dataclass(frozen=True)
class Operation:
    key: str
    method: str
    path: str
    tag: str
    told: str
    parameters: list[Row]
    headers: list[Row]
    body: str
    answers: list[Answer]
    data: str  # JSON that an example sends

    def example(self, service: str) -> str:
        """A command for a shell that asks this of ``service``."""
        words = ["curl", "-H", "Authorization: Bearer $GANTRY_TOKEN"]
        if self.method != "GET":
            words = ["curl", "-X", self.method, *words[1:]]
        if self.data:
            words += ["-H", "Content-Type: application/json", "-d", self.data]
        return " ".join(map(_quoted, [*words, service + self.path]))


@require_safe
def docs(request: HttpRequest) -> HttpResponse:
    """All operations, or those that hold every word of ``q``."""
    asked = request.GET.get("q", "").strip()[:100]
    words = asked.lower().split()
    found: dict[str, list[Operation]] = {}
    for one in operations():
        text = f"{one.method} {one.path} {one.told}".lower()
        if all(word in text for word in words):
            found.setdefault(one.tag, []).append(one)
    headers = {row.name: row for one in operations() for row in one.headers}
    context = {"groups": found.items(), "asked": asked, "headers": headers.values()}
    return render(request, "api/docs.html", context)


@require_safe
def group(request: HttpRequest, tag: str) -> HttpResponse:
    """What can be done with one kind of thing, and the forms that are sent and answered."""
    those = [one for one in operations() if one.tag == tag]
    if not those:
        raise Http404
    named = {name for one in those for name in (one.body, *(two.form for two in one.answers))}
    context = {
        "tag": tag,
        "tags": list(dict.fromkeys(one.tag for one in operations())),
        "operations": [(one, one.example(settings.GANTRY.url)) for one in those],
        "forms": [forms()[name] for name in sorted(_with_inner(named - {""}))],
    }
    return render(request, "api/group.html", context)


def kept(renderer: type[BaseRenderer]) -> type[BaseRenderer]:
    """``renderer``, which remembers what it has written of ``document``."""

    class Kept(renderer):  # type: ignore[valid-type, misc]
        written: bytes | None = None

        def render(self, data: Any, *others: Any, **more: Any) -> Any:
            if data is not document():  # a refusal
                return super().render(data, *others, **more)
            if Kept.written is None:
                Kept.written = super().render(data, *others, **more)
            return Kept.written

    return Kept


@cache
def document() -> Any:
    """The OpenAPI document of this release of Gantry, which takes a second to make."""
    return SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]


class Made(SchemaGenerator):
    """Whoever asks: it tells nothing of them."""

    def get_schema(self, request: object = None, public: bool = False) -> Any:
        return document()


class Document(SpectacularAPIView):
    """It is public and takes a core half a second to make and to write down: once for a process."""

    generator_class = Made
    renderer_classes = [kept(one) for one in SpectacularAPIView.renderer_classes]


@cache
def operations() -> list[Operation]:
    made = document()
    return [
        _operation(made, method, path, one)
        for path, methods in made["paths"].items()
        for method, one in methods.items()
    ]


@cache
def forms() -> dict[str, Form]:
    return {name: _form(name, one) for name, one in document()["components"]["schemas"].items()}


def kind(  # noqa: PLR0911 - one line for each kind
    schema: Any, named: Callable[[str], str] = str, literal: Callable[[str], str] = str
) -> str:
    """What a value is, in words. ``named`` draws the name of a form, ``literal`` a value."""

    def of(one: Any) -> str:
        return kind(one, named, literal)

    if "$ref" in schema:
        return named(schema["$ref"].rpartition("/")[2])
    several = next((schema[one] for one in ("allOf", "oneOf", "anyOf") if one in schema), None)
    if several is not None:
        return " or ".join(dict.fromkeys(map(of, several)))
    if "enum" in schema:
        return ", ".join(literal(str(one)) for one in schema["enum"])
    word = schema.get("type", "anything")
    if isinstance(word, list):
        return " or ".join(word)
    if word == "array":
        return f"list: {of(schema.get('items', {}))}"
    if word == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object: {of(schema['additionalProperties'])}"
    return f"{word} ({schema['format']})" if "format" in schema else str(word)


def _operation(made: Any, method: str, path: str, one: Any) -> Operation:
    told = " ".join(one.get(part, "") for part in ("summary", "description")).strip()
    contents = one.get("requestBody", {}).get("content", {})
    schemas = [content.get("schema", {}) for content in contents.values()]
    rows = list(_parameters(made, one.get("parameters", [])))
    name = schemas[0].get("$ref", "").rpartition("/")[2] if schemas else ""
    data = ""
    if "application/json" in contents and name:
        data = json.dumps(_sample(made["components"]["schemas"][name]), ensure_ascii=False)
    return Operation(
        key=one["operationId"],
        method=method.upper(),
        path=path,
        tag=one["tags"][0],
        told=_one_line(told),
        parameters=[row for row in rows if row.place != "header"],
        headers=[row for row in rows if row.place == "header"],
        body=name,
        answers=list(_answers(one["responses"])),
        data=data,
    )


def _parameters(made: Any, those: Any) -> Iterator[Row]:
    for given in those:
        one = given
        if "$ref" in given:
            one = made["components"]["parameters"][given["$ref"].rpartition("/")[2]]
        yield Row(
            name=one["name"],
            kind=kind(one["schema"]),
            told=_one_line(one.get("description", "")),
            place=one["in"],
            needed=bool(one.get("required")),
        )


def _answers(responses: Any) -> Iterator[Answer]:
    for status, response in sorted(responses.items()):
        if "$ref" in response or status == "304":  # those that every operation has
            continue
        contents = response.get("content", {}).items()
        for media, content in contents:
            schema = content.get("schema", {}) if "json" in media else {}
            words = kind(schema) if schema else media
            name = words.rpartition(" ")[2]
            yield Answer(status, words, name if name in document()["components"]["schemas"] else "")
        if not contents:
            yield Answer(status, "", "")


def _form(name: str, schema: Any) -> Form:
    needed = set(schema.get("required", []))
    rows = [
        Row(
            name=field,
            kind=kind(value),
            told=_one_line(value.get("description", "")),
            needed=field in needed and not value.get("readOnly"),
            answered=bool(value.get("readOnly")),
        )
        for field, value in schema.get("properties", {}).items()
    ]
    words = "" if rows else kind(schema)
    return Form(name, _one_line(schema.get("description", "")), rows, words)


def _with_inner(names: set[str]) -> set[str]:
    """Those forms and what their fields are of, and so on."""
    inner = {row.form for name in names for row in forms()[name].rows} - names - {""}
    return _with_inner(names | inner) if inner else names


def _sample(schema: Any) -> dict[str, Any]:
    """The least that a body must have, or its first field."""
    fields = {
        field: value
        for field, value in schema.get("properties", {}).items()
        if not value.get("readOnly")
    }
    chosen = [one for one in schema.get("required", []) if one in fields] or list(fields)[:1]
    return {one: _value(fields[one]) for one in chosen}


def _value(schema: Any) -> Any:
    if "enum" in schema:
        return schema["enum"][0]
    word = schema.get("type")
    return INSTEAD.get(word, "…") if isinstance(word, str) else "…"


def _quoted(word: str) -> str:
    """As a shell takes it; a variable stays one."""
    return f'"{word}"' if "$" in word else shlex.quote(word)


def _one_line(text: str) -> str:
    return " ".join(text.replace("``", "`").split())
