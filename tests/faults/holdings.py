"""What the service holds: memory, descriptors, mounts, cgroups, network namespaces.

Of a calm run, in which nothing is killed, none of it should grow with the number of builds (R13).
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from pathlib import Path

from tests.e2e.service import descendants
from tests.faults.installation import Installation

Holdings = Counter[str]


def take(service: Installation) -> Holdings:
    """MiB of memory and numbers of all else, of the service's processes and of the machine."""
    found: Holdings = Counter()
    for pid in descendants(service.supervisor.pid):
        with suppress(OSError, ValueError):
            status = Path(f"/proc/{pid}/status").read_text()
            found["memory, MiB"] += int(status.partition("VmRSS:")[2].split()[0]) // 1024
            found["descriptors"] += sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
            found["processes"] += 1
    found["mounts"] = len(Path("/proc/self/mountinfo").read_text().splitlines())
    groups = Path("/sys/fs/cgroup").glob("**/gantry/*/*")
    found["cgroups"] = sum(1 for group in groups if group.is_dir())
    for kind in ("boxes", "networks"):
        found[kind] = sum(1 for _ in (service.home / "sandboxes" / kind).glob("*"))
    return found


def growth(first: Holdings, last: Holdings) -> list[tuple[str, str, str]]:
    """Rows of a table: what was held after the first builds, and after all of them."""
    return [
        (f"held: {kind}", f"{first[kind]} -> {last[kind]}", "+10 %" if "MiB" in kind else "flat")
        for kind in sorted({*first, *last})
    ]
