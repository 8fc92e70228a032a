"""What this machine offers: kernel features, cgroup version and the OCI runtime to use."""

from __future__ import annotations

import enum
import os
import platform
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from runtime import process
from runtime.errors import HostError
from runtime.process import Command

CGROUP_ROOT = Path("/sys/fs/cgroup")
CGROUP_PARENT = "gantry"
KERNEL_NEEDED = (5, 12)  # cgroup.kill aside, everything below has a fallback from here on
KERNEL_IDMAPPED_OVERLAY = (5, 19)
PROGRAMS = {"unshare": "util-linux", "ip": "iproute2", "nft": "nftables"}  # and their packages
# runc with CVE-2025-31133, -52565 and -52881 closed.
RUNC_MENDED = (1, 2, 8)
REQUIRED_V2_CONTROLLERS = ("cpu", "memory", "pids")
REQUIRED_V1_CONTROLLERS = ("cpu", "cpuacct", "freezer", "memory", "pids")


class CgroupVersion(enum.Enum):
    """V1 includes the hybrid layout (v2 mounted beside it, without controllers)."""

    V1 = 1
    V2 = 2


@dataclass(frozen=True, slots=True)
class OciRuntime:
    """The program that makes containers; ``name`` is ``runc`` or ``crun``, or an untried one's."""

    name: str
    path: Path


def cgroup_version(root: Path = CGROUP_ROOT) -> CgroupVersion:
    """The version whose controllers are in use at ``root``."""
    return CgroupVersion.V2 if (root / "cgroup.controllers").exists() else CgroupVersion.V1


def kernel_version(release: str | None = None) -> tuple[int, int]:
    """(major, minor) of the running kernel."""
    found = re.match(r"(\d+)\.(\d+)", release or os.uname().release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def choose_runtime(
    version: CgroupVersion, which: Callable[[str], str | None] = shutil.which
) -> OciRuntime:
    """crun where cgroups are v2, runc on v1 and hybrid, which crun refuses.

    ``GANTRY_OCI_RUNTIME`` (a name or path) overrides. Raises HostError when none is installed.
    """
    forced = os.environ.get("GANTRY_OCI_RUNTIME")
    order = ("crun", "runc") if version is CgroupVersion.V2 else ("runc",)
    for name in (forced,) if forced else order:
        path = which(name)
        if path:
            kinds = [kind for kind in ("crun", "runc") if kind in Path(path).name]
            return OciRuntime(kinds[0] if kinds else Path(path).name, Path(path))
    raise HostError(
        f"No OCI runtime is installed (looked for {forced or ' and '.join(order)}).",
        hint=f"Install one: apt-get install {order[0]}",
    )


@lru_cache(maxsize=1)
def oci_runtime() -> OciRuntime:
    """The runtime of this machine, looked up once per process."""
    return choose_runtime(cgroup_version())


def machine() -> str:
    """The kernel's name of the processor architecture, e.g. ``x86_64``."""
    return platform.machine()


def check() -> list[str]:
    """Sentences on what is missing here for sandboxes to run; an empty list means ready."""
    checks = (
        *(_check_root, _check_kernel, _check_overlay, _check_cgroups),
        *(_check_runtime, _check_programs, _check_ns),
    )
    return [sentence for check_one in checks if (sentence := check_one())]


def notes() -> list[str]:
    """Sentences on what works here only in a slower or weaker way."""
    found = []
    if kernel_version() < KERNEL_IDMAPPED_OVERLAY:
        found.append(
            f"Linux {os.uname().release} cannot show layers through idmapped mounts; they are "
            "copied instead, which is slow. Linux 5.19 or newer does not need that."
        )
    with suppress(HostError):
        found += runtime_notes(runtime_version())
    return found


def runtime_version() -> str:
    """The first line of what the OCI runtime says of its version. Raises HostError."""
    said = process.run(Command((str(oci_runtime().path), "--version")))
    return said.partition("\n")[0].strip()


def runtime_notes(version: str) -> list[str]:
    """What there is to say about an OCI runtime's ``--version``. Pure."""
    found = re.match(r"runc version (\d+)\.(\d+)\.(\d+)", version)
    if not found or tuple(map(int, found.groups())) >= RUNC_MENDED:
        return []
    return [
        f"runc {'.'.join(found.groups())} may lack the fixes of November 2025 (CVE-2025-31133 and "
        "two more), unless your distribution has put them in. Sandboxes do not rely on them: the "
        "host's root has no name inside."
    ]


def _check_root() -> str:
    if os.geteuid() == 0:
        return ""
    return "Sandboxes need root, and this is not root. Run the command with sudo."


def _check_kernel() -> str:
    if kernel_version() >= KERNEL_NEEDED:
        return ""
    needed = ".".join(map(str, KERNEL_NEEDED))
    return (
        f"Linux {os.uname().release} is too old for sandboxes. Install Linux {needed} or newer "
        "(5.19 or newer for full speed)."
    )


def _check_overlay() -> str:
    if "overlay" in Path("/proc/filesystems").read_text() or shutil.which("modprobe"):
        return ""  # a module is loaded by the kernel at the first mount
    return "The kernel has no overlayfs. Load it with: modprobe overlay"


def _check_cgroups(root: Path = CGROUP_ROOT) -> str:
    if cgroup_version(root) is CgroupVersion.V2:
        have = set((root / "cgroup.controllers").read_text().split())
        missing = sorted(set(REQUIRED_V2_CONTROLLERS) - have)
    else:
        missing = sorted(c for c in REQUIRED_V1_CONTROLLERS if not (root / c).is_dir())
    if not missing:
        return ""
    return (
        f"The cgroup controllers {', '.join(missing)} are not available under {root}. "
        "Boot with them enabled (systemd.unified_cgroup_hierarchy=1)."
    )


def _check_runtime() -> str:
    try:
        choose_runtime(cgroup_version())
    except HostError as error:
        return str(error)
    return ""


def _check_programs(which: Callable[[str], str | None] = shutil.which) -> str:
    missing = [name for name in PROGRAMS if which(name) is None]
    if not missing:
        return ""
    packages = " ".join(dict.fromkeys(PROGRAMS[name] for name in missing))
    return f"Missing programs: {', '.join(missing)}. Install them: apt-get install {packages}"


def _check_ns() -> str:
    try:
        allowed = int(Path("/proc/sys/user/max_user_namespaces").read_text())
    except (OSError, ValueError):
        return "The kernel has no user namespaces (CONFIG_USER_NS). Use a kernel that has them."
    if allowed > 0:
        return ""
    return "User namespaces are switched off. Allow them: sysctl user.max_user_namespaces=65536"
