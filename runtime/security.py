"""What a sandbox's processes may not do: capabilities, system calls, hidden paths.

Fragments of config.json (runtime-spec "Linux Process", "Masked Paths", "Seccomp"); pure.
"""

from __future__ import annotations

from typing import Any

from runtime import seccomp

# Moby's fourteen less MKNOD, NET_RAW and AUDIT_WRITE: no build and no test needs those, and
# raw sockets are how a neighbour's traffic is forged.
CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)

# Moby's list with the newer ones (interrupts: timing side channel; thermal_throttle and
# powercap: power side channels).
MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READ_ONLY_PATHS = (
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)


def capabilities(uid: int) -> dict[str, list[str]]:
    """``process.capabilities``: the whole set for the sandbox's root, none for another user.

    The bounding set stays for every user, so that setuid programs such as ``su`` and
    ``sudo`` work where ``no_new_privileges`` is off. Ambient and inheritable are always empty.
    """
    held = list(CAPABILITIES) if uid == 0 else []
    return {
        "bounding": list(CAPABILITIES),
        "effective": held,
        "permitted": held,
        "inheritable": [],
        "ambient": [],
    }


def masked_paths(cpus: int) -> list[str]:
    """Paths shown empty. ``cpus``: how many processors have a thermal_throttle directory."""
    throttle = [f"/sys/devices/system/cpu/cpu{n}/thermal_throttle" for n in range(cpus)]
    return [*MASKED_PATHS, *throttle]


def seccomp_profile(machine: str) -> dict[str, Any]:
    """``linux.seccomp`` for this processor architecture."""
    return seccomp.profile(machine)
