"""What people do with hosts: add, check, prepare, accept a key, remove."""

from __future__ import annotations

import re
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from ciserver.accounts.models import AuditEntry
from ciserver.lib import outbox
from ciserver.lib.crypto import Secret
from ciserver.lib.problems import Refused
from ciserver.projects.models import SLUG, Project
from ciserver.releases import leaving
from ciserver.releases.models import UNFINISHED, Deployment, Host
from ciserver.releases.services import LOCAL
from ciserver.releases.targets.masters import Address

TOPIC = "host.asked"
SSH = "ssh"
FINGERPRINT = r"SHA256:[A-Za-z0-9+/]{43}"


def visible_to(user: Any) -> QuerySet[Host]:
    """Those that run something of a project that ``user`` may see."""
    if user.is_superuser:
        return Host.objects.all()
    seen = Project.objects.visible_to(user)
    return Host.objects.filter(environments__project__in=seen).distinct()


@transaction.atomic
def add(*, user: Any, name: str, address: str, fingerprint: str = "") -> Host:
    """A host that is reached by ssh, with a key pair of its own. Its host key is pinned when it
    is first reached; with ``fingerprint`` only if it is that one. Raises Refused."""
    _require_administrator(user)
    if not re.fullmatch(SLUG, name) or name == LOCAL:
        raise Refused(
            f"{name!r} cannot be a host's name.",
            code="host.name",
            hint="Use up to 63 lower-case letters, digits and '-'; 'local' is this machine.",
            status=400,
        )
    _check_fingerprint(fingerprint)
    try:
        Address.parse(address)
    except ValueError as error:
        raise Refused(
            f"{error}.", code="host.address", hint="Such as deploy@qa1.example.org:22.", status=400
        ) from None
    if Host.objects.filter(name=name).exists():
        hint = "Choose another name, or remove that one first."
        raise Refused(f"There is a host {name!r} already.", code="host.exists", hint=hint)
    private, public = _pair(name)
    host = Host(name=name, kind=SSH, address=address, public_key=public, accepted_key=fingerprint)
    host.put(private)
    host.save()
    AuditEntry.record(
        actor=user.get_username(), action="host.add", target=host.name, address=address
    )
    return host


@transaction.atomic
def ask(*, user: Any, host: Host, verb: str) -> Host:
    """Have a worker visit ``host``: "check" it or "prepare" it. Raises Refused."""
    if verb == "prepare":
        _require_administrator(user)
        if host.kind != SSH:
            raise Refused(
                f"{host} is this machine, which ./gantry prepares.",
                code="host.local",
                hint="Start ./gantry up again: it installs what is missing.",
                status=400,
            )
    row = Host.objects.filter(pk=host.pk)
    if verb == "check":
        row = row.exclude(asked="prepare")  # which ends with a check, too
    row.update(asked=verb)
    outbox.promise(TOPIC, host.pk)
    if verb != "check":
        AuditEntry.record(actor=user.get_username(), action=f"host.{verb}", target=host.name)
    host.refresh_from_db()
    return host


@transaction.atomic
def accept_key(*, user: Any, host: Host, fingerprint: str) -> Host:
    """Take the key of this fingerprint for the host's, in place of the one that was pinned.
    Whatever answers next must have it. Raises Refused."""
    _require_administrator(user)
    _check_fingerprint(fingerprint or "none")
    if host.kind != SSH:
        raise Refused(
            f"{host} is not reached by ssh.",
            code="host.local",
            hint="Only hosts that are have a key: name one of those.",
            status=400,
        )
    before = host.host_key
    Host.objects.filter(pk=host.pk).update(host_key="", offered_key="", accepted_key=fingerprint)
    AuditEntry.record(
        actor=user.get_username(),
        action="host.accept-key",
        target=host.name,
        fingerprint=fingerprint,
        before=before[:120],
    )
    host.refresh_from_db()
    return ask(user=user, host=host, verb="check")


@transaction.atomic
def remove(*, user: Any, host: Host) -> None:
    """Forget ``host`` and its keys. Raises Refused while an environment uses it."""
    _require_administrator(user)
    host = Host.objects.select_for_update().get(pk=host.pk)
    now = timezone.now()
    standing = host.environments.filter(removed_at=None).exclude(project__delete_at__lte=now)
    used = sorted({str(one) for one in standing.select_related("project")})
    # What was left behind there goes by itself once the host answers; it may never do so.
    gone = {row.pk for row in leaving.left_behind(host)}
    running = host.running.exclude(pk__in=gone).select_related("environment__project")
    running = running.exclude(Q(environment__removed_at__isnull=False))
    running = running.exclude(environment__project__delete_at__lte=now)
    used += sorted({str(row.environment) for row in running})
    if used:
        raise Refused(
            f"{host} is used by {', '.join(dict.fromkeys(used))}.",
            code="host.used",
            hint=f"Move each to another host first: gantry move {used[0]} OTHER --host {host}",
        )
    going = host.deploymentstep_set.filter(deployment__state__in=UNFINISHED)
    moves = Deployment.objects.filter(Q(to_host=host) | Q(from_host=host), state__in=UNFINISHED)
    if going.exists() or moves.exists():
        raise Refused(
            f"A deployment to {host} is under way.",
            code="host.used",
            hint="Wait until it ends, then remove the host.",
        )
    name = host.name
    host.deploymentstep_set.all().delete()
    host.delete()
    AuditEntry.record(actor=user.get_username(), action="host.remove", target=name)


def _pair(name: str) -> tuple[Secret, str]:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return Secret(private.decode()), f"{public.decode()} gantry-{name}"


def _check_fingerprint(fingerprint: str) -> None:
    if fingerprint and not re.fullmatch(FINGERPRINT, fingerprint):
        raise Refused(
            f"{fingerprint!r} is not a key's fingerprint.",
            code="host.fingerprint",
            hint="On the host, 'ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub' prints it:"
            " SHA256: and 43 characters.",
            status=400,
        )


def _require_administrator(user: Any) -> None:
    if not user.is_superuser:
        raise Refused(
            "Hosts are added, prepared and removed by an administrator.",
            code="role",
            hint="Ask one.",
            status=403,
        )
