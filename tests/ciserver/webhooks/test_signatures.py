"""Secrets are compared in constant time, and what is well signed never turns a hook off."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import ciserver.webhooks
from ciserver.webhooks.models import Delivery
from tests.ciserver.webhooks.conftest import Post

FOLDER = Path(ciserver.webhooks.__file__).parent
SECRET = ("signature", "token", "mac", "secret", "digest", "given")


def test_nothing_that_is_secret_is_compared_by_equality() -> None:
    found = []
    for path in [*FOLDER.glob("forges/*.py"), FOLDER / "intake.py", FOLDER / "asgi.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare) and any(
                isinstance(operator, ast.Eq | ast.NotEq) for operator in node.ops
            ):
                names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
                if any(word in name.lower() for name in names for word in SECRET):
                    found.append(f"{path.name}:{node.lineno}")
    assert found == []


def test_every_forge_that_checks_a_secret_compares_in_constant_time() -> None:
    for path in FOLDER.glob("forges/[a-z]*.py"):
        text = path.read_text()
        if "def verify" in text:
            words = ("compare_digest", "signed(", "verify = ", ".verify(")
            assert any(word in text for word in words), path.name


@pytest.mark.parametrize("event", ["ping", "diagnostics:ping", "star", "an event of next year"])
def test_five_hundred_events_of_no_interest_are_all_answered_2xx(post: Post, event: str) -> None:
    answers = [
        post({"number": number}, event=event, delivery=f"d-{number}").status_code
        for number in range(125)
    ]
    assert set(answers) == {200}
    assert Delivery.objects.filter(verdict="ignored").count() == 125
