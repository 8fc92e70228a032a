"""What an environment's things on a host are called, there and nowhere else."""

from __future__ import annotations

import hashlib

from django.conf import settings

from ciserver.releases.models import Environment


def server_name(environment: Environment) -> str:
    return f"gantry-{environment.pk}"


def labels_of(environment: Environment) -> dict[str, str]:
    """What marks an environment's containers as ours, also beside another installation's."""
    return {
        "installation": installation(),
        "project": environment.project.slug,
        "environment": environment.name,
    }


def installation() -> str:
    return hashlib.sha256(f"installation {settings.SECRET_KEY}".encode()).hexdigest()[:8]
