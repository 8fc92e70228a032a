"""Where an outside repository may be: what its address may look like, and which hosts it names.

Whoever makes a project chooses the address that our worker asks, so it must not lead to what only
this machine, or its network, can reach. Its words show in ``ps``, on pages and in images' labels.
"""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from ipaddress import IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from django.conf import settings

from ciserver.config import IPAddress
from ciserver.lib.problems import Refused

PORTS = {"https": 443, "http": 80}
SSH = {"ssh": 22}
SCP = re.compile(r"([A-Za-z0-9_][A-Za-z0-9._-]*@[A-Za-z0-9][A-Za-z0-9._-]*):(?!/)(.+)")
LOGIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
# No dot at the end: curl may know such a name under another key than the one we look up.
HOST = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*|[0-9a-f:.]*:[0-9a-f:.]*")
_UNFIT = re.compile(r"[\x00-\x20\x7f\\?#]")
NAT64 = IPv6Network("64:ff9b::/96")


def normal(url: str) -> str:
    """``url``, or what ``git@host:team/name.git`` is as one."""
    match = SCP.fullmatch(url)
    return f"ssh://{match[1]}/{match[2]}" if match else url


def check(url: str, *, ssh: bool = False) -> tuple[str, int]:
    """Host and port of an address that may be stored. Asks no name server. Raises Refused.

    With ``ssh`` it may be a repository's ``ssh://git@host/path``, too.
    """
    scheme, found, rest = url.partition("://")
    if not found or scheme not in (PORTS | SSH if ssh else PORTS):
        raise _refused(
            "Gantry asks over ssh:// (repositories), https:// or http:// and nothing else.",
            "Give the https:// address.",
        )
    login, at, _ = rest.partition("/")[0].rpartition("@")
    if at and not (scheme in SSH and LOGIN.fullmatch(login)):
        raise _refused(
            "An address must not hold a name, a password or a token: it is shown.",
            "Leave out all up to the '@'; what a private repository asks for is entered on the "
            "project's page “Repository”.",
        )
    host, port = _parts(url)
    numeric = "127.0.0.1" if f".{host}".endswith(".localhost") else host
    with suppress(socket.gaierror):  # a name, which is looked up when it is asked
        _check_hosts(host, _lookup(numeric, port, socket.AI_NUMERICHOST))
    return host, port


def resolve(host: str, port: int) -> list[str]:
    """Every address that ``host`` has now. Raises Refused if one is private, and gaierror."""
    found = _lookup(host, port, 0)
    _check_hosts(host, found)
    return list(dict.fromkeys(found))


def is_allowed(url: str) -> bool:
    """Whether its host is a number in a network that whoever runs Gantry allowed by name."""
    try:
        address = ip_address(urlsplit(url).hostname or "")
    except ValueError:
        return False
    return any(address in network for network in settings.GANTRY.fetch_allow)


def _parts(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = (PORTS | SSH)[parts.scheme] if parts.port is None else parts.port
    except ValueError:
        host, port = "", 0
    if _UNFIT.search(url) or not HOST.fullmatch(host) or host.startswith("-"):
        raise _refused(
            "This is not the address of a repository.",
            "It looks like https://forge.example/team/name.git.",
        )
    return host, port


def _lookup(host: str, port: int, flags: int) -> list[str]:
    """A number in any of the ways that the resolver reads (0x7f.1 is 127.0.0.1), or a name."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [str(address[0]) for *_, address in found]


def _check_hosts(host: str, addresses: list[str]) -> None:
    if not all(_may_be_asked(ip_address(address.partition("%")[0])) for address in addresses):
        raise _refused(
            f"{host} is this machine, or in a network that is not public.",
            "Use a public address, or have whoever runs Gantry allow it in GANTRY_FETCH_ALLOW.",
        )


def _may_be_asked(address: IPAddress) -> bool:
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in NAT64:
            inner = ip_address(address.packed[-4:])  # type: ignore[assignment]
        address = inner or address
    allowed = any(address in network for network in settings.GANTRY.fetch_allow)
    public = address.is_global and not (address.is_multicast or address.is_reserved)
    return allowed or (public and not _is_ours(address))


def _is_ours(address: IPAddress) -> bool:
    """Whether it is one of this machine's: nothing else can be bound to."""
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True


def _refused(message: str, hint: str) -> Refused:
    return Refused(message, code="project.clone-url", hint=hint, status=400)
