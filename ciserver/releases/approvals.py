"""What people say to a promotion that waits or goes on, and stopping the line."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.utils import timezone

from ciserver.accounts.models import AuditEntry
from ciserver.lib.problems import Refused
from ciserver.lib.states import IllegalMove
from ciserver.projects.models import Project, Role
from ciserver.projects.services import require
from ciserver.releases import policy, queue
from ciserver.releases.models import Approval, Deployment, DeploymentState, Environment, Stop
from ciserver.releases.services import require_standing


@transaction.atomic
def approve(*, deployment: Deployment, user: Any, seen: str = "") -> Deployment:
    """``user`` says yes to exactly this digest with exactly this configuration. The promotion
    goes on once nothing else holds it. May be called again, also after the configuration
    changed. ``seen`` is the ``policy.fingerprint`` of what ``user`` looked at: another one is
    refused. Raises Refused."""
    Environment.objects.select_for_update().get(pk=deployment.environment_id)
    deployment.refresh_from_db()
    _require_approver(deployment, user)
    if not deployment.waiting:
        raise _over(deployment)
    if deployment.expires_at and deployment.expires_at < timezone.now():
        raise Refused(
            f"{deployment} waited too long for this word: it ends now.",
            code="approval.late",
            hint="Whoever asked for it asks again.",
        )
    release, environment = deployment.release, deployment.environment
    require_standing(environment)
    if seen and seen != policy.fingerprint(release, environment):
        raise Refused(
            f"The configuration of {environment.name} changed after you looked.",
            code="approval.changed",
            hint="Look at what changes again, then approve.",
        )
    covered = {
        "digest": release.digest,
        "configuration": policy.fingerprint(release, environment),
        "at": timezone.now(),
    }
    Approval.objects.update_or_create(deployment=deployment, user=user, defaults=covered)
    _record(deployment, user, "deployment.approve", configuration=covered["configuration"])
    queue.consider(deployment)
    transaction.on_commit(lambda: queue.tell(deployment))
    return deployment


@transaction.atomic
def reject(*, deployment: Deployment, user: Any, reason: str = "") -> Deployment:
    """One of the approvers says no, or who may promote withdraws it: it ends before it began.
    Raises Refused."""
    deployment.refresh_from_db()
    _require_may_end(deployment, user)
    words = "Withdrawn" if user.get_username() == deployment.requested_by else "Refused"
    try:
        queue.cancel(deployment, f"{words} by {user.get_username()}{_said(reason)}.")
    except IllegalMove:
        raise _over(deployment) from None
    _record(deployment, user, "deployment.cancel", reason=reason)
    return deployment


@transaction.atomic
def cancel(*, deployment: Deployment, user: Any, reason: str = "") -> Deployment:
    """End a deployment that goes on, as one of those who may ``reject`` it: within seconds its
    worker withdraws what it began, and what served goes on serving. One that has not begun is
    rejected. Raises Refused."""
    deployment.refresh_from_db()
    if deployment.state != DeploymentState.RUNNING:
        return reject(deployment=deployment, user=user, reason=reason)
    _require_may_end(deployment, user)
    name = user.get_username()
    going = Deployment.objects.filter(pk=deployment.pk, state=DeploymentState.RUNNING)
    words = f"Cancelled by {name}{_said(reason)}."
    if going.filter(cancelled_by="").update(cancelled_by=name, reason=words):
        _record(deployment, user, "deployment.cancel", reason=reason)
    deployment.refresh_from_db()
    if deployment.finished:
        raise _over(deployment)
    transaction.on_commit(lambda: queue.tell(deployment))
    return deployment


@transaction.atomic
def stop(*, user: Any, reason: str, project: Project | None = None) -> Stop:
    """Let nothing but roll-backs begin, in ``project`` or everywhere. Raises Refused."""
    _require_hand_on_the_line(user, project)
    if not reason.strip():
        hint = "One sentence, for those who wait."
        raise Refused("Say why the line is stopped.", code="line.reason", hint=hint, status=400)
    if standing := Stop.objects.filter(project=project, ended_at=None).first():
        hint = "Resume it first, to stop it for another reason."
        raise Refused(f"It is stopped already, by {standing.by}.", code="line.stopped", hint=hint)
    # What is being taken up right now has begun before, or sees the stop.
    places = Environment.objects.filter(project=project) if project else Environment.objects.all()
    list(places.order_by("pk").select_for_update().values_list("pk"))
    row = Stop.objects.create(project=project, reason=reason.strip()[:300], by=user.get_username())
    where = project.slug if project else "everything"
    AuditEntry.record(actor=row.by, action="line.stop", target=where, reason=row.reason)
    return row


@transaction.atomic
def resume(*, user: Any, project: Project | None = None) -> None:
    """Undo ``stop``. What waited goes on by itself within seconds. Raises Refused."""
    _require_hand_on_the_line(user, project)
    name = user.get_username()
    standing = Stop.objects.filter(project=project, ended_at=None)
    if not standing.update(ended_at=timezone.now(), ended_by=name):
        hint = "Each project has a line of its own, and all of them have one: name the stopped one."
        raise Refused("The line is not stopped.", code="line.running", hint=hint)
    AuditEntry.record(
        actor=name, action="line.resume", target=project.slug if project else "everything"
    )


def _require_hand_on_the_line(user: Any, project: Project | None) -> None:
    if project is not None:
        require(user, project, Role.MAINTAINER)
    elif not user.is_superuser:
        raise Refused(
            "Only an administrator stops the line of every project.",
            code="role",
            hint="Stop that of your own project instead.",
            status=403,
        )


def _require_may_end(deployment: Deployment, user: Any) -> None:
    named = user in policy.approvers(deployment.environment)
    if not named and not policy.may_promote(user, deployment.environment):
        _require_approver(deployment, user)


def _require_approver(deployment: Deployment, user: Any) -> None:
    if policy.may_approve(user, deployment):
        return
    if user.get_username() == deployment.requested_by:
        raise Refused(
            "Who asks for a promotion cannot approve it.",
            code="approval.own",
            hint="Ask one of the other approvers.",
            status=403,
        )
    names = ", ".join(one.username for one in policy.approvers(deployment.environment))
    raise Refused(
        f"You are not among those who approve what goes to {deployment.environment.name}.",
        code="approval.not-named",
        hint=f"They are: {names or 'nobody yet'}.",
        status=403,
    )


def _over(deployment: Deployment) -> Refused:
    running = deployment.state == DeploymentState.RUNNING
    return Refused(
        f"{deployment} is {deployment.state} and waits for nobody's word.",
        code="approval.over",
        hint="To end it all the same, cancel it."
        if running
        else "Load the page again to see how it stands.",
    )


def _said(reason: str) -> str:
    words = " ".join(reason.split()).rstrip(".")[:300]
    return f": {words}" if words else ""


def _record(deployment: Deployment, user: Any, action: str, **detail: Any) -> None:
    AuditEntry.record(
        actor=user.get_username(),
        action=action,
        target=str(deployment.environment),
        release=deployment.release.name,
        digest=deployment.release.digest,
        **detail,
    )
