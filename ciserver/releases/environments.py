"""Changing an environment: its settings, policy, people and hosts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.db import transaction

from ciserver.accounts.models import AuditEntry, User
from ciserver.lib.problems import Refused
from ciserver.projects.models import Role
from ciserver.projects.services import require
from ciserver.releases import domains, policy
from ciserver.releases.models import Environment
from ciserver.releases.services import usable_hosts
from ciserver.releases.targets.spec import wrong_health, wrong_variable

# Field -> least and most. Bounds keep a slip of the finger from becoming a deployment.
NUMBERS: dict[str, tuple[float, float]] = {
    "health_timeout": (1, 3600),
    "health_passes": (1, 50),
    "stable_seconds": (0, 3600),
    "batch_size": (1, 16),
    "memory_mib": (16, 1024 * 1024),
    "cpus": (0.05, 512),
    "pids": (8, 100_000),
    "approvals": (0, 20),
    "approval_hours": (1, 24 * 30),
    "soak_minutes": (0, 60 * 24 * 30),
}
PEOPLE = ("promoters", "approvers")


@transaction.atomic
def change(*, environment: Environment, user: Any, **wanted: Any) -> Environment:
    """Set what ``wanted`` names: the fields of NUMBERS, ``auto``, ``stop_on_failure``,
    ``promote_role`` (a Role), ``variables`` (all of them), ``health``, ``promoters`` and
    ``approvers`` (user names), ``hosts`` (names), ``domains`` (names) and ``https``.

    Domains hold at once, all else from the next deployment. Approvals of what waits here are
    void if it changes what they were given for. Raises Refused.
    """
    require(user, environment.project, Role.MAINTAINER)
    row = Environment.objects.select_for_update().get(pk=environment.pk)
    before = _shown(row)
    _check_numbers(wanted)
    if "variables" in wanted:
        _check_variables(wanted["variables"])
    if wrong := wrong_health(wanted.get("health", "")):
        hint = "Write 'http /PATH', 'tcp' or 'exec COMMAND', or nothing for the image's own."
        raise Refused(wrong, code="environment.health", hint=hint, status=400)
    if "https" in wanted:
        domains.check_mode(wanted["https"])
    if "domains" in wanted:
        domains.put(row, wanted.pop("domains"))
    people = {name: _members(row, wanted.pop(name)) for name in PEOPLE if name in wanted}
    hosts = usable_hosts(user=user, names=_new_hosts(row, wanted)) if "hosts" in wanted else []
    names = set(wanted.pop("hosts", []))
    if names:
        kept = row.hosts.filter(name__in=names)
        row.hosts.set([*kept, *hosts])
    for field, value in wanted.items():
        setattr(row, field, value)
    for field, users in people.items():
        getattr(row, field).set(users)
    if len(policy.approvers(row)) < row.approvals:
        raise Refused(
            f"{row.approvals} approvals need as many approvers, and {len(policy.approvers(row))}"
            " are named.",
            code="environment.approvers",
            hint="Name more, or ask for fewer approvals.",
            status=400,
        )
    row.save(update_fields=[*wanted])
    after = _shown(row)
    changed = {key: [before[key], after[key]] for key in after if before[key] != after[key]}
    if changed.keys() & {"domains", "https", "hosts"}:
        domains.wake(row)
    if changed:
        AuditEntry.record(
            actor=user.get_username(), action="environment.change", target=str(row), **changed
        )
    return row


def _shown(row: Environment) -> dict[str, Any]:
    """All that ``change`` can change, as JSON for the audit."""
    return policy.configuration_of(row) | {
        "auto": row.auto,
        "domains": list(row.domains.values_list("name", flat=True)),
        "https": row.https,
        "batch_size": row.batch_size,
        "stop_on_failure": row.stop_on_failure,
        "promote_role": row.promote_role,
        "approvals": row.approvals,
        "approval_hours": row.approval_hours,
        "soak_minutes": row.soak_minutes,
        "promoters": sorted(row.promoters.values_list("username", flat=True)),
        "approvers": sorted(row.approvers.values_list("username", flat=True)),
    }


def _new_hosts(row: Environment, wanted: Mapping[str, Any]) -> list[str]:
    """Hosts that it has already need nobody's leave."""
    names = list(dict.fromkeys(wanted["hosts"]))
    if not names:
        raise Refused(
            f"{row.name} needs a host.", code="environment.hosts", hint="Name one.", status=400
        )
    there = set(row.hosts.values_list("name", flat=True))
    return [name for name in names if name not in there]


def _members(row: Environment, names: Iterable[str]) -> list[User]:
    """The members of the project of these names; an administrator counts as one."""
    found = []
    for name in dict.fromkeys(names):
        user = User.objects.filter(username=name, is_active=True).first()
        if user is None or not row.project.allows(user, Role.VIEWER):
            raise Refused(
                f"{name!r} is not a member of {row.project}.",
                code="environment.people",
                hint="Only members can promote or approve. Make them one first.",
                status=400,
            )
        found.append(user)
    return found


def _check_numbers(wanted: Mapping[str, Any]) -> None:
    for field, (least, most) in NUMBERS.items():
        if field in wanted and not least <= wanted[field] <= most:
            words = field.replace("_", " ")
            raise Refused(
                f"{words} must be between {least:g} and {most:g}.",
                code="environment.number",
                status=400,
            )


def _check_variables(variables: Mapping[str, str]) -> None:
    if wrong := wrong_variable(variables):
        hint = "Use a name of letters, digits and '_', and a value of one line, base64 perhaps."
        raise Refused(wrong, code="environment.variable", hint=hint, status=400)
