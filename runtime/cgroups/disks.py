"""The disks whose bandwidth a cgroup can bound: whole ones, for the kernel takes no partition."""

from __future__ import annotations

from pathlib import Path

BLOCK = Path("/sys/block")
NO_DISKS = ("loop", "ram", "zram")  # what is behind a loop device is counted on its own disk


def whole_disks(block: Path = BLOCK) -> list[str]:
    """``major:minor`` of every disk of this machine."""
    try:
        found = sorted(path for path in block.iterdir() if not path.name.startswith(NO_DISKS))
        return [(path / "dev").read_text().strip() for path in found]
    except OSError:  # a machine without any, or a disk that was just taken out
        return []
