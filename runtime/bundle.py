"""SandboxSpec -> config.json of an OCI bundle (runtime-spec 1.0.2). Pure: no file is touched.

What the kernel, the host and the sandbox's own directory add is handed in as Surroundings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime import namespaces, security, validation
from runtime.cgroups.usage import CPU_PERIOD, quota
from runtime.host import CgroupVersion
from runtime.spec import BindMount, Limits, Mount, Network, SandboxSpec, TmpfsMount

OCI_VERSION = "1.0.2"
CONFIG = "config.json"
SECRETS = "dev.gantry.secrets"  # annotation: which variables and mounts are secret
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OOM_SCORE = 500  # when the whole host runs out, a sandbox goes before the services
FILES_OF_ETC = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")


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


def build(spec: SandboxSpec, around: Surroundings) -> dict[str, Any]:
    """The whole config.json. Raises SpecError (see runtime.validation)."""
    validation.validate(spec)
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
    return [*validation.MOUNTED_BY_US, *FILES_OF_ETC, *(mount.target for mount in spec.mounts)]


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
