"""Teams: made and filled by administrators, given a role by each project's owners."""

from __future__ import annotations

import re

from django.db import transaction

from ciserver.accounts.models import TEAM_NAME, AuditEntry, Team, User
from ciserver.accounts.users import require_admin
from ciserver.lib.problems import Refused


@transaction.atomic
def create(*, by: User, name: str, description: str = "") -> Team:
    """Raises Refused."""
    require_admin(by)
    if not re.fullmatch(TEAM_NAME, name):
        raise Refused(
            f"{name!r} cannot be a team's name.",
            code="team.name",
            hint="Use up to 63 lower-case letters, digits and '-'.",
            status=400,
        )
    if Team.objects.filter(name=name).exists():
        raise Refused(
            f"There is a team {name!r} already.", code="team.exists", hint="Choose another name."
        )
    team = Team.objects.create(name=name, description=description)
    AuditEntry.record(actor=by.username, action="team.create", target=name)
    return team


@transaction.atomic
def add(*, team: Team, by: User, username: str) -> User:
    """Put somebody into a team. Raises Refused."""
    require_admin(by)
    user = find_user(username)
    if not team.members.filter(pk=user.pk).exists():
        team.members.add(user)
        AuditEntry.record(actor=by.username, action="team.add", target=team.name, user=username)
    return user


@transaction.atomic
def remove(*, team: Team, by: User, username: str) -> bool:
    """Take somebody out of a team; False when they were not in it."""
    require_admin(by)
    user = team.members.filter(username=username).first()
    if user is None:
        return False
    team.members.remove(user)
    AuditEntry.record(actor=by.username, action="team.remove", target=team.name, user=username)
    return True


@transaction.atomic
def delete(*, team: Team, by: User) -> None:
    """End a team, and with it the roles that its people have through it."""
    require_admin(by)
    AuditEntry.record(actor=by.username, action="team.delete", target=team.name)
    team.delete()


def find_user(username: str) -> User:
    """Somebody who can be given something. Raises Refused."""
    user = User.objects.filter(username=username, is_active=True).first()
    if user is None:
        raise Refused(
            f"There is no user {username!r}, or the account is switched off.",
            code="user.unknown",
            hint="An administrator makes users: gantry users new NAME",
            status=404,
        )
    return user
