"""What a machine is like, asked by one script that any POSIX shell runs. Nothing here runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ciserver.releases.targets.errors import TargetError

CAP_SYS_RESOURCE = 24
PATH = "export LC_ALL=C.UTF-8 PATH=$PATH:/usr/local/bin:/usr/sbin:/sbin"
PROGRAMS = ("podman", "docker", "nft", "caddy", "apt-get", "systemd-run")
# Its bridges are in its daemon's network namespace, where we cannot put a firewall before them.
ROOTLESS = (
    "docker there runs without root, and its containers would be out of reach of the firewall:"
    " that is not supported. podman without root is, and so is root's docker"
)
# Which engine works is found by asking each.
ASK = f"""
for one in podman docker; do
  command -v $one >/dev/null 2>&1 || continue
  if said=$($one ps --quiet --last=1 2>&1 >/dev/null); then
    case $([ $one = docker ] && docker info --format '{{{{.SecurityOptions}}}}' 2>/dev/null) in
      *name=rootless*) echo "says={ROOTLESS}"; continue ;;
    esac
    echo works=$one; break
  fi
  echo says=$one does not work: $(echo "$said" | tail -n 1)
done
"""
# With as few processes as there can be: each deployment waits for it.
REST = f"""
echo user=${{USER:-$(id -un)}}
echo home=$HOME
[ -e /sys/fs/cgroup/cgroup.controllers ] && echo unified=1
tell() {{
  while read -r a b c d e f; do
    case "$a $b $c" in
      "Uid: "*) echo uid=$c ;;
      "CapEff: "*) echo caps=$b ;;
      "Max processes "*) echo processes=$d ;;
      "Max open files") echo files=$e ;;
    esac
  done
}}
tell </proc/self/status
tell </proc/self/limits
for one in {" ".join(PROGRAMS)}; do command -v $one >/dev/null 2>&1 && echo has=$one; done
echo clock=$(date +%s)
read -r a </proc/sys/kernel/osrelease && echo kernel=$a
echo machine=$(uname -m)
[ -r /etc/os-release ] && . /etc/os-release && echo system=$PRETTY_NAME
"""


def script(known: str = "") -> str:
    """What to run for ``parse``. ``known`` is the engine that worked the last time: it is told as
    working if it is there, and nothing is if it is not."""
    if not known:
        return f"{REST}{ASK}true\n"
    return f"{REST}command -v {known} >/dev/null 2>&1 && echo works={known}\ntrue\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """``files`` and ``processes`` are hard limits, None without one. ``clock`` is in seconds
    since 1970, when it was asked."""

    uid: int
    user: str
    home: str
    hybrid: bool  # cgroup v1, alone or beside v2
    raise_limits: bool  # we hold CAP_SYS_RESOURCE there
    files: int | None
    processes: int | None
    programs: frozenset[str]
    engine: str  # podman or docker, whichever works; else empty
    complaints: tuple[str, ...]  # why not
    clock: int
    kernel: str
    machine: str
    system: str

    @property
    def root(self) -> bool:
        return self.uid == 0


def parse(said: str) -> Facts:
    """What ``script`` printed. Raises TargetError when it was not a POSIX shell that answered."""
    lines = [line.partition("=") for line in said.splitlines()]
    one = {key: value for key, _, value in lines}
    try:
        return Facts(
            uid=int(one["uid"]),
            user=one["user"],
            home=one["home"],
            hybrid="unified" not in one,
            raise_limits=one["uid"] == "0" and bool(int(one["caps"], 16) >> CAP_SYS_RESOURCE & 1),
            files=_limit(one, "files"),
            processes=_limit(one, "processes"),
            programs=frozenset(value for key, _, value in lines if key == "has"),
            engine=one.get("works", ""),
            complaints=tuple(value for key, _, value in lines if key == "says"),
            clock=int(one["clock"]),
            kernel=one["kernel"],
            machine=one["machine"],
            system=one.get("system", ""),
        )
    except (KeyError, ValueError) as error:
        raise TargetError(
            f"The host did not say what it is like ({error}). It must be Linux, with a POSIX shell"
            f" for the account. It said: {said.strip()[-200:] or 'nothing'}"
        ) from None


def _limit(one: Mapping[str, str], name: str) -> int | None:
    return int(one[name]) if one[name].isdecimal() else None
