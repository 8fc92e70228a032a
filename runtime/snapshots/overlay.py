"""The overlay mount itself (Documentation/filesystems/overlayfs.rst)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from runtime import owner, syscalls
from runtime.errors import HostError, SpecError
from runtime.spec import IdRange

if TYPE_CHECKING:
    from runtime.snapshots import LowerDir

# Shows layers with the owners of a range: yields their paths, bottom first, for the
# duration of the overlay's mount call.
View = Callable[[Sequence["LowerDir"], IdRange, Path], AbstractContextManager[Sequence[Path]]]

# redirect_dir and metacopy off: the upper must be a whole layer by itself. index off: lowers
# are shared between overlays. volatile: a scratch directory need not survive a power cut, so
# the fsyncs of package managers cost nothing.
OPTIONS = "redirect_dir=off,metacopy=off,index=off,xino=off,volatile"
DATA_MAXIMUM = 4095  # mount(2) copies one page
LAYERS_MAXIMUM = 200
MARK = "gantry:"  # an overlay has no source; ours says whose mount it is


def mount(lowers: Sequence[Path], upper: Path, work: Path, target: Path) -> None:
    """Mount an overlay at ``target``; ``work`` and ``target`` are made. Lowest layer first.

    Lowers are named by ``/proc/self/fd/N``: long store paths would not fit into one page.
    Raises SpecError for too many layers, HostError when the kernel refuses.
    """
    work.mkdir(mode=0o700)
    target.mkdir(mode=0o755, parents=True, exist_ok=True)
    if len(lowers) > LAYERS_MAXIMUM:
        raise SpecError(
            f"The image has {len(lowers) - 1} layers; at most {LAYERS_MAXIMUM - 1} can be mounted.",
            hint="Join some RUN instructions, or start from a flattened base.",
        )
    fds: list[int] = []
    try:
        for path in [upper, work, *reversed(lowers)]:
            fds.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        names = [f"/proc/self/fd/{fd}" for fd in fds]
        data = f"{OPTIONS},upperdir={names[0]},workdir={names[1]},lowerdir={':'.join(names[2:])}"
        if len(data) > DATA_MAXIMUM:
            raise SpecError(
                f"The image has too many layers to be mounted: {len(lowers) - 1}.",
                hint="Join some RUN instructions, or start from a flattened base.",
            )
        syscalls.mount(f"{MARK}{owner.token()}", target, "overlay", syscalls.MS_NODEV, data)
    except OSError as error:
        raise HostError(
            f"The layers cannot be mounted as an overlay at {target}: {error.strerror}.",
            hint="The store needs a file system such as ext4, xfs or btrfs; see dmesg.",
        ) from error
    finally:
        for fd in fds:
            os.close(fd)


def unmount(target: Path) -> None:
    """The overlay goes at once from here, from a process that still holds it later."""
    syscalls.umount2(target)


def unmount_dead(mountinfo: Path = Path("/proc/self/mountinfo")) -> list[Path]:
    """Unmount what dead makers left, newest first. Returns where it was."""
    dead = dead_targets(mountinfo.read_text())
    for target in dead:
        with suppress(OSError):
            syscalls.umount2(target)
    return dead


def dead_targets(mountinfo: str) -> list[Path]:
    """Targets of dead owners' mounts in a proc_pid_mountinfo(5), newest first."""
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        target = Path(_unescape(before.split(" ")[4]))
        source = after.split(" ")[1]
        for name in (source, target.name):  # of an overlay, of a layer's view (idmapped.py)
            if name.startswith(MARK) and not owner.is_alive(name.removeprefix(MARK)):
                found.append(target)
    return found[::-1]


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
