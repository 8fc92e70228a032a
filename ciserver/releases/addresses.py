"""Domains and ports, by which people reach an environment: giving one up, taking it elsewhere.

Who could lead production's domain to a place without approvals would need none for what is to be
seen under it. So an environment that asks for approvals or soak time gives up an address only by
the word of an owner, and whoever gave it up has to find somebody else who puts it elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from ciserver.accounts.models import AuditEntry
from ciserver.lib.problems import Refused
from ciserver.projects.models import Role
from ciserver.releases import policy
from ciserver.releases.models import Environment, GivenUp


def give_up(environment: Environment, user: Any, addresses: Iterable[str]) -> bool:
    """``addresses`` lead to ``environment`` no longer, whose policy stands here as it did before
    the change: whether it asked for approvals or soak time. Inside the caller's transaction.
    Raises Refused."""
    gone = list(addresses)
    if not gone:
        return False
    name = user.get_username()
    guarded = policy.is_guarded(policy.demanded(environment, name))
    owns = environment.project.allows(user, Role.OWNER)
    if not policy.may_promote(user, environment) or (guarded and not owns):
        raise _not_theirs(environment, gone, guarded=guarded)
    _note(environment, name, gone)
    return guarded


def give_up_all(environment: Environment, by: str) -> None:
    """``environment`` goes for good, as the user ``by`` asked. Inside the caller's transaction."""
    names = list(environment.domains.values_list("name", flat=True))
    _note(environment, by, [*names, *([str(environment.port)] if environment.port else [])])


def _note(environment: Environment, by: str, gone: Iterable[str]) -> None:
    demanded = policy.demanded(environment, by)
    if not policy.is_guarded(demanded):
        return
    noted = {field: getattr(demanded, field) for field in policy.KEPT}
    noted |= {"environment": environment, "of": str(environment), "by": by, "at": timezone.now()}
    for address in gone:
        GivenUp.objects.update_or_create(address=address, defaults=noted)


def take(environment: Environment, user: Any, addresses: Iterable[str]) -> None:
    """``addresses`` lead to ``environment`` from now on. Inside the caller's transaction, after
    they were put there: a row that others wrote meanwhile is seen then. Raises Refused."""
    rows = GivenUp.objects.select_related("environment__project").filter(address__in=addresses)
    for row in rows:
        if row.environment_id != environment.pk and not _is_free(row):
            _require_another(row, environment, user)
            AuditEntry.record(
                actor=user.get_username(),
                action="environment.take",
                target=str(environment),
                address=row.address,
                of=row.of,
                given_up_by=row.by,
            )
        row.delete()


def held_ports() -> set[int]:
    """Those that no new environment gets by itself."""
    rows = [row for row in GivenUp.objects.all() if row.address.isdecimal() and not _is_free(row)]
    return {int(row.address) for row in rows}


def held(environment: Environment) -> list[GivenUp]:
    """What ``environment`` gave up and who gave it up may not take elsewhere."""
    return [row for row in environment.given_up.all() if not _is_free(row)]


def free_at(row: GivenUp) -> datetime | None:
    """From when on anybody may have it; None while that takes another person's word."""
    return None if row.approvals else row.at + timedelta(minutes=row.soak_minutes)


def _is_free(row: GivenUp) -> bool:
    at = free_at(row)
    return at is not None and at <= timezone.now()


def _require_another(row: GivenUp, environment: Environment, user: Any) -> None:
    """Two people's word, as for a promotion: who gave it up, and an owner or an approver."""
    another, place = user.get_username() != row.by, row.environment
    approves = place is not None and user in policy.approvers(place)
    if another and (approves or environment.project.allows(user, Role.OWNER)):
        return
    # Who does not see that environment is not told its name.
    sees = not another or (place is not None and place.project.allows(user, Role.VIEWER))
    whose = f"{row.of}, which" if sees else "another environment, which"
    asks = "asks" if place else "asked"
    asks += " for approvals" if row.approvals else " for soak time"
    who = ("you" if not another else row.by) if sees else "its owner"
    at = free_at(row)
    later = f" From {at:%Y-%m-%d %H:%M} UTC on it is free." if at else ""
    raise Refused(
        f"{row.words} led to {whose} {asks}; {who} gave it up.",
        code="environment.address-held",
        hint=f"Let another owner of {environment.project} put it in {environment.name}, or one of"
        f" those who approve there.{later} Where it was it may be put back at any time.",
        status=403,
    )


def _not_theirs(environment: Environment, gone: list[str], *, guarded: bool) -> Refused:
    role = Role.OWNER if guarded else Role(environment.promote_role)
    why = (
        "asks for approvals or soak time, which what is elsewhere would not need"
        if guarded
        else "is for those who may promote to it"
    )
    return Refused(
        f"Only {role.label}s of {environment.project} take {', '.join(gone)} away from"
        f" {environment.name}: it {why}.",
        code="role",
        hint="Ask one. To add to what leads there is a maintainer's right.",
        status=403,
    )
