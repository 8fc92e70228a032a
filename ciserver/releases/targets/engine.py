"""Podman and docker command lines as values. Nothing here runs anything.

Both take the same words for nearly everything; the differences are the two ``Engine`` values
that ``choose`` makes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ciserver.releases.targets.errors import TargetError, understood
from ciserver.releases.targets.facts import Facts
from ciserver.releases.targets.spec import PREFIX, Container, Wanted, wrong_variable

# Moby's default set less MKNOD, NET_RAW and AUDIT_WRITE: images that start as root and then
# drop to a user of their own still work.
CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
)
OPEN_FILES, PROCESSES = 8192, 4096
ID_RANGE = 65536
# The shell and what it runs hold their folders locked: what they left when they were killed goes
# with the next pull a minute later, by when it would be locked; where flock is missing with one an
# hour later, since no pull takes so long.
WITH_CREDENTIALS = """
umask 077
find /dev/shm/gantry-pull-* "${TMPDIR:-/var/tmp}"/gantry-pull-* -maxdepth 0 -user "$(id -u)" \\
  \\( -mmin +60 -exec rm -rf {} + -o -mmin +1 -exec flock -n {} rm -rf {} \\; \\) 2>/dev/null
folder=$(mktemp -d -p /dev/shm gantry-pull-XXXXXX 2>/dev/null || mktemp -d)
TMPDIR=$(mktemp -d -p "${TMPDIR:-/var/tmp}" gantry-pull-XXXXXX 2>/dev/null || mktemp -d) || exit
export TMPDIR  # where podman leaves half layers when it is ended
trap 'rm -rf "$folder" "$TMPDIR"' EXIT
trap 'exit 1' HUP INT TERM
exec 8< "$folder" 9< "$TMPDIR"
flock -n 8 2>/dev/null && flock -n 9
cd "$folder" && cat > config.json && "$@"
"""
# podman 4.3 leaves the tar that it copies in behind, in its $TMPDIR. $0 is where that goes,
# in memory if the tar holds secrets; what a shell that was killed left there goes a day later.
MEMORY, DISK = "/dev/shm", "/var/tmp"  # noqa: S108, mktemp makes a folder there
COPY_IN = """
umask 077
find "$0"/gantry-copy-* -maxdepth 0 -mmin +1440 -user "$(id -u)" -exec rm -rf {} + 2>/dev/null
TMPDIR=$(mktemp -d -p "$0" gantry-copy-XXXXXX 2>/dev/null || mktemp -d) || exit
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
trap 'exit 1' HUP INT TERM
"$@"
"""
# "$@" lists containers. One that is removed meanwhile is only missing then. One whose removal was
# killed half way makes podman's inspect of all others fail, for ever: it is removed to its end.
INSPECT_ALL = """
ids=$("$@") || exit
[ -n "$ids" ] || exit 0
said=$("$1" container inspect $ids 2>/dev/null) && printf '%s\\n' "$said" && exit
for id in $("$@" --filter=status=removing 2>/dev/null); do "$1" rm --force $id >/dev/null 2>&1; done
for id in $("$@"); do "$1" container inspect $id 2>/dev/null; done
true
"""
# $0 is in seconds; "$@" removes a container, its last word.
END = 'for it; do :; done; "$1" stop --time="$0" "$it" >/dev/null; exec "$@"'
# podman's own --tail loses the beginning of a line that was written in pieces. $2 is how many.
LAST = '"$0" logs "$1" 2>&1 | tail -n "$2"'
# $0 is the engine's program, $1 a container, $2 an option or nothing.
COUNT = '"$0" logs $2 "$1" 2>/dev/null | wc -l; "$0" logs $2 "$1" 2>&1 >/dev/null | wc -l'
MARK = "GANTRY_COMMAND"  # a variable
# An engine's client that is killed leaves what it ran inside behind. $1 is the mark.
END_MARKED = """
for process in /proc/[0-9]*; do
  tr '\\0' '\\n' < "$process/environ" 2>/dev/null | grep -qx "$0=$1" && kill -9 "${process#/proc/}"
done
true
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """``program`` with what it needs on this kind of machine."""

    program: str  # "podman" or "docker"
    run_options: tuple[str, ...] = ()
    maps_ids: bool = False  # a container can have a range of host ids of its own

    def version(self) -> list[str]:
        return [self.program, "version", "--format", "{{.Client.Version}}"]

    def info(self) -> list[str]:
        return [self.program, "info", "--format", "{{json .}}"]

    def pull(self, reference: str, *, plain_http: bool) -> list[str]:
        """Reads a ``credentials.config`` from standard input: an argument would be seen in the
        process list. It is in a file, in memory, for the pull alone."""
        if self.program == "docker":
            # Docker takes 127.0.0.0/8 as insecure by itself, others by its daemon's settings.
            words = ["docker", "--config", ".", "pull", "--quiet", reference]
        else:
            verify = ["--tls-verify=false"] if plain_http else []
            authfile = ["--authfile", "config.json"]
            words = ["podman", "pull", "--quiet", *authfile, *verify, reference]
        return ["sh", "-c", WITH_CREDENTIALS, "pull", *words]

    def name_of(self, pulled: str, reference: str) -> str:
        """What to run after ``pull`` of ``reference`` printed ``pulled``: podman tells the id.
        Raises NotUnderstood."""
        words = pulled.split()
        return parse_id(words[-1], "'pull'") if self.program == "podman" and words else reference

    def run(self, wanted: Wanted, *, host_port: int) -> list[str]:
        """Starts ``wanted`` in the background and prints its id; one that is to have files is
        only made, for ``copy_in`` to come before its ``start``. Reads ``env_file(wanted.env)``
        from standard input.

        Its port is served on 127.0.0.1:``host_port``: one that docker chose would change each
        time the container is started again, and the proxy would send requests to the old one.
        """
        return [
            self.program,
            *(["create"] if wanted.files else ["run", "--detach"]),
            "--pull=never",  # only what was pulled by digest may start
            f"--name={wanted.name}",
            *(f"--label={PREFIX}{key}={value}" for key, value in wanted.labels.items()),
            # As arguments every user of the machine could read them; as variables of our own
            # they would reach the engine too (LD_PRELOAD); a file could be left behind.
            "--env-file=/dev/stdin",
            f"--memory={wanted.memory}",
            f"--cpus={wanted.cpus:g}",
            f"--pids-limit={wanted.pids}",
            "--cap-drop=ALL",
            *(f"--cap-add={name}" for name in CAPABILITIES),
            "--security-opt=no-new-privileges",
            *self._ids(wanted.id_base),
            *([f"--network={wanted.network}"] if wanted.network else []),
            # Started again after a crash, by docker itself or by us (see releases.watch); after a
            # reboot by docker, and for podman by the worker (see restoring.restore_routes).
            f"--restart={'no' if self._ids(wanted.id_base) else 'unless-stopped'}",
            "--log-opt=max-size=10m",
            *([f"--publish=127.0.0.1:{host_port}:{wanted.port}"] if wanted.port else []),
            *self.run_options,
            wanted.reference,
        ]

    def _ids(self, base: int | None) -> list[str]:
        """A project's containers run as its own host ids, never as host root. Docker maps all
        containers alike or none (userns-remap in its daemon's settings)."""
        if base is None or not self.maps_ids:
            return []
        return [f"--{kind}map=0:{base}:{ID_RANGE}" for kind in ("uid", "gid")]

    def create_network(self, name: str) -> list[str]:
        mine = f"--label={PREFIX}network={name}"
        if self.program == "docker":
            bridge = f"--opt=com.docker.network.bridge.name={bridge_of(name)}"
            return ["docker", "network", "create", mine, bridge, name]
        # Without DNS of its own: containers ask the machine's resolvers, as on podman's default
        # network, and nothing listens for them on the machine.
        return ["podman", "network", "create", mine, "--disable-dns", name]

    def remove_network(self, name: str) -> list[str]:
        """Refused by both engines while a container is in it."""
        return [self.program, "network", "rm", name]

    def list_networks(self) -> list[str]:
        """For ``parse_networks``."""
        chosen = f"--filter=label={PREFIX}network"
        shape = "{{.Name}}" if self.program == "docker" else "json"
        return [self.program, "network", "ls", chosen, f"--format={shape}"]

    def copy_in(self, container: str) -> list[str]:
        """Unpacks the tar on standard input at the container's root."""
        return ["sh", "-c", COPY_IN, MEMORY, self.program, "cp", "-", f"{container}:/"]

    def start(self, container: str) -> list[str]:
        return [self.program, "start", container]

    def inspect_all(self, labels: Mapping[str, str]) -> list[str]:
        """``inspect`` of every container with ``labels``, the newest first; may print nothing."""
        chosen = [f"--filter=label={PREFIX}{key}={value}" for key, value in labels.items()]
        listed = [self.program, "ps", "--all", "--quiet", "--no-trunc", *chosen]
        return ["sh", "-c", INSPECT_ALL, "containers", *listed]

    def inspect(self, containers: Sequence[str]) -> list[str]:
        return [self.program, "container", "inspect", *containers]

    def inspect_images(self, images: Sequence[str]) -> list[str]:
        return [self.program, "image", "inspect", *images]

    def remove_image(self, image: str) -> list[str]:
        """Not by force: refused while a container is made of it."""
        return [self.program, "image", "rm", image.removeprefix("sha256:")]

    def execute(self, container: str, command: Sequence[str]) -> list[str]:
        return [self.program, "exec", container, *command]

    def deaths(self, container: str) -> list[str]:
        """How it ended lately, one JSON a line. Once it is started again ``inspect`` says 0."""
        event = "die" if self.program == "docker" else "died"
        chosen = [f"--filter=container={container}", f"--filter=event={event}"]
        end = ["--until=0s"] if self.program == "docker" else ["--stream=false"]
        shape = "{{json .}}" if self.program == "docker" else "json"
        return [self.program, "events", "--since=30m", *end, *chosen, f"--format={shape}"]

    def follow_deaths(self, installation: str) -> list[str]:
        """One line for each container of ``installation`` that ends, for ever."""
        event = "die" if self.program == "docker" else "died"
        mine = f"--filter=label={PREFIX}installation={installation}"
        return [self.program, "events", f"--filter=event={event}", mine]

    def logs(self, container: str, lines: int) -> list[str]:
        if self._is_docker:
            return [self.program, "logs", f"--tail={lines}", container]
        return ["sh", "-c", LAST, self.program, container, str(lines)]

    def tell(self, container: str, *, tail: int, since: str, follow: bool) -> list[str]:
        """``logs`` as a person asks for them; ``since`` is a time or how long ago, such as 10m."""
        # podman's --tail is not for us: see LAST and ``count``.
        few = tail == 0 or (tail > 0 and self._is_docker)
        words = [f"--tail={tail}" if few else "--tail=all" if self._is_docker else ""]
        words += [f"--since={since}" if since else "", "--follow" if follow else ""]
        return [self.program, "logs", *filter(None, words), container]

    def count(self, container: str, *, tail: int, since: str) -> list[str]:
        """Prints how many lines ``tell`` says on either output; empty where it leaves out by itself
        what is before the last ``tail``."""
        if tail <= 0 or self._is_docker:
            return []
        since = f"--since={since}" if since else ""
        return ["sh", "-c", COUNT, self.program, container, since]

    def enter(self, container: str, command: Sequence[str], *, mark: str, stdin: bool) -> list[str]:
        """Run ``command`` inside; it and its children carry ``mark``, for ``END_MARKED``."""
        interactive = ["--interactive"] if stdin else []
        return [self.program, "exec", *interactive, f"--env={MARK}={mark}", container, *command]

    def get(self, container: str, path: str) -> list[str]:
        """Prints a tar of what is at ``path``."""
        return [self.program, "cp", f"{container}:{path}", "-"]

    def put(self, container: str, path: str) -> list[str]:
        """Unpacks a tar from standard input into the directory ``path``."""
        return ["sh", "-c", COPY_IN, DISK, self.program, "cp", "-", f"{container}:{path}"]

    def usage(self, containers: Sequence[str]) -> list[str]:
        """For each, a line: its id, its share of a core, its memory and the limit of that."""
        shape = "{{.ID}}\t{{.CPUPerc}}\t{{.MemUsage}}"
        return [self.program, "stats", "--no-stream", f"--format={shape}", *containers]

    @property
    def _is_docker(self) -> bool:
        return self.program == "docker"

    def stop(self, container: str, seconds: int) -> list[str]:
        return [self.program, "stop", f"--time={seconds}", container]

    def end(self, container: str, seconds: int) -> list[str]:
        """``stop`` it, if it is given time for that, and ``remove`` it, whatever came of it."""
        if self._is_docker and seconds:
            return ["sh", "-c", END, str(seconds), *self.remove(container)]
        return self._remove(container, seconds)

    def remove(self, container: str) -> list[str]:
        """Kills it if it runs."""
        return self._remove(container, 0)

    def _remove(self, container: str, seconds: int) -> list[str]:
        """Podman asks it first, and waits ten seconds if it is not told how many; docker kills."""
        patience = [] if self._is_docker else [f"--time={seconds}"]
        return [self.program, "rm", "--force", "--volumes", *patience, container]


def choose(program: str, machine: Facts) -> Engine:
    """The engine ``program`` on a machine like this.

    crun refuses a hybrid of cgroup v1 and v2, and runc takes it. Where we do not hold
    CAP_SYS_RESOURCE podman cannot give containers its own default of a million open files, and
    starts none.
    """
    if program == "docker":
        return Engine(program="docker", run_options=("--no-healthcheck",))
    # Podman's health timers need systemd; checks are run by us either way.
    options = ["--no-healthcheck"]
    if machine.hybrid:
        options.append("--runtime=runc")
    if not machine.raise_limits:
        files = min(OPEN_FILES, machine.files or OPEN_FILES)
        processes = min(PROCESSES, machine.processes or PROCESSES)
        options += [f"--ulimit=nofile={files}:{files}", f"--ulimit=nproc={processes}:{processes}"]
    # Without root everything is mapped to the user's ids already.
    return Engine(program="podman", run_options=tuple(options), maps_ids=machine.root)


def env_file(env: Mapping[str, str]) -> bytes:
    """``env`` as both engines read it: lines, taken as they are. Raises TargetError for what
    that cannot hold (see ``spec.wrong_variable``)."""
    if wrong := wrong_variable(env):
        raise TargetError(f"{wrong} Change it, then deploy again.")
    return "".join(f"{key}={value}\n" for key, value in env.items()).encode()


def bridge_of(network: str) -> str:
    """The device that docker makes for ``network``: at most 15 characters (IFNAMSIZ)."""
    return f"gtd{hashlib.sha256(network.encode()).hexdigest()[:10]}"


def parse_networks(listed: str) -> dict[str, str]:
    """Device by name, of the answer to ``Engine.list_networks``."""
    if listed.lstrip().startswith("["):
        with understood("'network ls'"):
            return {str(one["name"]): str(one["network_interface"]) for one in json.loads(listed)}
    return {name: bridge_of(name) for name in listed.split()}


def parse_containers(said: str, *, some: bool = True) -> list[Container]:
    """The answer to ``inspect``; with ``some`` of at least one. Raises NotUnderstood."""
    with understood("'container inspect'"):
        found = [parse_container(raw) for raw in _documents(said)]
        if some and not found:
            raise ValueError("it is empty")
        return found


def _documents(said: str) -> Iterator[Any]:
    """The elements of one JSON list, or of several, one after the other. Raises ValueError."""
    decoder, rest = json.JSONDecoder(), said.strip()
    while True:
        found, end = decoder.raw_decode(rest)
        yield from found
        rest = rest[end:].strip()
        if not rest:
            return


def parse_id(said: str, asked: str = "'run'") -> str:
    """The last word of ``said``, which is an ID. Raises NotUnderstood."""
    with understood(asked):
        id = said.rsplit(maxsplit=1)[-1]
        if not re.fullmatch(r"(sha256:)?[0-9a-f]{12,64}", id):
            raise ValueError(id)
        return id


def parse_container(raw: Mapping[str, Any]) -> Container:
    """One element of ``inspect``'s answer. Both engines use these names."""
    state = raw["State"]
    labels = raw["Config"].get("Labels") or {}
    return Container(
        id=raw["Id"],
        name=raw["Name"].lstrip("/"),
        image_id=raw["Image"],
        labels={k.removeprefix(PREFIX): v for k, v in labels.items() if k.startswith(PREFIX)},
        running=bool(state["Running"]),
        oom_killed=bool(state.get("OOMKilled")),
        restarts=int(raw.get("RestartCount") or 0),
        address=_address(raw),
        pid=int(state.get("Pid") or 0),
        started=str(state.get("StartedAt") or ""),
    )


def parse_exit_code(events: str) -> int | None:
    """The exit code in the last line of what ``deaths`` prints."""
    lines = events.split("\n")
    for line in reversed([line for line in lines if line.strip()]):
        with understood("'events'"):
            event = json.loads(line)
            code = event.get("ContainerExitCode")
            if code is None:
                code = (event.get("Actor", {}).get("Attributes") or {}).get("exitCode")
            return None if code is None else int(code)
    return None


def _address(raw: Mapping[str, Any]) -> str:
    ports = (raw.get("NetworkSettings") or {}).get("Ports") or {}
    for bindings in ports.values():
        for binding in bindings or ():
            if binding.get("HostIp") == "127.0.0.1":
                return f"127.0.0.1:{int(binding['HostPort'])}"
    return ""
