"""What schemathesis makes of the OpenAPI document is answered as the document says.

A few requests for each operation by an administrator; ``SCHEMATHESIS_EXAMPLES=200`` makes as many,
``SCHEMATHESIS_AS`` names who asks instead, as ``matrix.Who`` has it: VIEWER, say, or ANYONE, who
has no token.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, transaction

from tests.ciserver.access.matrix import Who
from tests.ciserver.access.test_matrix import quietly, world  # noqa: F401 - fixtures

pytestmark = pytest.mark.django_db

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "2"))
ASKS = Who[os.environ.get("SCHEMATHESIS_AS", "ADMIN")]
AWAY = 503  # no fault: there is neither Redis nor a worker here
# Parameters of paths whose value is that of another name in ``world``.
NAMES = {
    "/releases/{number}": ("number", "release"),
    "/secrets/{name}/": ("name", "secret"),
    "/teams/{name}/": ("name", "team"),
    "/webhooks/{id}/": ("id", "webhook"),
}


@pytest.fixture(autouse=True)
def one_connection() -> Iterator[None]:
    """A request's end would close the connection that the test's transaction is in."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@pytest.fixture
def document() -> dict[str, Any]:
    from drf_spectacular.generators import SchemaGenerator

    made: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
    return made


def test_the_document_is_answered_as_it_says(
    world: dict[str, Any],  # noqa: F811 - the fixture
    document: dict[str, Any],
) -> None:
    import schemathesis  # here: it takes a third of a second of each process that finds tests
    from schemathesis.checks import load_all_checks

    load_all_checks()
    headers = _headers(world)
    schema = schemathesis.openapi.from_dict(document)
    schema.app = WSGIHandler()
    wrong: dict[str, str] = {}
    for found in schema.get_all_operations():
        operation = found.ok()
        if _never_ends(operation):
            continue
        try:
            _try(operation, world, headers)
        except (Exception, BaseExceptionGroup) as error:
            wrong[operation.label] = _told(error)
    assert not wrong, "\n".join(f"{label}: {told}" for label, told in wrong.items())


def _never_ends(operation: Any) -> bool:
    """Streams are tried in ``test_events.py`` and ``test_day_two.py``, by readers that stop."""
    answers = operation.definition.raw["responses"].values()
    return any("text/event-stream" in answer.get("content", {}) for answer in answers)


def _headers(world: dict[str, Any]) -> dict[str, str]:  # noqa: F811 - its value
    from ciserver.accounts.models import Scope, Token

    if ASKS == Who.ANYONE:
        return {}
    _, text = Token.make(user=world["people"][ASKS], name="fuzz", scope=Scope("write"))
    return {"Authorization": f"Bearer {text}"}


def _try(operation: Any, world: dict[str, Any], headers: dict[str, str]) -> None:  # noqa: F811
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    as_documented = [
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_headers_conformance,
        checks.response_schema_conformance,
    ]

    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(), known=hypothesis.strategies.booleans())
    @hypothesis.example(case=operation.Case(), known=True)
    def ask(case: Any, known: bool) -> None:
        if known:
            case.path_parameters = {**(case.path_parameters or {}), **_known(operation, world)}
        elif case.path_parameters is None:
            case.path_parameters = {}
        with transaction.atomic():
            response = case.call(headers=headers)
            transaction.set_rollback(True)
        failed = [] if response.status_code == AWAY else [not_a_server_error]
        case.validate_response(response, checks=[*failed, *as_documented])

    ask()


def _known(operation: Any, world: dict[str, Any]) -> dict[str, Any]:  # noqa: F811 - its value
    values = {key: value for key, value in world.items() if key not in {"people", "pk"}}
    kind = operation.path.split("/")[3]
    values["id"] = world["pk"].get("cancel" if "/cancel" in operation.path else kind, 1)
    for path, (name, other) in NAMES.items():
        if path in operation.path:
            values[name] = world[other]
    wanted = {parameter.name for parameter in operation.path_parameters}
    return {name: values[name] for name in wanted if name in values}


def _told(error: BaseException) -> str:
    within = getattr(error, "exceptions", None)
    return " | ".join(_told(each) for each in within) if within else f"{error!r:.600}"
