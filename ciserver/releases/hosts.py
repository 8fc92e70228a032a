"""A host's row as the place that a target opens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings

from ciserver.lib.words import duration
from ciserver.releases.models import Host
from ciserver.releases.targets import Target, open_target
from ciserver.releases.targets.errors import HostKeyChanged, TargetError
from ciserver.releases.targets.spec import Place

LOCAL = "local"  # the kind of host that is this machine
CLOCKS_DIFFER = 60  # seconds that are worth a word


@contextmanager
def opened(host: Host, *, anew: bool = False) -> Iterator[Target]:
    """The target of ``host``, open for a block. Raises TargetError. A changed host key is noted
    on the row: a person must accept it. Its engine is asked whether it works if that is not known
    from the last time, or went wrong then; with ``anew`` in any case."""
    known = "" if anew else host.engine
    engine = ""
    try:
        with open_target(place_of(host, known), run=settings.GANTRY.run) as target:
            if host.offered_key:
                Host.objects.filter(pk=host.pk).update(offered_key="")
            engine = target.engine.program
            yield target
    except HostKeyChanged as error:
        Host.objects.filter(pk=host.pk).update(offered_key=error.fingerprint or "unknown")
        raise
    except TargetError:
        engine = ""
        raise
    finally:
        if host.kind != LOCAL and engine != host.engine:
            Host.objects.filter(pk=host.pk).update(engine=engine)


def place_of(host: Host, engine: str = "") -> Place:
    def private_key() -> str:
        return host.value().reveal()

    def pin(key: str) -> None:
        """The first key that is seen is the host's, from then on."""
        Host.objects.filter(pk=host.pk, host_key="").update(host_key=key, accepted_key="")

    return Place(
        name=host.name,
        kind=host.kind,
        address=host.address,
        host_key=host.host_key,
        private_key=private_key,
        public_key=host.public_key,
        expected=host.accepted_key,
        engine=engine,
        pin=pin,
    )


def clock_words(clock: int) -> str:
    """How a host's clock, in seconds since 1970, differs from ours; empty if it hardly does."""
    off = clock - time.time()
    if abs(off) < CLOCKS_DIFFER:
        return ""
    return f"its clock is {duration(abs(off))} {'ahead' if off > 0 else 'behind'}"


def clock_problem(target: Target) -> str:
    """``clock_words`` of where ``target`` is, with what to do; empty if its clock is right."""
    off = clock_words(target.machine.facts.clock)
    return f"{off}: let it keep time (systemd-timesyncd)" if off else ""
