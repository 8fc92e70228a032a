"""Who has which role in a project: people by name, and teams.

A project always keeps an owner in person. Owners through a team do not count for that: whoever
is in a team is decided elsewhere, by administrators.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from django.db import transaction
from django.db.models import Count

from ciserver.accounts.models import AuditEntry, Team, User
from ciserver.accounts.teams import find_user
from ciserver.lib.problems import Refused
from ciserver.projects.models import Membership, Project, Role, TeamMembership
from ciserver.projects.services import require


@dataclass(slots=True)
class Member:
    """One person: the role in person (None without), and those through teams."""

    user: User
    own: Role | None = None
    teams: dict[str, Role] = field(default_factory=dict)

    @property
    def role(self) -> Role:
        """The highest of them, which is the one that counts."""
        return max([*self.teams.values(), *([self.own] if self.own else [])])


def members_of(project: Project) -> list[Member]:
    """Everybody with a role, by name, in three queries."""
    found: dict[int, Member] = {}
    for row in project.memberships.select_related("user"):
        found[row.user_id] = Member(row.user, Role(row.role))
    teams = project.team_memberships.select_related("team").prefetch_related("team__members")
    for through in teams:
        for user in through.team.members.all():
            member = found.setdefault(user.pk, Member(user))
            member.teams[through.team.name] = Role(through.role)
    return sorted(found.values(), key=lambda member: member.user.username)


def teams_of(project: Project) -> list[dict[str, Any]]:
    """The teams with a role, by name: ``team``, ``role``, and how many ``people`` are in it."""
    rows = project.team_memberships.select_related("team").annotate(people=Count("team__members"))
    return [
        {"team": row.team.name, "role": Role(row.role).label, "people": row.people}
        for row in rows.order_by("team__name")
    ]


@transaction.atomic
def set_member(*, project: Project, by: User, username: str, role: Role) -> Membership:
    """Give somebody a role, whether they had one or not. Needs the role owner. Raises Refused."""
    project = _locked(project)
    require(by, project, Role.OWNER)
    user = find_user(username)
    row = project.memberships.filter(user=user).first()
    before = Role(row.role).label if row else None
    if row is None:
        row = Membership(project=project, user=user)
    elif row.role == Role.OWNER and role != Role.OWNER:
        _keep_an_owner(project, user)
    row.role = role
    row.save()
    if before != role.label:
        AuditEntry.record(
            actor=by.username,
            action="member.set",
            target=project.slug,
            user=username,
            role=[before, role.label],
        )
    return row


@transaction.atomic
def remove_member(*, project: Project, by: User, username: str) -> bool:
    """Take somebody's own role away; False when there was none. Owners may, and everybody may
    leave. Roles through teams stay. Raises Refused."""
    project = _locked(project)
    if by.username != username:
        require(by, project, Role.OWNER)
    row = project.memberships.filter(user__username=username).select_related("user").first()
    if row is None:
        return False
    if row.role == Role.OWNER:
        _keep_an_owner(project, row.user)
    AuditEntry.record(
        actor=by.username,
        action="member.remove",
        target=project.slug,
        user=username,
        role=Role(row.role).label,
    )
    row.delete()
    return True


@transaction.atomic
def set_team(*, project: Project, by: User, name: str, role: Role) -> TeamMembership:
    """Give a team a role. Needs the role owner. Raises Refused."""
    require(by, project, Role.OWNER)
    team = Team.objects.filter(name=name).first()
    if team is None:
        raise Refused(
            f"There is no team {name!r}.",
            code="team.unknown",
            hint="An administrator makes teams: gantry teams new NAME",
            status=404,
        )
    row = project.team_memberships.filter(team=team).first()
    before = Role(row.role).label if row else None
    row = row or TeamMembership(project=project, team=team)
    row.role = role
    row.save()
    if before != role.label:
        AuditEntry.record(
            actor=by.username,
            action="member.set-team",
            target=project.slug,
            team=name,
            role=[before, role.label],
        )
    return row


@transaction.atomic
def remove_team(*, project: Project, by: User, name: str) -> bool:
    """Take a team's role away; False when it had none. Needs the role owner."""
    require(by, project, Role.OWNER)
    row = project.team_memberships.filter(team__name=name).first()
    if row is None:
        return False
    AuditEntry.record(
        actor=by.username, action="member.remove-team", target=project.slug, team=name
    )
    row.delete()
    return True


def _locked(project: Project) -> Project:
    """Owners who remove each other at the same moment take turns."""
    return Project.objects.select_for_update().get(pk=project.pk)


def _keep_an_owner(project: Project, user: User) -> None:
    owners = project.memberships.filter(role=Role.OWNER, user__is_active=True)
    if not owners.exclude(user=user).exists():
        raise Refused(
            f"{user.username} is the last owner of {project}.",
            code="member.last-owner",
            hint="Make somebody else an owner first.",
        )
