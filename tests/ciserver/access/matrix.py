"""The permission matrix: who is the least that may ask this route by this method.

Read by test_matrix.py, which asks each as everybody. A route of the service that has no row here
fails the test: decide who may, write it down.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple


class Who(IntEnum):
    """Each may do what those before may. STRANGER owns another project and is signed in."""

    ANYONE = 0
    STRANGER = 1
    VIEWER = 2
    DEVELOPER = 3
    MAINTAINER = 4
    OWNER = 5
    ADMIN = 6


class Ask(NamedTuple):
    """One method of a route: the least that may, and the body that gets to the question."""

    method: str
    least: Who
    body: dict[str, Any] = {}


ANYONE, STRANGER, VIEWER, DEVELOPER, MAINTAINER, OWNER, ADMIN = Who


def get(least: Who) -> Ask:
    return Ask("GET", least)


def post(least: Who, **body: Any) -> Ask:
    return Ask("POST", least, body)


# Lists and searches are for everybody who is signed in: they hold what the caller may see, which
# test_matrix.py checks apart. A 404 stands for "there is no such thing, or you may not see it".
MATRIX: dict[str, tuple[Ask, ...]] = {
    "/healthz": (get(ANYONE),),
    "/readyz": (get(ANYONE),),
    # --- the API ---------------------------------------------------------------------------------
    "/api/schema/": (get(ANYONE),),
    "/api/docs/": (get(ANYONE),),
    "/api/docs/{tag}/": (get(ANYONE),),
    "/api/v1/": (get(STRANGER),),
    "/api/v1/me/": (get(STRANGER),),
    "/api/v1/me/sessions/": (get(STRANGER),),
    "/api/v1/users/": (get(ADMIN), post(ADMIN, username="another")),
    "/api/v1/users/{username}/": (get(ADMIN), Ask("PATCH", ADMIN, {"is_active": False})),
    "/api/v1/users/{username}/reset-password/": (post(ADMIN),),
    "/api/v1/teams/": (get(STRANGER), post(ADMIN, name="another")),
    "/api/v1/teams/{team}/": (get(ADMIN), Ask("DELETE", ADMIN)),
    "/api/v1/teams/{team}/members/{username}/": (Ask("PUT", ADMIN), Ask("DELETE", ADMIN)),
    "/api/v1/projects/{slug}/members/": (get(VIEWER),),
    "/api/v1/projects/{slug}/members/{username}/": (
        Ask("PUT", OWNER, {"role": "developer"}),
        Ask("DELETE", OWNER),
    ),
    "/api/v1/projects/{slug}/teams/{team}/": (
        Ask("PUT", OWNER, {"role": "developer"}),
        Ask("DELETE", OWNER),
    ),
    "/api/v1/projects/{slug}/hook-test/": (post(MAINTAINER),),
    "/api/v1/search/": (get(STRANGER),),
    "/api/v1/images/": (get(STRANGER),),
    "/api/v1/images/{pk}/": (get(VIEWER),),
    "/api/v1/images/{pk}/compare/{other}/": (get(VIEWER),),
    "/api/v1/lint/": (post(STRANGER, text="tests: {}"),),
    "/api/v1/gantry.schema.json": (get(ANYONE),),
    "/api/v1/projects/{slug}/webhooks/": (
        get(MAINTAINER),
        post(MAINTAINER, url="https://1.1.1.1/"),
    ),
    "/api/v1/projects/{slug}/webhooks/{webhook}/": (
        get(MAINTAINER),
        Ask("PATCH", MAINTAINER, {"active": False}),
        Ask("DELETE", MAINTAINER),
    ),
    "/api/v1/projects/{slug}/webhooks/{webhook}/rotate/": (post(MAINTAINER),),
    "/api/v1/projects/{slug}/webhooks/{webhook}/test/": (post(MAINTAINER),),
    "/api/v1/projects/{slug}/webhooks/{webhook}/messages/": (get(MAINTAINER),),
    "/api/v1/projects/{slug}/webhooks/{webhook}/messages/{message}/redeliver/": (post(MAINTAINER),),
    "/api/v1/http_sd/": (get(STRANGER),),
    "/api/v1/projects/": (get(STRANGER), post(STRANGER, slug="new-one")),
    "/api/v1/projects/{slug}/": (
        get(VIEWER),
        Ask("PATCH", MAINTAINER, {"description": "Another"}),
        Ask("DELETE", OWNER),
    ),
    "/api/v1/projects/{slug}/archive/": (post(OWNER),),
    "/api/v1/projects/{slug}/restore/": (post(OWNER),),
    "/api/v1/projects/{slug}/repository/": (get(VIEWER), Ask("PATCH", MAINTAINER, {})),
    "/api/v1/projects/{slug}/repository/access/": (get(VIEWER),),
    "/api/v1/projects/{slug}/repository/access/key/": (post(MAINTAINER),),
    "/api/v1/projects/{slug}/repository/access/login/": (
        Ask("PUT", MAINTAINER, {"username": "bot", "password": "a-password-1"}),
        Ask("DELETE", MAINTAINER),
    ),
    "/api/v1/projects/{slug}/repository/access/host-keys/": (Ask("DELETE", MAINTAINER),),
    "/api/v1/projects/{slug}/statuses/": (
        get(VIEWER),
        Ask("PUT", MAINTAINER, {"forge": "gitea", "repository": "a/b", "token": "a-token-1"}),
        Ask("DELETE", MAINTAINER),
    ),
    "/api/v1/projects/{slug}/hook-secret/": (
        get(VIEWER),
        post(MAINTAINER),
        Ask("DELETE", MAINTAINER),
    ),
    "/api/v1/projects/{slug}/secrets/": (get(VIEWER),),
    "/api/v1/projects/{slug}/secrets/{secret}/": (
        Ask("PUT", MAINTAINER, {"value": "a-value-long-enough"}),
        Ask("DELETE", MAINTAINER),
    ),
    "/api/v1/pipelines/": (get(STRANGER), post(DEVELOPER, project="hello")),
    "/api/v1/pipelines/{pk}/": (get(VIEWER),),
    "/api/v1/pipelines/{pk}/cancel/": (post(DEVELOPER),),
    "/api/v1/pipelines/{pk}/run-again/": (post(DEVELOPER),),
    "/api/v1/jobs/{pk}/lines/": (get(VIEWER),),
    "/api/v1/jobs/{pk}/log/": (get(VIEWER),),
    "/api/v1/jobs/{pk}/search/": (get(VIEWER),),
    "/api/v1/jobs/{pk}/first-error/": (get(VIEWER),),
    "/api/v1/pipelines/{pk}/coverage/": (get(VIEWER),),
    "/api/v1/artifacts/{artifact}/": (get(VIEWER),),
    "/api/v1/inspections/": (post(MAINTAINER, job="{job_pk}", command=["ls"]),),
    "/api/v1/inspections/{pk}/": (get(MAINTAINER),),
    "/api/v1/pull-requests/": (get(STRANGER),),
    "/api/v1/pull-requests/{pk}/": (get(VIEWER),),
    "/api/v1/pull-requests/{pk}/approve/": (post(MAINTAINER, sha="1" * 40),),
    "/api/v1/schedules/": (get(STRANGER),),
    "/api/v1/cases/": (get(STRANGER),),
    "/api/v1/releases/": (get(STRANGER),),
    "/api/v1/releases/{pk}/": (get(VIEWER),),
    "/api/v1/releases/{pk}/preview/": (get(VIEWER),),
    "/api/v1/releases/{pk}/promote/": (post(MAINTAINER, environment="prod"),),
    "/api/v1/releases/{pk}/roll-back/": (post(MAINTAINER, environment="prod"),),
    "/api/v1/environments/": (
        get(STRANGER),
        post(MAINTAINER, project="hello", name="late", position=9, hosts=[]),
    ),
    "/api/v1/environments/{pk}/": (
        get(VIEWER),
        Ask("PATCH", MAINTAINER, {"soak_minutes": 1}),
        Ask("DELETE", OWNER),
    ),
    "/api/v1/environments/{pk}/move/": (post(MAINTAINER, to="local"),),
    "/api/v1/environments/{pk}/commands/": (post(VIEWER, verb="ps"),),
    "/api/v1/commands/{pk}/": (get(MAINTAINER),),
    "/api/v1/commands/{pk}/input/": (post(MAINTAINER),),
    "/api/v1/commands/{pk}/stream/": (get(MAINTAINER),),
    "/api/v1/environments/{pk}/container/": (get(VIEWER),),
    "/api/v1/environments/{pk}/secrets/": (get(VIEWER),),
    "/api/v1/environments/{pk}/secrets/{secret}/": (
        Ask("PUT", MAINTAINER, {"value": "a-value-long-enough"}),
        Ask("DELETE", MAINTAINER),
    ),
    "/api/v1/hosts/{pk}/accept-key/": (post(ADMIN, fingerprint="SHA256:x"),),
    "/api/v1/hosts/{pk}/check/": (post(VIEWER),),
    "/api/v1/hosts/{pk}/prepare/": (post(ADMIN),),
    "/api/v1/hosts/": (get(STRANGER), post(ADMIN, name="new-one", address="root@192.0.2.1")),
    "/api/v1/hosts/{pk}/": (get(VIEWER), Ask("DELETE", ADMIN)),
    "/api/v1/deployments/": (get(STRANGER),),
    "/api/v1/deployments/{pk}/": (get(VIEWER),),
    "/api/v1/deployments/{pk}/reject/": (post(MAINTAINER),),
    "/api/v1/deployments/{pk}/cancel/": (post(MAINTAINER),),
    "/api/v1/stops/": (get(STRANGER), post(MAINTAINER, project="hello", reason="Wait")),
    "/api/v1/stops/{pk}/": (get(VIEWER),),
    "/api/v1/stops/{pk}/resume/": (post(MAINTAINER),),
    "/api/v1/audit/": (get(STRANGER),),
    "/api/v1/audit/{pk}/": (get(MAINTAINER),),
    "/api/v1/tokens/": (get(STRANGER), post(STRANGER, name="another")),
    "/api/v1/deliveries/": (get(STRANGER),),
    "/api/v1/deliveries/{pk}/": (get(VIEWER),),
    "/api/v1/deliveries/{pk}/redeliver/": (post(DEVELOPER),),
    # --- for other tools -------------------------------------------------------------------------
    "/metrics": (get(ADMIN),),
    "/cctray.xml": (get(STRANGER),),
    # --- pages -----------------------------------------------------------------------------------
    "/": (get(STRANGER),),
    "/new-project/": (get(STRANGER), post(STRANGER, slug="new-one")),
    "/tokens/": (get(STRANGER), post(STRANGER)),
    "/account/": (get(STRANGER), post(STRANGER)),
    "/users/": (get(ADMIN), post(ADMIN, username="another")),
    "/users/{username}/": (get(ADMIN),),
    "/users/{username}/change/": (post(ADMIN, do="reset"),),
    "/teams/": (get(STRANGER), post(ADMIN, name="another")),
    "/teams/{team}/": (get(ADMIN),),
    "/teams/{team}/change/": (post(ADMIN, do="delete"),),
    "/projects/{slug}/members/": (get(VIEWER), post(OWNER, kind="person", name="dora", role=20)),
    "/projects/{slug}/members/remove/": (post(OWNER, kind="person", name="dora"),),
    "/audit/": (get(ADMIN),),
    "/projects/{slug}/": (get(VIEWER),),
    "/projects/{slug}/audit/": (get(MAINTAINER),),
    "/projects/{slug}/hook-secret/": (post(MAINTAINER),),
    "/projects/{slug}/repository/": (
        get(VIEWER),
        post(
            MAINTAINER,
            default_branch="main",
            push_role=20,
            max_push_mib=100,
            max_push_refs=100,
        ),
    ),
    "/projects/{slug}/repository/key/": (post(MAINTAINER),),
    "/projects/{slug}/repository/login/": (post(MAINTAINER),),
    "/projects/{slug}/repository/forget/": (post(MAINTAINER),),
    "/projects/{slug}/statuses/": (
        get(VIEWER),
        post(MAINTAINER, forge="gitea", repository="a/b", token="a-token-1"),
    ),
    "/projects/{slug}/statuses/remove/": (post(MAINTAINER),),
    "/projects/{slug}/pulls/{pk}/approve/": (post(MAINTAINER),),
    "/projects/{slug}/building/": (get(VIEWER), post(MAINTAINER, concurrency=2)),
    "/projects/{slug}/secrets/": (
        get(VIEWER),
        post(MAINTAINER, name="OTHER", value="a-value-long-enough"),
    ),
    "/projects/{slug}/secrets/remove/": (post(MAINTAINER, name="KEY"),),
    "/projects/{slug}/tests/": (get(VIEWER),),
    "/projects/{slug}/pipelines/next/": (get(VIEWER),),
    "/projects/{slug}/pipelines/next/events": (get(VIEWER),),
    "/projects/{slug}/hook-test/": (post(MAINTAINER),),
    "/projects/{slug}/images/": (get(VIEWER),),
    "/projects/{slug}/images/compare/": (get(VIEWER),),
    "/projects/{slug}/images/{digest}/": (get(VIEWER),),
    "/registry/": (get(STRANGER),),
    "/search/": (get(STRANGER),),
    "/projects/{slug}/pipelines/": (get(VIEWER),),
    "/projects/{slug}/releases/": (get(VIEWER),),
    "/projects/{slug}/environments/{name}/deployments/": (get(VIEWER),),
    "/projects/{slug}/pipelines/{number}/": (get(VIEWER),),
    "/projects/{slug}/pipelines/{number}/events": (get(VIEWER),),
    "/projects/{slug}/pipelines/{number}/jobs/{job}/log": (get(VIEWER),),
    "/projects/{slug}/pipelines/{number}/jobs/{job}/lines": (get(VIEWER),),
    "/projects/{slug}/pipelines/{number}/artifacts/{artifact}": (get(VIEWER),),
    "/projects/{slug}/pipelines/{number}/coverage/": (get(VIEWER),),
    "/projects/{slug}/pipelines/{number}/cancel/": (post(DEVELOPER),),
    "/projects/{slug}/pipelines/{number}/run-again/": (post(DEVELOPER),),
    "/projects/{slug}/webhooks/": (get(MAINTAINER), post(MAINTAINER)),
    "/projects/{slug}/webhooks/{webhook}/": (post(MAINTAINER, do="test"),),
    "/projects/{slug}/environments/{name}/": (get(VIEWER),),
    "/projects/{slug}/environments/{name}/containers/{verb}/": (get(VIEWER), post(DEVELOPER)),
    "/commands/{pk}/": (get(MAINTAINER),),
    "/projects/{slug}/environments/{name}/edit/": (get(MAINTAINER), post(MAINTAINER)),
    "/projects/{slug}/environments/{name}/secrets/": (
        get(VIEWER),
        post(MAINTAINER, name="OTHER", value="a-value-long-enough"),
    ),
    "/projects/{slug}/environments/{name}/secrets/remove/": (post(MAINTAINER, name="KEY"),),
    "/projects/{slug}/environments/{name}/remove/": (get(OWNER), post(OWNER)),
    "/projects/{slug}/archive/": (get(OWNER), post(OWNER, do="archive")),
    "/projects/{slug}/new-environment/": (get(MAINTAINER), post(MAINTAINER)),
    "/projects/{slug}/releases/{release}/": (get(VIEWER),),
    "/projects/{slug}/releases/{release}/promote/{environment}/": (
        get(VIEWER),
        post(MAINTAINER),
    ),
    "/projects/{slug}/releases/{release}/roll-back/{environment}/": (
        get(VIEWER),
        post(MAINTAINER),
    ),
    "/projects/{slug}/deliveries/": (get(VIEWER),),
    "/projects/{slug}/deliveries/{delivery}/": (get(VIEWER),),
    "/projects/{slug}/deliveries/{delivery}/redeliver/": (post(DEVELOPER),),
    "/hosts/": (get(STRANGER), post(ADMIN, name="new-one", address="root@192.0.2.1")),
    "/hosts/{host}/": (get(VIEWER),),
    "/hosts/{host}/check/": (post(VIEWER),),
    "/hosts/{host}/prepare/": (post(ADMIN),),
    "/hosts/{host}/accept-key/": (post(ADMIN),),
    "/hosts/{host}/remove/": (post(ADMIN),),
    "/deployments/{pk}/reject/": (post(MAINTAINER),),
    "/deployments/{pk}/cancel/": (get(VIEWER), post(MAINTAINER)),
    "/line/stop/": (post(MAINTAINER, project="hello", reason="Wait"),),
    "/line/resume/": (post(MAINTAINER, project="hello"),),
}

# What asks for something else than a role, and the tests that try it.
OTHERWISE: dict[str, str] = {
    "/api/v1/events/": "a stream without end: tests/ciserver/releases/test_events.py",
    "/hooks/{forge}/{slug}/": "a MAC: tests/ciserver/webhooks",
    "/api/v1/registry/token": "grants the scopes that the caller has: tests/ciserver/projects",
    "/api/v1/cases/slowest/": "names a project: tests/ciserver/pages/test_as_the_pages.py",
    "/api/v1/pipelines/inputs/": "needs a commit: tests/ciserver/pages/test_start.py",
    "/projects/{slug}/start/": "needs a commit: tests/ciserver/pages/test_start.py",
    "/api/v1/deployments/{pk}/approve/": "named people: tests/ciserver/releases/test_promotion.py",
    "/deployments/{pk}/approve/": "named people: tests/ciserver/releases/test_promotion.py",
    "/login/": "for everybody: tests/ciserver/pages/test_access.py",
    "/logout/": "ends the caller's own session",
    "/set-password/{uidb64}/{token}/": "a token in it: tests/ciserver/accounts/test_users.py",
    "/account/end-session/": "one's own alone: tests/ciserver/accounts/test_account.py",
    "/api/v1/me/sessions/{name}/": "one's own alone: tests/ciserver/accounts/test_account.py",
    "/api/v1/me/password/": "needs the present one: tests/ciserver/accounts/test_account.py",
    "/api/v1/tokens/{pk}/": "one's own alone: tests/ciserver/accounts/test_tokens.py",
    "/tokens/{pk}/revoke/": "one's own alone: tests/ciserver/pages/test_tokens.py",
    "/projects/{slug}/badge/{key}.svg": "a key in the address: tests/ciserver/pages/test_badge.py",
}
