"""The OpenAPI document holds the whole API, and is one by the standard's own schema."""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.test import Client
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema

from tests.ciserver.access.routes import routes
from tests.ciserver.access.test_matrix import _renamed

REFERENCE = Path(__file__).resolve().parents[3] / "docs" / "api_reference.py"


@cache
def _document() -> Any:
    return SchemaGenerator().get_schema(request=None, public=True)


def test_making_it_warns_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """A warning means that a form has another's fields, or a field another's values."""
    _document.__wrapped__()
    assert capsys.readouterr().err == ""


def test_it_is_openapi_3_1() -> None:
    document = _document()
    assert document["openapi"].startswith("3.1.")
    validate_schema(document)


def test_it_is_written_once_in_each_form_and_then_kept(client: Client, db: None) -> None:
    def asked(accept: str) -> bytes:
        return bytes(client.get("/api/schema/", HTTP_ACCEPT=accept).content)

    forms = [asked(f"application/vnd.oai.openapi{suffix}") for suffix in ("", "+json") * 2]
    assert forms[:2] == forms[2:]
    assert yaml.safe_load(forms[0]) == json.loads(forms[1]) == json.loads(json.dumps(_document()))
    assert b"Ask for application/json" in asked("text/css"), "a refusal is no document"


def test_each_route_of_the_api_is_in_it() -> None:
    told = {_names_alike(path) for path in _document()["paths"]}
    there = {
        _names_alike(_renamed(route.path))
        for route in routes()
        if route.of_api and not _is_no_part(route.path)
    }
    assert there - told == set()


def _is_no_part(path: str) -> bool:
    """The document itself, its page, and the list of lists."""
    pages = path.startswith("/api/docs/")
    return pages or path in {"/api/schema/", "/api/v1/"} or "format" in path


def _names_alike(path: str) -> str:
    return "/".join("{}" if part.startswith("{") else part for part in path.split("/"))


def test_the_reference_is_what_the_document_says() -> None:
    spec = importlib.util.spec_from_file_location("api_reference", REFERENCE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    said = REFERENCE.with_name("api-reference.md").read_text()
    made = module.reference(module.document())
    assert said == made, "Write it again: .venv/bin/python docs/api_reference.py"
