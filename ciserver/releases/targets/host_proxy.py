"""Caddy on a host: an instance of our own, found by its socket and started if it is not there."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from ciserver.releases.targets.commands import QUICK
from ciserver.releases.targets.connection import Connection
from ciserver.releases.targets.domains import Domains, Edge
from ciserver.releases.targets.errors import TrafficError
from ciserver.releases.targets.proxy import Permit, Proxy, granted

STARTS_WITHIN = 10.0  # seconds
# It outlives the connection. Where systemd runs it is a service, else a session of its own;
# after a reboot the next look at the host starts it again, with the routes it had.
# Who connects while routes change is reset without the kernel's setting: see ciserver.ops.kernel.
START = """
umask 077
{ echo 1 > /proc/sys/net/ipv4/tcp_migrate_req; } 2> /dev/null || :
mkdir -p "$1" && cd "$1" && cat > caddy.json && rm -f caddy.sock
export HOME="$1" XDG_CONFIG_HOME="$1" XDG_DATA_HOME="$1"
set -- caddy run --config "$1/caddy.json" --resume
if [ "$(id -u)" = 0 ] && [ -d /run/systemd/system ]; then
  exec systemd-run --quiet --collect --unit=gantry-caddy --property=Restart=always \\
    --setenv=HOME="$HOME" --setenv=XDG_CONFIG_HOME="$HOME" --setenv=XDG_DATA_HOME="$HOME" "$@"
fi
setsid "$@" > caddy.log 2>&1 < /dev/null &
"""


# A file is there whole or as it was: Caddy reads it when its configuration is loaded.
PUT = 'umask 077; cat > "$1.new" && mv "$1.new" "$1"'


class HostProxy(Proxy):
    """Caddy with its files in ``folder`` of another machine."""

    def __init__(self, machine: Connection, folder: str) -> None:
        socket = machine.forwarded(f"{folder}/caddy.sock")
        super().__init__(socket, listen="", host=machine.place.name)
        self._machine, self._folder = machine, folder

    def has(self, root: Path) -> str:
        there = f"{self._folder}/acme-root.pem"
        argv = ["sh", "-c", PUT, "put", there]
        self._machine.run(argv, timeout=QUICK, stdin=root.read_bytes())
        return there


class NoProxy(Proxy):
    """A host without Caddy: good enough for what has no port."""

    def __init__(self, host: str) -> None:
        self._host = host

    def served(self) -> dict[str, tuple[str, int]]:
        return {}

    def serve(self, name: str, *, port: int, upstream: str, permit: Permit = granted) -> None:
        raise TrafficError(
            f"{self._host} has no Caddy, which sends traffic to containers. Install it there,"
            f" perhaps by 'gantry hosts prepare {self._host}', then deploy again."
        )

    def domains(self) -> dict[str, Domains]:
        return {}

    def name(
        self, name: str, domains: Domains | None, *, edge: Edge, permit: Permit = granted
    ) -> None:
        if domains:
            self.serve(name, port=domains.port, upstream="")

    def readdress(self, name: str, *, port: int, edge: Edge, permit: Permit = granted) -> None:
        """Nothing answers there."""

    def forget(self, name: str, *, permit: Permit = granted) -> None:
        """Nothing answers there."""

    def close(self, name: str, *, seconds: float, permit: Permit = granted) -> None:
        """Nothing answers there."""

    def drain(self, name: str, *, seconds: float, permit: Permit = granted) -> bool:
        return True


def open_proxy(machine: Connection) -> Proxy:
    """Raises TrafficError when Caddy is there and does not start."""
    if "caddy" not in machine.facts.programs:
        return NoProxy(machine.place.name)
    folder = folder_on(machine)
    proxy = HostProxy(machine, folder)
    if _answers(proxy):
        return proxy
    admin: Mapping[str, object] = {"listen": f"unix/{folder}/caddy.sock", "origins": ["localhost"]}
    config = json.dumps({"admin": admin}).encode()
    machine.run(["sh", "-c", START, "caddy", folder], timeout=QUICK, stdin=config)
    deadline = time.monotonic() + STARTS_WITHIN
    while not _answers(proxy):
        if time.monotonic() > deadline:
            said = machine.attempt(["tail", "-n", "3", f"{folder}/caddy.log"], timeout=QUICK).out
            raise TrafficError(
                f"Caddy does not start on {machine.place.name}: {said.strip()[-300:] or 'no word'}."
                f" Look at {folder} there."
            )
        time.sleep(0.05)
    return proxy


def folder_on(machine: Connection) -> str:
    """Where Caddy's socket, configuration and certificates are on the host."""
    if machine.facts.root:
        return "/var/lib/gantry-host"
    return f"{machine.facts.home}/.local/share/gantry-host"


def _answers(proxy: Proxy) -> bool:
    try:
        proxy.routes()
    except TrafficError:
        return False
    return True
