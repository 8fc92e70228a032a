"""Whatever the API can write, and so a page, a command can: each write names its command."""

from __future__ import annotations

from tests.ciserver.access.audited import AUDITED, NOT_AUDITED
from tests.ciserver.cli.test_whole import COMMANDS

API = "/api/v1/"
OF = "projects/{slug}/"
PLACE = "environments/{pk}/"
DOES: dict[str, tuple[str, ...]] = {
    "POST users/": ("users new",),
    "PATCH users/{username}/": ("users disable", "users enable", "users admin"),
    "POST users/{username}/reset-password/": ("users reset",),
    "POST teams/": ("teams new",),
    "DELETE teams/{team}/": ("teams delete",),
    "PUT teams/{team}/members/{username}/": ("teams add",),
    "DELETE teams/{team}/members/{username}/": ("teams remove",),
    "POST me/password/": ("account password",),
    "DELETE me/sessions/{name}/": ("account end-session",),
    "POST tokens/": ("tokens new",),
    "DELETE tokens/{pk}/": ("tokens revoke",),
    "POST projects/": ("new",),
    f"PATCH {OF}": ("project",),
    f"DELETE {OF}": ("delete",),
    f"POST {OF}archive/": ("archive",),
    f"POST {OF}restore/": ("restore",),
    f"PUT {OF}members/{{username}}/": ("members set",),
    f"DELETE {OF}members/{{username}}/": ("members remove",),
    f"PUT {OF}teams/{{team}}/": ("members set",),
    f"DELETE {OF}teams/{{team}}/": ("members remove",),
    f"POST {OF}hook-test/": ("hook-secret test",),
    f"POST {OF}webhooks/": ("webhooks add",),
    f"PATCH {OF}webhooks/{{webhook}}/": ("webhooks pause", "webhooks resume"),
    f"DELETE {OF}webhooks/{{webhook}}/": ("webhooks remove",),
    f"POST {OF}webhooks/{{webhook}}/rotate/": ("webhooks rotate",),
    f"POST {OF}webhooks/{{webhook}}/test/": ("webhooks test",),
    f"POST {OF}webhooks/{{webhook}}/messages/{{message}}/redeliver/": ("webhooks redeliver",),
    f"PATCH {OF}repository/": ("repository set",),
    f"POST {OF}repository/access/key/": ("repository key",),
    f"PUT {OF}repository/access/login/": ("repository login",),
    f"DELETE {OF}repository/access/login/": ("repository login",),
    f"DELETE {OF}repository/access/host-keys/": ("repository forget-host",),
    f"PUT {OF}statuses/": ("statuses set",),
    f"DELETE {OF}statuses/": ("statuses remove",),
    f"POST {OF}hook-secret/": ("hook-secret renew",),
    f"DELETE {OF}hook-secret/": ("hook-secret end-old",),
    f"PUT {OF}secrets/{{secret}}/": ("secrets set",),
    f"DELETE {OF}secrets/{{secret}}/": ("secrets remove",),
    "POST lint/": ("lint",),
    "POST pipelines/": ("start",),
    "POST pipelines/{pk}/cancel/": ("cancel",),
    "POST pipelines/{pk}/run-again/": ("rerun",),
    "POST inspections/": ("inspect",),
    "POST pull-requests/{pk}/approve/": ("pulls approve",),
    "POST releases/{pk}/promote/": ("promote",),
    "POST releases/{pk}/roll-back/": ("rollback",),
    "POST environments/": ("new-env",),
    f"PATCH {PLACE}": ("env", "policy", "domains"),
    f"DELETE {PLACE}": ("delete",),
    f"POST {PLACE}move/": ("move",),
    f"POST {PLACE}commands/": ("ps", "logs", "exec", "cp", "attach", "stop", "start", "restart"),
    "POST commands/{pk}/input/": ("exec", "cp"),
    f"PUT {PLACE}secrets/{{secret}}/": ("secrets set",),
    f"DELETE {PLACE}secrets/{{secret}}/": ("secrets remove",),
    "POST hosts/": ("hosts add",),
    "DELETE hosts/{pk}/": ("hosts remove",),
    "POST hosts/{pk}/check/": ("hosts check",),
    "POST hosts/{pk}/accept-key/": ("hosts accept-key",),
    "POST hosts/{pk}/prepare/": ("hosts prepare",),
    "POST deployments/{pk}/approve/": ("approve",),
    "POST deployments/{pk}/reject/": ("reject",),
    "POST deployments/{pk}/cancel/": ("cancel",),
    "POST stops/": ("stop-line",),
    "POST stops/{pk}/resume/": ("resume-line",),
    "POST deliveries/{pk}/redeliver/": ("redeliver",),
}
# Options of a command by the field of the API's request that each sends.
FIELDS = {
    "project": {"description", "cancel_superseded", "concurrency"},
    "repository set": {
        "address",
        "default_branch",
        "protect_branch",
        "protect_tag",
        "push_role",
        "max_push_mib",
        "max_push_refs",
    },
}


def test_each_write_of_the_api_has_its_command() -> None:
    writes = {what.replace(API, "") for what in (*AUDITED, *NOT_AUDITED) if f" {API}" in what}
    assert writes - set(DOES) == set(), "Say which command does it."
    assert set(DOES) - writes == set(), "There are no such writes."
    assert {name for names in DOES.values() for name in names} - set(COMMANDS) == set()


def test_each_field_of_a_project_that_a_page_changes_is_an_option() -> None:
    from ciserver.projects.forms import BuildingForm
    from ciserver.repositories.services import RULES

    for command, options in FIELDS.items():
        assert options <= {one.name for one in COMMANDS[command].params}, command
    assert set(BuildingForm.base_fields) == FIELDS["project"]
    assert len(RULES) == len(FIELDS["repository set"])
