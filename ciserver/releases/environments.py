"""Changing an environment: its settings, policy, people and hosts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction

from ciserver.accounts.models import AuditEntry, User
from ciserver.lib.problems import Refused
from ciserver.projects.models import Role
from ciserver.projects.services import require
from ciserver.releases import addresses, domains, policy
from ciserver.releases.models import Environment
from ciserver.releases.services import LOCAL, is_free, require_standing, usable_hosts
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
    "port": (1, 65535),
}
PEOPLE = ("promoters", "approvers")


@transaction.atomic
def change(*, environment: Environment, user: Any, **wanted: Any) -> Environment:
    """Set what ``wanted`` names: the fields of NUMBERS, ``auto``, ``stop_on_failure``,
    ``promote_role`` (a Role), ``variables`` (all of them), ``health``, ``promoters`` and
    ``approvers`` (user names), ``hosts`` (names), ``domains`` (names) and ``https``.

    Domains and the port hold at once, all else from the next deployment. Approvals of what waits
    here are void if it changes what they were given for.

    What lets more through needs the role owner, and does not hold for what that owner asks for
    until another one calls with ``confirm_policy``: see ``policy.demanded``. Raises Refused.
    """
    require(user, environment.project, Role.MAINTAINER)
    row = Environment.objects.select_for_update().get(pk=environment.pk)
    require_standing(row)
    before = _shown(row)
    if wanted.pop("confirm_policy", False):
        _confirm(row, user)
    _check_numbers(wanted)
    if "variables" in wanted:
        _check_variables(wanted["variables"])
    if wrong := wrong_health(wanted.get("health", "")):
        hint = "Write 'http /PATH', 'tcp' or 'exec COMMAND', or nothing for the image's own."
        raise Refused(wrong, code="environment.health", hint=hint, status=400)
    if "https" in wanted:
        domains.check_mode(wanted["https"])
    given_up = "domains" in wanted and domains.put(row, user, wanted.pop("domains"))
    if "port" in wanted:
        given_up |= _put_on_port(row, user, wanted.pop("port"))
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
    after = _shown(row)
    weakened = _weakened(before, after)
    if weakened:
        _require_owner(row, user, "weakens the policy of")
    _keep(row, user.get_username(), before)
    row.save(update_fields=[*wanted, "kept_policy"])
    changed = {key: [before[key], after[key]] for key in after if before[key] != after[key]}
    if changed.keys() & {"domains", "https", "hosts", "port"}:
        domains.wake(row)
    if changed:
        less = weakened or given_up
        action = "environment.weaken" if less else "environment.change"
        AuditEntry.record(actor=user.get_username(), action=action, target=str(row), **changed)
    return row


def _put_on_port(row: Environment, user: Any, port: int) -> bool:
    """Let ``row``, with its policy as it was, answer on ``port``; whether it gave up one that its
    policy guarded. Raises Refused."""
    if port == row.port:
        return False
    ours = settings.GANTRY.deploy_ports
    if port not in ours and not user.is_superuser:
        raise Refused(
            f"Port {port} is not one of those that environments share.",
            code="environment.port",
            hint=f"Take one from {ours.start} to {ours.stop - 1}, or ask an administrator.",
            status=403,
        )
    here = row.hosts.filter(name=LOCAL).exists()
    other = Environment.objects.filter(port=port).exists()
    if other or port in _edge_ports() or (here and not is_free(port)):
        raise _port_taken(port)
    guarded = addresses.give_up(row, user, [str(row.port)] if row.port else [])
    try:
        with transaction.atomic():
            Environment.objects.filter(pk=row.pk).update(port=port)
    except IntegrityError:  # somebody was first, this very moment
        raise _port_taken(port) from None
    row.port = port
    addresses.take(row, user, [str(port)])
    return guarded


def _edge_ports() -> set[int]:
    """Where host names are served on each host."""
    return {settings.GANTRY.http_port, settings.GANTRY.https_port}


def _port_taken(port: int) -> Refused:
    return Refused(
        f"Port {port} is taken.",
        code="environment.port-taken",
        hint="Take another, or free it first.",
    )


def _weakened(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The names of what was changed so that more gets through."""
    found = [key for key in (*policy.KEPT, "promote_role") if after[key] < before[key]]
    found += ["promoters"] if set(after["promoters"]) - set(before["promoters"]) else []
    if before["approvals"]:
        found += ["approvers"] if set(after["approvers"]) - set(before["approvers"]) else []
        # Nobody asks for what goes by itself, so everybody named may approve it.
        found += ["auto"] if after["auto"] and not before["auto"] else []
    return found


def _keep(row: Environment, name: str, before: Mapping[str, Any]) -> None:
    """Note what ``name`` lowered, and forget what is as strict again."""
    own = row.kept_policy.get(name, {})
    lowered = {key: max(own.get(key, 0), before[key]) for key in policy.KEPT}
    kept = row.kept_policy | {name: own | lowered}
    higher = {
        who: {k: v for k, v in one.items() if k == policy.SKIPPED or v > getattr(row, k)}
        for who, one in kept.items()
    }
    row.kept_policy = {who: one for who, one in higher.items() if one}


def _confirm(row: Environment, user: Any) -> None:
    """What others weakened holds for them too from now on."""
    _require_owner(row, user, "confirms what weakens the policy of")
    name = user.get_username()
    others = {who: one for who, one in row.kept_policy.items() if who != name}
    if row.kept_policy and not others:
        raise Refused(
            "Who weakens a policy cannot confirm it.",
            code="environment.own",
            hint="Ask another owner of the project, or an administrator.",
            status=403,
        )
    row.kept_policy = {who: one for who, one in row.kept_policy.items() if who == name}
    if others:
        AuditEntry.record(actor=name, action="environment.confirm", target=str(row), of=others)


def _require_owner(row: Environment, user: Any, does: str) -> None:
    if not row.project.allows(user, Role.OWNER):
        raise Refused(
            f"Only an owner of {row.project} {does} {row.name}: its approvals, soak time, who"
            " promotes or approves.",
            code="role",
            hint="Ask one. To ask for more is a maintainer's right.",
            status=403,
        )


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
                hint="Give a number in between.",
                status=400,
            )


def _check_variables(variables: Mapping[str, str]) -> None:
    if wrong := wrong_variable(variables):
        hint = "Use a name of letters, digits and '_', and a value of one line, base64 perhaps."
        raise Refused(wrong, code="environment.variable", hint=hint, status=400)
