"""The name servers a sandbox can use: the host's real ones, not a stub on its loopback."""

from __future__ import annotations

import ipaddress
from pathlib import Path

CANDIDATES = (
    Path("/etc/resolv.conf"),
    Path("/run/systemd/resolve/resolv.conf"),  # systemd-resolved's upstreams
    Path("/run/NetworkManager/no-stub-resolv.conf"),
)


def name_servers(
    candidates: tuple[Path, ...] = CANDIDATES, *, with_ipv6: bool = False
) -> list[str]:
    """Addresses of the first file that names one which is not the host's loopback."""
    for path in candidates:
        try:
            found = parse(path.read_text(), with_ipv6=with_ipv6)
        except OSError:
            continue
        if found:
            return found
    return []


def parse(text: str, *, with_ipv6: bool = False) -> list[str]:
    """Usable ``nameserver`` addresses of a resolv.conf(5)."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            address = ipaddress.ip_address(words[1])
        except ValueError:
            continue
        if address.version == 6 and not with_ipv6:
            continue
        if not (address.is_loopback or address.is_link_local):  # a link is not the sandbox's
            found.append(str(address))
    return found


def render(servers: list[str]) -> str:
    """A resolv.conf for the sandbox. Short time-outs: a build should fail, not hang."""
    lines = [f"nameserver {server}" for server in servers]
    return "".join(f"{line}\n" for line in (*lines, "options timeout:3 attempts:2"))
