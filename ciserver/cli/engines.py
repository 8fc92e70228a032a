"""The podman or docker of the machine that the client runs on: its command lines, as values."""

from __future__ import annotations

import base64
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ciserver.cli.errors import CliError, Exit

PROGRAMS = ("podman", "docker")
# As on the hosts that Gantry deploys to: what runs there must run here, and the other way round.
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
CAP_SYS_RESOURCE = 24
OPEN_FILES, PROCESSES = 8192, 4096
GRACE = 10  # seconds between asking a container to stop and killing it
CGROUPS = Path("/sys/fs/cgroup")
OF_CREDENTIALS = {"auths", "credsStore", "credHelpers"}  # keys of docker's config.json


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A container to make. ``publish`` is (port here, port in it); ``command`` takes the place of
    the image's own."""

    name: str
    label: str
    reference: str  # REPOSITORY@DIGEST
    limits: tuple[int, float, int] | None  # memory in MiB, CPUs, processes
    publish: Sequence[tuple[int, int]] = ()
    command: Sequence[str] = ()
    interactive: bool = False
    terminal: bool = False


@dataclass(frozen=True, slots=True)
class Engine:
    """``program`` with the options that making a container needs on this machine."""

    program: str
    options: tuple[str, ...] = ()

    def has(self, reference: str) -> list[str]:
        return [self.program, "image", "inspect", "--format={{.Id}}", reference]

    def pull(self, reference: str, *, quiet: bool, folder: Path | None) -> list[str]:
        """``folder`` holds credentials as ``credentials`` writes them; the user's own without."""
        config = [f"--config={folder}"] if folder and self.program == "docker" else []
        words = [self.program, *config, "pull", *(["--quiet"] if quiet else [])]
        if self.program == "podman":
            words += [f"--authfile={folder}/config.json"] if folder else []
            # Docker takes these as insecure by itself.
            words += ["--tls-verify=false"] if is_loopback(reference) else []
        return [*words, reference]

    def create(self, asked: Asked) -> list[str]:
        """Reads ``env_file`` from standard input: arguments are seen by everybody here."""
        limits = []
        if asked.limits:
            memory, cpus, pids = asked.limits
            limits = [f"--memory={memory}m", f"--cpus={cpus:g}", f"--pids-limit={pids}"]
        return [
            self.program,
            "create",
            "--pull=never",  # only what was pulled by digest may start
            f"--name={asked.name}",
            f"--label=gantry.run={asked.label}",
            "--env-file=/dev/stdin",
            *limits,
            "--cap-drop=ALL",
            *(f"--cap-add={name}" for name in CAPABILITIES),
            "--security-opt=no-new-privileges",
            *(f"--publish=127.0.0.1:{here}:{there}" for here, there in asked.publish),
            *(["--interactive"] if asked.interactive else []),
            *(["--tty"] if asked.terminal else []),
            *self.options,
            asked.reference,
            *asked.command,
        ]

    def start(self, name: str) -> list[str]:
        return [self.program, "start", name]

    def attach(self, name: str, *, interactive: bool) -> list[str]:
        """Starts it, shows what it says, and ends with its exit code."""
        return [
            self.program,
            "start",
            "--attach",
            *(["--interactive"] if interactive else []),
            name,
        ]

    def stop(self, name: str) -> list[str]:
        return [self.program, "stop", f"--time={GRACE}", name]

    def kill(self, name: str) -> list[str]:
        """Also while it is asked to stop, which podman's ``rm`` would wait for."""
        return [self.program, "kill", name]

    def remove(self, name: str) -> list[str]:
        """Kills it if it runs. Podman would ask it first and wait ten seconds; docker does not."""
        at_once = ["--time=0"] if self.program == "podman" else []
        return [self.program, "rm", "--force", "--volumes", *at_once, name]


def find_engine(wanted: str = "") -> Engine:
    """``wanted``, or whichever of PROGRAMS works. Raises CliError with what each says."""
    if wanted and wanted not in PROGRAMS:
        raise CliError(
            f"{wanted!r} is no engine.", next_step="Use podman or docker.", exit_code=Exit.USAGE
        )
    said = []
    for program in (wanted,) if wanted else PROGRAMS:
        if complaint := _complaint(program):
            said.append(complaint)
        else:
            return Engine(program, _podman_options() if program == "podman" else ())
    raise CliError(
        f"No container engine works on this machine: {'; '.join(said)}.",
        next_step="Install podman or docker, or start it, then try again.",
        exit_code=Exit.REFUSED,
    )


def env_file(variables: Mapping[str, str]) -> bytes:
    """As both engines read it: lines, taken as they are."""
    return "".join(f"{name}={value}\n" for name, value in variables.items()).encode()


@contextmanager
def credentials(engine: Engine, registry: str, username: str, password: str) -> Iterator[Path]:
    """A folder with a ``config.json`` for the block, in memory where there is such a place."""
    memory = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a name of its own, for its owner alone
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="gantry-run-", dir=place) as name:
        folder = Path(name)
        config = _docker_settings(folder) if engine.program == "docker" else {}
        auth = base64.b64encode(f"{username}:{password}".encode()).decode()
        config["auths"] = {registry: {"auth": auth}}
        (folder / "config.json").write_text(json.dumps(config))
        yield folder


def is_loopback(reference: str) -> bool:
    """Whether its registry is on this very machine, where it speaks plain HTTP."""
    registry = reference.partition("/")[0]
    host = registry.rpartition(":")[0] or registry
    return host in {"localhost", "[::1]"} or host.startswith("127.")


def _docker_settings(folder: Path) -> dict[str, object]:
    """The user's own but for credentials: they say which daemon is meant (its context)."""
    own = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    if (own / "contexts").is_dir():
        (folder / "contexts").symlink_to((own / "contexts").resolve())
    try:
        found = json.loads((own / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    kept = found.items() if isinstance(found, dict) else ()
    return {key: value for key, value in kept if key not in OF_CREDENTIALS}


def _complaint(program: str) -> str:
    """Why ``program`` cannot be used; empty when it can."""
    if shutil.which(program) is None:
        return f"{program} is not installed"
    asked = [program, "ps", "--quiet", "--last=1"]
    told = subprocess.run(asked, capture_output=True, text=True, errors="replace", check=False)
    if told.returncode == 0:
        return ""
    words = told.stderr.strip().splitlines() or [f"exit code {told.returncode}"]
    return f"{program} does not work ({words[-1].strip().rstrip('.')})"


def _podman_options() -> tuple[str, ...]:
    """crun refuses a hybrid of cgroup v1 and v2, and runc takes it. Root without CAP_SYS_RESOURCE
    cannot give containers podman's default of a million open files. Elsewhere than on Linux
    podman's machine is a virtual one."""
    if sys.platform != "linux":
        return ()
    options = []
    if not (CGROUPS / "cgroup.controllers").exists() and shutil.which("runc"):
        options.append("--runtime=runc")
    if os.geteuid() == 0 and not _raises_limits():
        for name, kind, most in (
            ("nofile", resource.RLIMIT_NOFILE, OPEN_FILES),
            ("nproc", resource.RLIMIT_NPROC, PROCESSES),
        ):
            hard = resource.getrlimit(kind)[1]
            limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
            options.append(f"--ulimit={name}={limit}:{limit}")
    return tuple(options)


def _raises_limits() -> bool:
    lines = Path("/proc/self/status").read_text().splitlines()
    told = dict(line.split(":", 1) for line in lines if ":" in line)
    return bool(int(told["CapEff"], 16) >> CAP_SYS_RESOURCE & 1)
