"""What an environment's things on a host are called, there and nowhere else."""

from __future__ import annotations

import hashlib

from django.conf import settings

from ciserver.releases.models import Environment


def server_name(environment: Environment) -> str:
    return server_name_of(environment.pk)


def server_name_of(pk: int) -> str:
    return f"gantry-{pk}"


def network_of(pk: int) -> str:
    """That of the environment ``pk``, of which there is never another one."""
    return f"gantry-{installation()}-{pk}"


def labels_of(environment: Environment) -> dict[str, str]:
    """What marks an environment's containers as ours, also beside another installation's, and
    beside those of an earlier environment of its name, which may be on a host that was away."""
    return {
        "installation": installation(),
        "project": environment.project.slug,
        "environment": environment.name,
        "network": network_of(environment.pk),
    }


def installation() -> str:
    return hashlib.sha256(f"installation {settings.SECRET_KEY}".encode()).hexdigest()[:8]
