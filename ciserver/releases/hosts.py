"""A host's row as the place that a target opens."""

from __future__ import annotations

from contextlib import AbstractContextManager

from django.conf import settings

from ciserver.lib.crypto import unseal
from ciserver.releases.models import Host
from ciserver.releases.targets import Target, open_target
from ciserver.releases.targets.spec import Place


def opened(host: Host) -> AbstractContextManager[Target]:
    """The target of ``host``, open for a block. Raises TargetError."""
    return open_target(place_of(host), run=settings.GANTRY.run)


def place_of(host: Host) -> Place:
    def private_key() -> str:
        return unseal(host.sealed_key, host.key_place).reveal()

    def pin(key: str) -> None:
        """The first key that is seen is the host's, from then on."""
        Host.objects.filter(pk=host.pk, host_key="").update(host_key=key)

    return Place(
        name=host.name,
        kind=host.kind,
        address=host.address,
        host_key=host.host_key,
        private_key=private_key,
        public_key=host.public_key,
        pin=pin,
    )
