"""Secrets of environments on their way into containers, and out of what those say."""

from __future__ import annotations

from contextlib import suppress

from ciserver.lib.crypto import SealBroken
from ciserver.lib.masking import Masker
from ciserver.releases.models import Deployment, Environment, EnvironmentSecret
from ciserver.releases.targets.errors import TargetError


def secrets_of(deployment: Deployment, environment: Environment) -> list[EnvironmentSecret]:
    """Those that the deployment began with, which is what was approved. Raises TargetError."""
    rows = list(environment.secrets.all())
    then = deployment.configuration.get("secrets", {})
    if {row.name: row.fingerprint for row in rows} != then:
        raise TargetError(f"The secrets of {environment} changed meanwhile. Deploy again")
    for row in rows:
        try:
            row.value()
        except (SealBroken, ValueError):
            raise TargetError(
                f"The secret {row.name} of {environment} cannot be opened. Set it again"
            ) from None
    return rows


def masked(deployment: Deployment, text: str) -> str:
    """A container that fails has its last lines told, and it may have printed what it was given."""
    values = []
    for row in deployment.environment.secrets.all():
        with suppress(SealBroken, ValueError):
            values.append(row.value())
    return Masker(values).mask_text(text)
