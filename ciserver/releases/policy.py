"""What must be true before a release may go into an environment, and whose word counts.

Nothing here writes. ``refusal`` is for what a person can only put right elsewhere: it is refused
when it is asked for. ``blockers`` are what a promotion waits for: it goes by itself once there
are none, and is looked at again when a worker takes it up.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q
from django.utils import timezone

from ciserver.accounts.models import User
from ciserver.lib.words import duration
from ciserver.projects.models import Role
from ciserver.releases.models import (
    UNFINISHED,
    Approval,
    Deployment,
    DeploymentKind,
    DeploymentState,
    Environment,
    Release,
    Running,
    Stop,
)

GATE = ("health_timeout", "health", "health_passes", "stable_seconds")
# Of a configuration; hosts and ports are those that there are now.
RESTORED = ("variables", "memory_mib", "cpus", "pids", *GATE)
# Kinds that need nobody's word: they bring a digest and a configuration that had it before.
UNAPPROVED = (DeploymentKind.ROLLBACK, DeploymentKind.MOVE)
KEPT = ("approvals", "soak_minutes")  # of a policy, for whoever lowered them
SKIPPED = "skipped"  # beside them: places before it that he removed
GANTRY = "gantry"  # the actor of what nobody asked for by hand


def before(environment: Environment) -> Environment | None:
    """The place that a release must have run in first."""
    chain = Environment.objects.filter(
        project=environment.project_id, position__lt=environment.position, removed_at=None
    )
    return chain.order_by("-position").first()


def may_promote(user: Any, environment: Environment) -> bool:
    """Who has the environment's role, and who is named and still a member."""
    if environment.project.allows(user, Role(environment.promote_role)):
        return True
    named = environment.promoters.filter(pk=user.pk).exists()
    return named and environment.project.allows(user, Role.VIEWER)


def demanded(environment: Environment, asker: str) -> Environment:
    """``environment`` as it stands to what ``asker`` (a user name) asks for; a copy, not to be
    saved. Nobody weakens a policy for what he asks for himself: the numbers that he lowered stay
    as they were for him, and for what goes by itself, until another owner confirms his change.
    """
    copied = copy.copy(environment)
    for field in KEPT:
        least = max((one.get(field, 0) for one in _held(environment, asker)), default=0)
        setattr(copied, field, max(getattr(environment, field), least))
    return copied


def skipped(environment: Environment, asker: str) -> list[str]:
    """The names of the places in which what ``asker`` asks for had to run first, until he removed
    them; for what goes by itself, until anybody did. Until another owner confirms it."""
    held = _held(environment, asker)
    return sorted({name for one in held for name in one.get(SKIPPED, ())})


def _held(environment: Environment, asker: str) -> list[dict[str, Any]]:
    kept = environment.kept_policy
    return list(kept.values()) if asker == GANTRY else [kept.get(asker, {})]


def is_guarded(demanded: Environment) -> bool:
    """Whether somebody or some time must let through what goes there."""
    return any(getattr(demanded, field) for field in KEPT)


def kept_words(environment: Environment, *, but: str = "") -> list[str]:
    """What still holds for those who lowered it, in words; without what holds for ``but``."""
    return [
        f"what {who} asks for still needs "
        + " and ".join(_kept_word(key, least) for key, least in sorted(own.items()))
        for who, own in sorted(environment.kept_policy.items())
        if who != but
    ]


def _kept_word(key: str, least: Any) -> str:
    if key == "approvals":
        return f"{least} approval{'s' if least > 1 else ''}"
    if key == SKIPPED:
        return f"a word on the removal of {' and '.join(least)}, where it would run first"
    return f"{least} min of soak time"


def configuration_of(environment: Environment) -> dict[str, Any]:
    """What makes a release's containers what they are here; of secrets only that they changed."""
    secrets = dict(environment.secrets.values_list("name", "fingerprint"))
    return {
        "variables": dict(environment.variables),
        "memory_mib": environment.memory_mib,
        "cpus": environment.cpus,
        "pids": environment.pids,
        "port": environment.port,
        **{name: getattr(environment, name) for name in GATE},
        "hosts": sorted(environment.hosts.values_list("name", flat=True)),
        **({"secrets": secrets} if secrets else {}),
    }


def configuration_for(release: Release, environment: Environment, kind: str) -> dict[str, Any]:
    """What a deployment of that kind starts with. A roll-back and a move restore what the release
    last ran with: they need no approval, so they must bring nothing that nobody approved."""
    now = configuration_of(environment)
    if kind not in UNAPPROVED:
        return now
    served = environment.deployments.filter(release=release, state=DeploymentState.SUCCEEDED)
    then = served.order_by("-pk").values_list("configuration", flat=True).first() or {}
    return now | {key: then[key] for key in RESTORED if key in then}


def hosts_after(deployment: Deployment) -> list[str]:
    """The names of the environment's hosts once the move ``deployment`` has ended well."""
    names = set(deployment.environment.hosts.values_list("name", flat=True))
    left, taken = deployment.from_host, deployment.to_host
    return sorted(names - {left.name if left else ""} | ({taken.name} if taken else set()))


def fingerprint(release: Release, environment: Environment) -> str:
    """Names the digest, both configurations and where the release must have run before: an
    approval holds for these and no others."""
    first = before(environment)
    covered = [release.digest, release.configuration, configuration_of(environment)]
    covered += [first.name if first else ""]
    return hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()


def ran_well(release: Release, environment: Environment) -> bool:
    return Deployment.objects.filter(
        release=release, environment=environment, state=DeploymentState.SUCCEEDED
    ).exists()


def refusal(release: Release, environment: Environment) -> str:
    """Why ``release`` may not go to ``environment`` now; empty when it may, or may wait for it."""
    if release.removed_at:
        return f"The image of {release.name} was removed from the registry to make room."
    first = before(environment)
    if first is None:
        return ""
    if not ran_well(release, first):
        if first.deployments.filter(release=release, state__in=UNFINISHED).exists():
            return f"{release.name} is still being deployed to {first.name}."
        return f"{release.name} has not run healthy in {first.name} yet."
    there = Running.objects.filter(environment=first, release=release)
    lost = environment.soak_minutes and soak_left(release, environment) is None
    reason = ""
    if there.filter(healthy=False).exists():
        reason = f"{release.name} is unhealthy in {first.name} now."
    elif there.exclude(digest=release.digest).exists():
        reason = f"{first.name} runs something else than {release.name} under its name."
    elif lost:
        soak = duration(environment.soak_minutes * 60)
        reason = f"{release.name} was replaced in {first.name} before it had run there for {soak}."
    return reason


def soak_left(release: Release, environment: Environment) -> timedelta | None:
    """How long ``release`` must still run in the place before; None when it no longer does."""
    first = before(environment)
    wanted = timedelta(minutes=environment.soak_minutes)
    if first is None or not wanted:
        return timedelta(0)
    ended = first.deployments.filter(state=DeploymentState.SUCCEEDED).order_by("finished_at", "pk")
    rows = list(ended.values_list("release_id", "finished_at"))
    best = timedelta(0)
    began: datetime | None = None
    for release_id, at in rows:
        if release_id == release.pk:
            began = began or at
        elif began is not None and at is not None:
            best, began = max(best, at - began), None
    if began is not None:
        best = max(best, timezone.now() - began)
    if best >= wanted:
        return timedelta(0)
    return wanted - best if began is not None else None


def stopped(environment: Environment) -> Stop | None:
    """The stop that holds for ``environment``, if one does."""
    holds = Q(project=None) | Q(project=environment.project_id)
    return Stop.objects.filter(holds, ended_at=None).first()


def approvers(environment: Environment) -> list[User]:
    """The named people who are still there and still members, or administrators."""
    members = environment.project.people.values("pk")
    found = environment.approvers.filter(is_active=True)
    return list(found.filter(Q(pk__in=members) | Q(is_superuser=True)).order_by("username"))


def lost_asker(deployment: Deployment) -> bool:
    """Whether who asked for this promotion may not ask for it any more. Nobody asked for what
    goes by itself, and moves and roll-backs begin at once."""
    if deployment.kind != DeploymentKind.PROMOTION or not deployment.requested_by:
        return False
    asker = User.objects.filter(username=deployment.requested_by, is_active=True).first()
    return asker is None or not may_promote(asker, deployment.environment)


def may_approve(user: Any, deployment: Deployment) -> bool:
    """One of the named, and not who asked for it."""
    named = user in approvers(deployment.environment)
    return named and user.get_username() != deployment.requested_by


def counting(deployment: Deployment) -> list[Approval]:
    """The approvals that hold: of people who may, for exactly this digest and configuration."""
    given = list(deployment.approval_set.select_related("user")) if deployment.pk else []
    if not given:
        return []
    now = fingerprint(deployment.release, deployment.environment)
    able = {user.pk for user in approvers(deployment.environment)}
    return [
        approval
        for approval in given
        if approval.user_id in able
        and approval.user.get_username() != deployment.requested_by
        and approval.digest == deployment.release.digest
        and approval.configuration == now
    ]


def closed(environment: Environment) -> str:
    """Why nothing is deployed there, ever or until an owner says otherwise; empty if it may be.
    By what ``environment`` was when it was read: callers hold its lock."""
    if environment.removed_at:
        return f"{environment} is being removed."
    if environment.project.archived_at:
        return f"{environment.project} is archived."
    return ""


def blockers(deployment: Deployment) -> list[str]:
    """What ``deployment`` waits for, in words. A roll-back waits for nothing: it is the remedy.
    A move waits for the line alone: what it moves is there already."""
    if going := closed(deployment.environment):
        return [going]
    if deployment.kind == DeploymentKind.ROLLBACK:
        return []
    release = deployment.release
    environment = demanded(deployment.environment, deployment.requested_by)
    found = []
    if stop := stopped(environment):
        found.append(f"The line is stopped by {stop.by}: {stop.reason}")
    if deployment.kind == DeploymentKind.MOVE:
        return found
    if reason := refusal(release, environment):
        found.append(reason)
    elif left := soak_left(release, environment):
        first = before(environment)
        name = first.name if first else ""
        minutes = math.ceil(left.total_seconds() / 60)
        found.append(f"It must run in {name} for {minutes} min more.")
    if gone := skipped(environment, deployment.requested_by):
        found.append(
            f"{' and '.join(gone)}, where it had to run first, was removed: another owner of"
            f" {environment.project} confirms that, by 'gantry policy {environment.project}"
            f" {environment.name} --confirm'."
        )
    if deployment.pk and lost_asker(deployment):
        name = environment.name
        found.append(
            f"{deployment.requested_by} may no longer promote to {name}: who may asks again."
        )
    missing = environment.approvals - len(counting(deployment)) if environment.approvals else 0
    if missing > 0:
        found.append(f"It needs {missing} more approval{'s' if missing > 1 else ''}.")
    return found


def behind(environment: Environment, release: Release) -> int:
    """How many releases of the project are newer than ``release``."""
    newer = Release.objects.filter(project=environment.project_id, number__gt=release.number)
    return newer.count()
