"""A worker's visit to a host: what is there, and installing what is not."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from ciserver.lib import file_lock, outbox
from ciserver.lib.words import size
from ciserver.releases import strangers
from ciserver.releases.fleet import SSH, TOPIC
from ciserver.releases.hosts import clock_problem, clock_words, opened, place_of
from ciserver.releases.models import Host
from ciserver.releases.targets import Target, connection
from ciserver.releases.targets.commands import QUICK
from ciserver.releases.targets.errors import HostKeyChanged, TargetError, understood
from ciserver.releases.targets.host_proxy import NoProxy
from ciserver.releases.targets.images import Location

CHECKING, PREPARING = "checking", "preparing"
UNDER_WAY = {"check": CHECKING, "prepare": PREPARING}
INSTALL_SECONDS = 900.0
LITTLE = 1 << 30  # bytes free that make a warning
PACKAGES = "podman netavark iptables nftables iproute2 uidmap slirp4netns caddy"
# Debian's caddy serves port 80 as soon as it is installed; we run an instance of our own.
PREPARE = f"""
if [ "$(id -u)" = 0 ]; then as=""; else as="sudo -n"; fi
command -v apt-get >/dev/null || {{ echo "it has no apt-get" >&2; exit 3; }}
had=$(command -v caddy || true)
export DEBIAN_FRONTEND=noninteractive
$as apt-get update -q && $as apt-get install -y -q --no-install-recommends {PACKAGES} || exit 4
if [ -z "$had" ] && [ -d /run/systemd/system ]; then $as systemctl disable --now caddy; fi
if [ -n "$as" ] && command -v loginctl >/dev/null; then $as loginctl enable-linger "$(id -un)"; fi
true
"""


def visit(host_id: int) -> None:
    """Do what a host was asked for, and then what it was asked for meanwhile.

    One worker at a time: the sweeper wakes another while this one is still at it. What a killed
    one had begun is begun anew, since the promise is kept only when nothing is asked any more.
    """
    with file_lock.alone(settings.GANTRY.run / f"visit-{host_id}.lock") as alone:
        while alone and (host := _claim(host_id)):
            check(host, problem=_prepare(host) if host.asked == PREPARING else "")
            Host.objects.filter(pk=host.pk, asked=host.asked).update(asked="")


@transaction.atomic
def _claim(host_id: int) -> Host | None:
    """The host, marked as visited, so that what is asked from now on is seen to be new; or None
    and the promise is kept."""
    host = Host.objects.select_for_update().filter(pk=host_id).first()
    if host is None or not host.asked:
        outbox.keep(TOPIC, host_id)
        return None
    host.asked = UNDER_WAY.get(host.asked, host.asked)
    host.save(update_fields=["asked"])
    return host


def check(host: Host, *, problem: str = "") -> None:
    """Write the report of ``host``, or why there is none; ``problem`` is what went wrong before."""
    report: dict[str, Any] = {}
    try:
        with opened(host, anew=True) as target:
            if host.asked == PREPARING:
                strangers.clear(target, host)
            report = look(target)
            report["warnings"] += strangers.warnings(target, host)
    except TargetError as error:
        problem = problem or str(error)
    found = {"problem": problem, "checked_at": timezone.now()}
    Host.objects.filter(pk=host.pk).update(**found, **({"report": report} if report else {}))


def look(target: Target) -> dict[str, Any]:
    """Everything that a deployment there depends on, and ``warnings`` with the next step."""
    facts, engine = target.machine.facts, target.engine
    said = target.machine.run(engine.info(), timeout=QUICK).out
    with understood("'info'"):
        storage = _storage(json.loads(said))
    version = target.machine.run(engine.version(), timeout=QUICK).out.strip()[:80]
    with understood("'df'"):
        free, total = _disk(target, storage)
    report = {
        "engine": f"{engine.program} {version}",
        "user": facts.user,
        "rootless": not facts.root and engine.program == "podman",
        "system": facts.system,
        "kernel": facts.kernel,
        "machine": facts.machine,
        "cgroups": "v1" if facts.hybrid else "v2",
        "disk_free": free,
        "disk_total": total,
        "clock": clock_words(facts.clock) or "right",
        "registry": _registry(target),
        "traffic": _traffic(target),
    }
    return report | {"warnings": _warnings(target, report)}


def _warnings(target: Target, report: dict[str, Any]) -> list[str]:
    found = []
    if report["disk_free"] < LITTLE:
        found.append(f"Only {size(report['disk_free'])} are free for images. Make room there.")
    if late := clock_problem(target):
        found.append(f"{late.capitalize()}.")
    if report["traffic"] != "caddy":
        found.append(f"{report['traffic'].rstrip('.').capitalize()}. Prepare the host.")
    if "nft" not in target.machine.facts.programs:
        found.append("It has no nft, without which no container starts. Prepare the host.")
    if report["rootless"] and report["cgroups"] == "v1":
        found.append(
            "Without root and with cgroup v1 podman sets no limits of memory, CPU and processes."
            " Boot it with cgroup v2, or use root's podman."
        )
    return found


def _storage(info: dict[str, Any]) -> str:
    return str(info.get("DockerRootDir") or (info.get("store") or {}).get("graphRoot") or "/")


def _disk(target: Target, path: str) -> tuple[int, int]:
    """Bytes free and in all where images are (POSIX ``df -Pk``)."""
    said = target.machine.attempt(["df", "-Pk", path], timeout=QUICK).out.splitlines()
    words = said[-1].split() if len(said) > 1 else []
    return (int(words[3]) * 1024, int(words[1]) * 1024) if len(words) > 3 else (0, 0)


def _registry(target: Target) -> str:
    location = Location(settings.GANTRY.registry, "any")
    if not hasattr(target.machine, "place"):
        return "directly"
    if not location.plain_http and target.machine.connects(location.endpoint, 5.0):
        return "directly"
    return "through the connection"


def _traffic(target: Target) -> str:
    try:
        proxy = target.proxy
        proxy.routes()
    except TargetError as error:
        return str(error)
    return "it has no caddy" if isinstance(proxy, NoProxy) else "caddy"


def _prepare(host: Host) -> str:
    """Install what a host needs; why not, or empty."""
    if host.kind != SSH:
        return ""
    try:
        with connection.connect(place_of(host), settings.GANTRY.run) as machine:
            argv = ["sh", "-c", PREPARE, "prepare", "apt-get", "install"]
            machine.run(argv, timeout=INSTALL_SECONDS)
    except HostKeyChanged as error:
        Host.objects.filter(pk=host.pk).update(offered_key=error.fingerprint or "unknown")
        return str(error)
    except TargetError as error:
        return f"{error} Install {PACKAGES} there by hand, then check the host."
    return ""
