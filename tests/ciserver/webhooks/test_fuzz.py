"""Any signed body at all, to each of the seven receivers: never a 5xx, never work for nothing."""

from __future__ import annotations

import copy
import json
import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ciserver.lib.models import OutboxEntry
from ciserver.pipelines.models import Pipeline
from tests.ciserver.webhooks import test_forges, test_pulls
from tests.ciserver.webhooks.conftest import push

EXAMPLES = int(os.environ.get("GANTRY_FUZZ", "20"))  # for each forge and kind
SHA = "a" * 40
PULLS = {name: row[3] for name, row in test_pulls.FORGES.items()}
PUSHES: dict[str, Any] = {"github": push()} | {
    name: row[3] for name, row in test_forges.FORGES.items()
}
EVENTS = {
    "github": ("X-GitHub-Event", "push"),
    "gitlab": ("X-Gitlab-Event", "Push Hook"),
    "gitea": ("X-Gitea-Event", "push"),
    "forgejo": ("X-Forgejo-Event", "push"),
    "bitbucket": ("X-Event-Key", "repo:push"),
    "bitbucket-server": ("X-Event-Key", "repo:refs_changed"),
    "generic": ("X-Gantry-Event", "push"),
}
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=True)
    | st.text(max_size=40)
    | st.sampled_from([SHA, "0" * 40, "refs/heads/main", "\ud800", "a\0b", "-x", 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def secret(project: Any) -> str:
    return str(project.renew_hook_secret().reveal())


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Django logs each 4xx; hundreds of them would hide what matters."""
    logging.getLogger("django.request").setLevel(logging.ERROR)
    yield
    logging.getLogger("django.request").setLevel(logging.NOTSET)


def paths(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside of ``value``."""
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    for key, below in inner:
        yield (*above, key)
        yield from paths(below, (*above, key))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    value = copy.deepcopy(value)
    place = value
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = new
    return value


@pytest.mark.parametrize("forge", PULLS)
@pytest.mark.parametrize("kind", ["push", "pull request"])
def test_no_change_of_a_real_body_is_answered_by_a_5xx(
    forge: str, kind: str, secret: str, project: Any
) -> None:
    body = PUSHES[forge] if kind == "push" else PULLS[forge](SHA, test_pulls.FORK)
    ways = list(paths(body))

    @fuzz
    @given(st.sampled_from(ways), anything, st.uuids())
    def run(path: tuple[Any, ...], new: Any, delivery: Any) -> None:
        answer = _tell(forge, kind, secret, changed(body, path, new), str(delivery))
        assert answer.status_code in {200, 202, 400}, answer.content
        if kind == "pull request":
            # Whatever a fork's request says, it does not become work by itself, unless it now
            # says of itself that it is of the project's own repository.
            assert (
                answer.status_code != 202
                or "repo" in str(path).lower() + str(new)
                or ("project_id" in str(path))
            )

    run()
    assert not Pipeline.objects.exists()


@pytest.mark.parametrize("forge", PULLS)
def test_no_body_at_all_is_answered_by_a_5xx(forge: str, secret: str, project: Any) -> None:
    @fuzz
    @given(anything, st.uuids())
    def run(body: Any, delivery: Any) -> None:
        for kind in ("push", "pull request"):
            answer = _tell(forge, kind, secret, body, str(delivery))
            assert answer.status_code in {200, 202, 400}, answer.content

    run()
    assert not OutboxEntry.objects.exists()


def _tell(forge: str, kind: str, secret: str, body: Any, delivery: str) -> Any:
    headers, name, prefix, *_ = test_pulls.FORGES[forge]
    raw = json.dumps(body).encode()
    mac = test_pulls.hmac.new(secret.encode(), raw, test_pulls.hashlib.sha256).hexdigest()
    sent = {key: delivery if value == "1" else value for key, value in headers.items()}
    sent[name] = secret if prefix is None else prefix + mac
    if kind == "push":
        header, event = EVENTS[forge]
        sent[header] = event
    client = Client(raise_request_exception=False)
    return client.post(f"/hooks/{forge}/hello/", raw, "application/json", headers=sent)
