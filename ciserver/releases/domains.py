"""The host names of environments: which can be one, whose they are, and serving them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.db import IntegrityError, transaction

from ciserver.lib import outbox
from ciserver.lib.problems import Refused
from ciserver.releases import addresses
from ciserver.releases.leases import Lease
from ciserver.releases.models import Domain, Environment, Running
from ciserver.releases.naming import server_name
from ciserver.releases.targets import Target
from ciserver.releases.targets.domains import ACME, MODES, Domains, Edge
from ciserver.releases.targets.errors import TargetError
from ciserver.releases.targets.handshakes import certified

log = logging.getLogger(__name__)
TOPIC = "environment.routes"
MOST = 50  # of one environment
LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
NAME = re.compile(rf"(?:{LABEL}\.)+{LABEL}")
# Python's IDNA maps them to other letters, browsers (UTS #46) keep them: another domain.
DEVIANT = set("ßẞς\u200c\u200d")
EXAMPLE = "Name it like shop.example.org, without a scheme, port or path."


def put(environment: Environment, user: Any, names: Iterable[str]) -> bool:
    """Let ``environment``, with its policy as it was, have exactly these; whether it gave up some
    that its policy guarded. Inside the caller's transaction. Raises Refused."""
    wanted = list(dict.fromkeys(map(canonical, names)))
    if len(wanted) > MOST:
        raise _refused(f"{environment.name} can have {MOST} domains, not {len(wanted)}.")
    there = list(environment.domains.values_list("name", flat=True))
    guarded = addresses.give_up(environment, user, [one for one in there if one not in wanted])
    environment.domains.exclude(name__in=wanted).delete()
    new = [name for name in wanted if name not in there]
    for name in new:
        _add(environment, name)
    addresses.take(environment, user, new)
    return guarded


def _add(environment: Environment, name: str) -> None:
    try:
        with transaction.atomic():
            Domain.objects.create(environment=environment, name=name)
    except IntegrityError:
        owner = Domain.objects.select_related("environment__project").get(name=name).environment
        near = owner.project_id == environment.project_id
        raise Refused(
            f"{name} is a domain of {owner if near else 'another environment'} already.",
            code="environment.domain-taken",
            hint="Take it away there first." if near else "Ask an administrator whose it is.",
        ) from None


def canonical(text: str) -> str:
    """``text`` as browsers send it in Host: lower case, in ASCII. Raises Refused for what can be
    no host name of an environment."""
    shown = text.strip()[:80]
    if DEVIANT & set(text):
        raise _refused(f"{shown!r} has a letter that not all read alike: give its xn--... form.")
    try:
        name = text.strip().rstrip(".").encode("idna").decode().lower()
    except UnicodeError:
        name = ""
    last = name.rpartition(".")[2]
    if not NAME.fullmatch(name) or len(name) > 253 or last.isdigit():
        raise _refused(f"{shown!r} is no domain.")
    if name == urlsplit(settings.GANTRY.url).hostname:
        raise _refused(f"{name} is Gantry's own address.")
    return name


def check_mode(mode: str) -> None:
    """Raises Refused."""
    if mode not in MODES:
        words = "; ".join(f"'{key}': {value}" for key, value in MODES.items())
        raise Refused(f"{mode!r} is no kind of HTTPS.", code="environment.https", hint=words,
                      status=400)  # fmt: skip


def wake(environment: Environment) -> None:
    """Have a worker serve what ``environment`` now has."""
    outbox.promise(TOPIC, environment.pk)


def wanted(environment: Environment, serving: Running | None) -> Domains | None:
    """What a host should answer to on which ``serving`` runs; None for nothing."""
    names = tuple(environment.domains.values_list("name", flat=True))
    if serving is None or not names or environment.port is None:
        return None
    return Domains(names=names, https=environment.https, port=environment.port)


def serve(target: Target, environment: Environment, serving: Running | None, lease: Lease) -> str:
    """Let a host answer to what is wanted of it: why it does not, or nothing. A host that cannot
    have a name (a port that is taken, say) serves its environment nevertheless."""
    try:
        target.proxy.name(
            server_name(environment),
            wanted(environment, serving),
            edge=edge(),
            permit=lease.check,
        )
    except TargetError as error:
        log.warning("the domains of %s are not served: %s", environment, error)
        return str(error)
    return ""


def uncertified(target: Target, environment: Environment) -> list[str]:
    """The host names of ``environment`` that are to have certificates of an authority by ACME,
    and have none on that host yet."""
    names = environment.domains.values_list("name", flat=True)
    if environment.https != ACME:
        return []
    port = settings.GANTRY.https_port
    return [name for name in names if not certified(target.machine, name, port)]


def edge() -> Edge:
    config = settings.GANTRY
    return Edge(
        http_port=config.http_port,
        https_port=config.https_port,
        acme_url=config.acme_url,
        acme_email=config.acme_email,
        acme_root=str(config.acme_root or ""),
    )


def address(name: str, https: str) -> str:
    """Where a browser finds it."""
    config = settings.GANTRY
    secure = https != "off"
    port = config.https_port if secure else config.http_port
    usual = 443 if secure else 80
    return f"http{'s' if secure else ''}://{name}{'' if port == usual else f':{port}'}"


def _refused(words: str) -> Refused:
    return Refused(words, code="environment.domain", hint=EXAMPLE, status=400)
