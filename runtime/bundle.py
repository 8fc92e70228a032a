"""SandboxSpec -> config.json of an OCI bundle (runtime-spec 1.0.2). Pure: no file is touched.

What the kernel, the host and the sandbox's own directory add is handed in as Surroundings.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime import namespaces, security
from runtime.cgroups.usage import CPU_PERIOD, quota
from runtime.errors import SpecError
from runtime.host import CgroupVersion
from runtime.spec import BindMount, Limits, Mount, Network, SandboxSpec, TmpfsMount

OCI_VERSION = "1.0.2"
CONFIG = "config.json"
SECRETS = "dev.gantry.secrets"  # annotation: which variables and mounts are secret
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MEMORY_MINIMUM = 8 * 1024 * 1024  # below this the OCI runtime's own start does not fit
OOM_SCORE = 500  # when the whole host runs out, a sandbox goes before the services
MOUNTED_BY_US = ("/dev", "/proc", "/sys")
IN_DEV = ("/dev/pipes",)  # where BuildKit shows a heredoc's script: nothing else of /dev is there
FILES_OF_ETC = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
ID_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a bundle needs to know beyond its spec. Paths are the host's."""

    cgroup_path: str  # absolute below the cgroup mount
    cgroup_version: CgroupVersion
    machine: str
    thermal_cpus: int
    hosts: Path
    hostname: Path
    resolv_conf: Path
    netns: Path | None = None  # joined instead of a fresh one
    sysfs: Path | None = None  # a sysfs of ``netns``; needed to show /sys when one is joined


def validate(spec: SandboxSpec) -> None:
    """Raise SpecError with one sentence when ``spec`` cannot be a sandbox."""
    if not ID_FORM.fullmatch(spec.id):
        raise SpecError(
            f"{spec.id!r} is no sandbox id: letters, digits, '.', '_' and '-', 1 to 64."
        )
    if not spec.args:
        raise SpecError("There is no command to run.", hint="Give at least the program's name.")
    _validate_text("argument", spec.args)
    _validate_text("environment variable", [f"{k}={v}" for k, v in spec.env.items()])
    if bad := [name for name in spec.env if not name or "=" in name]:
        raise SpecError(f"{bad[0]!r} is no name of an environment variable.")
    if spec.network is Network.PRIVATE and spec.netns is None:
        raise SpecError("A sandbox joins a private network by the netns of one of its members.")
    validate_cwd(spec.cwd)
    for number in (spec.user.uid, spec.user.gid, *spec.user.groups):
        if not 0 <= number < spec.ids.size:
            raise SpecError(
                f"User or group id {number} is outside the sandbox's {spec.ids.size} ids.",
                hint=f"Use an id from 0 to {spec.ids.size - 1}.",
            )
    _validate_limits(spec.limits)
    limited = spec.limits.disk is not None or spec.limits.inodes is not None
    if limited and spec.upper is None:
        raise SpecError("A limit of the disk needs the directory that is written to.")
    for mount in spec.mounts:
        _validate_mount(mount)


def validate_cwd(path: str) -> None:
    """Raises SpecError for what is no normal absolute path, or the kernel's."""
    _validate_path("working directory", path)
    if within(path, MOUNTED_BY_US):
        raise SpecError(f"The working directory may not be in {path}: it belongs to the kernel.")


def _validate_text(what: str, values: list[str] | tuple[str, ...]) -> None:
    for value in values:
        if "\0" in value:
            raise SpecError(f"An {what} holds a NUL byte: {value!r}.")


def _validate_path(what: str, path: str) -> None:
    if not path.startswith("/") or "\0" in path or posixpath.normpath(path) != path:
        raise SpecError(f"The {what} {path!r} is no normal absolute path.")


def within(path: str, parents: tuple[str, ...]) -> bool:
    """Whether normal ``path`` is one of ``parents`` or below one."""
    return any(path == parent or path.startswith(parent + "/") for parent in parents)


def _validate_mount(mount: Mount) -> None:
    _validate_path("mount target", mount.target)
    ours = within(mount.target, MOUNTED_BY_US) and not within(mount.target, IN_DEV)
    if mount.target == "/" or ours:
        raise SpecError(f"Nothing can be mounted at {mount.target}.")


def _validate_limits(limits: Limits) -> None:
    if limits.memory is not None and limits.memory < MEMORY_MINIMUM:
        raise SpecError(
            f"A memory limit of {limits.memory} bytes is too small to start anything.",
            hint=f"Use at least {MEMORY_MINIMUM // 1024 // 1024} MiB.",
        )
    if limits.cpus is not None and limits.cpus < 0.01:
        raise SpecError(f"A limit of {limits.cpus} CPUs is too small.", hint="Use at least 0.01.")
    if limits.pids is not None and limits.pids < 1:
        raise SpecError("A process limit is at least 1.")
    if limits.timeout is not None and limits.timeout <= 0:
        raise SpecError("A timeout is more than 0 seconds.")
    for name, value in (("silence", limits.silence), ("disk", limits.disk)):
        if value is not None and value <= 0:
            raise SpecError(f"A limit of {name} is more than 0.")
    for rate in (limits.io_read, limits.io_write):
        if rate is not None and rate < 1:
            raise SpecError("A limit of io is at least 1 byte a second.")
    if limits.io_weight is not None and not 1 <= limits.io_weight <= 1000:
        raise SpecError("A weight of io is a number from 1 to 1000.")
    if limits.inodes is not None and limits.inodes < 1:
        raise SpecError("A limit of files is at least 1.")


def build(spec: SandboxSpec, around: Surroundings) -> dict[str, Any]:
    """The whole config.json. Raises SpecError (see validate)."""
    validate(spec)
    return {
        "ociVersion": OCI_VERSION,
        "root": {"path": str(spec.rootfs), "readonly": spec.read_only},
        "hostname": spec.hostname,
        "process": process(spec),
        "mounts": mounts(spec, around),
        "linux": _linux(spec, around),
        **({"annotations": {SECRETS: ",".join(spec.secrets)}} if spec.secrets else {}),
    }


def process(spec: SandboxSpec) -> dict[str, Any]:
    """``process`` of config.json; also the whole file for ``exec --process``."""
    return {
        "terminal": False,
        "user": {
            "uid": spec.user.uid,
            "gid": spec.user.gid,
            "additionalGids": list(spec.user.groups),
        },
        "args": list(spec.args),
        "env": _environment(spec.env),
        "cwd": spec.cwd,
        "capabilities": security.capabilities(spec.user.uid),
        "noNewPrivileges": spec.no_new_privileges,
        "oomScoreAdj": OOM_SCORE,
    }


def _environment(env: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in ({"PATH": DEFAULT_PATH} | dict(env)).items()]


def mounts(spec: SandboxSpec, around: Surroundings) -> list[dict[str, Any]]:
    """Kernel file systems, then our three files of /etc, then what the caller asked for."""
    return [
        _mount("/proc", "proc", "nosuid", "noexec", "nodev"),
        _mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount(
            "/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620",
            "gid=5",
        ),
        _mount(
            "/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777",  # noqa: S108
            f"size={spec.limits.shm}",
        ),
        _mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
        _sys(around),
        _mount("/sys/fs/cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro"),
        _bind("/etc/hosts", around.hosts, "ro"),
        _bind("/etc/hostname", around.hostname, "ro"),
        _bind("/etc/resolv.conf", around.resolv_conf, "ro"),
        *(_asked(mount) for mount in spec.mounts),
    ]  # fmt: skip


def targets(spec: SandboxSpec) -> list[str]:
    """Where in the root file system something will be mounted."""
    return [*MOUNTED_BY_US, *FILES_OF_ETC, *(mount.target for mount in spec.mounts)]


def _sys(around: Surroundings) -> dict[str, Any]:
    """/sys: a sysfs can only be mounted by the user namespace that owns the network namespace."""
    if around.sysfs is None:
        return _mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro")
    return _bind("/sys", around.sysfs, "ro")


def _asked(mount: Mount) -> dict[str, Any]:
    if isinstance(mount, BindMount):
        return {
            "destination": mount.target,
            "type": "bind",
            "source": str(mount.source),
            "options": ["rbind", "rprivate", "nosuid", "nodev", "ro" if mount.read_only else "rw"],
        }
    return _tmpfs(mount)


def _tmpfs(mount: TmpfsMount) -> dict[str, Any]:
    return _mount(
        mount.target, "tmpfs", "nosuid", "nodev", f"size={mount.size}", f"mode={mount.mode:o}",
        f"uid={mount.uid}", f"gid={mount.gid}",
    )  # fmt: skip


def _mount(target: str, kind: str, *options: str) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": kind, "options": list(options)}


def _bind(target: str, source: Path, *options: str) -> dict[str, Any]:
    flags = ["bind", "rprivate", "nosuid", "nodev", "noexec", *options]
    return {"destination": target, "type": "bind", "source": str(source), "options": flags}


def _linux(spec: SandboxSpec, around: Surroundings) -> dict[str, Any]:
    mappings = namespaces.id_mappings(spec.ids)
    linux: dict[str, Any] = {
        "namespaces": namespaces.namespaces(spec.network, around.netns),
        "uidMappings": mappings,
        "gidMappings": mappings,
        "cgroupsPath": around.cgroup_path,
        "resources": resources(spec.limits, around.cgroup_version),
        "seccomp": security.seccomp_profile(around.machine),
        "maskedPaths": security.masked_paths(around.thermal_cpus),
        "readonlyPaths": _read_only_paths(around.cgroup_version),
    }
    if around.netns is None and spec.network is not Network.HOST:
        # The namespace is its own: users other than root may listen on low ports, as in Docker.
        linux["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "0"}
    return linux


def _read_only_paths(version: CgroupVersion) -> list[str]:
    """On v1 also the tmpfs that runc mounts below the controllers: writable and of any size."""
    paths = list(security.READ_ONLY_PATHS)
    return [*paths, "/sys/fs/cgroup"] if version is CgroupVersion.V1 else paths


def resources(limits: Limits, version: CgroupVersion) -> dict[str, Any]:
    """``linux.resources``. No device but the default pseudo-devices (null, zero, urandom, ...)."""
    found: dict[str, Any] = {"devices": [{"allow": False, "access": "rwm"}]}
    if limits.memory is not None:
        # runtime-spec: ``swap`` is memory and swap together, so the same figure means no swap.
        found["memory"] = {"limit": limits.memory, "swap": limits.memory}
        if version is CgroupVersion.V2:
            found["unified"] = {"memory.oom.group": "1"}
    if limits.cpus is not None:
        found["cpu"] = {"quota": quota(limits.cpus), "period": CPU_PERIOD}
    if limits.pids is not None:
        found["pids"] = {"limit": limits.pids}
    return found
