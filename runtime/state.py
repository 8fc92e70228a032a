"""What is on disk about sandboxes, so that a crash can be reaped.

    root/networks/<n>/            see runtime.network
    root/kept/<id>/               see runtime.kept
    root/unread/<id>/             see runtime.unread
    root/scratch/<owner>-<x>/     whatever a caller needs for as long as it lives
    root/boxes/<id>/record.json   who owns it, its cgroup
                    config.json   the OCI bundle
                    cancel        there once somebody has ended it (runtime.use.kill)
                    oci/  oci.log the OCI runtime's own state
                    stdout stderr and FIFOs of these           see runtime.outlets
                    hosts hostname resolv.conf                 bind-mounted into /etc

A record is there before anything that would have to be removed. Directories are 0711:
the sandbox's root, another user on the host, has to walk through them.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from runtime import owner
from runtime.cgroups import CgroupName
from runtime.errors import SpecError
from runtime.removal import remove_path

RECORD = "record.json"
UNFINISHED = ".new-"  # being made, or being removed


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of one sandbox from outside."""

    id: str
    owner: str
    cgroup: str
    cgroup_parent: str
    started: float
    command: str
    note: str = ""  # its owner's

    @property
    def cgroup_name(self) -> CgroupName:
        return CgroupName(self.cgroup, self.cgroup_parent)


@dataclass(frozen=True, slots=True)
class Box:
    """The directory of one sandbox, which is its OCI bundle too."""

    path: Path
    record: Record

    @property
    def oci_root(self) -> Path:
        return self.path / "oci"

    @property
    def cancel(self) -> Path:
        return self.path / "cancel"

    @property
    def oci_log(self) -> Path:
        return self.path / "oci.log"


class StateDirectory:
    """The directory that holds the sandboxes of one installation; made if it is missing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.boxes_dir = root / "boxes"
        self.networks_dir = root / "networks"
        self.scratch_dir = root / "scratch"
        self.kept_dir = root / "kept"
        self.unread_dir = root / "unread"
        below = (self.boxes_dir, self.networks_dir, self.scratch_dir, self.kept_dir)
        for directory in (root, *below, self.unread_dir):
            directory.mkdir(mode=0o711, parents=True, exist_ok=True)
            if directory.stat().st_mode & 0o111 != 0o111:
                directory.chmod(0o711)

    @contextmanager
    def open_box(self, id: str, *, parent: str, command: str, note: str = "") -> Iterator[Box]:
        """A new box; its directory is removed at the end. Raises SpecError for an id in use."""
        record = Record(
            id=id,
            owner=owner.token(),
            cgroup=f"{id}-{secrets.token_hex(4)}",
            cgroup_parent=parent,
            started=time.time(),
            command=command[:200],
            note=note,
        )
        box = Box(self.boxes_dir / id, record)
        self._make(box)
        try:
            yield box
        finally:
            self.remove(box)

    def _make(self, box: Box) -> None:
        """Filled beside its place, then renamed: no box is ever seen without its record."""
        new = self.boxes_dir / f"{UNFINISHED}{box.record.owner}-{box.record.id}"
        new.mkdir(mode=0o711)
        new.chmod(0o711)
        (new / RECORD).write_text(json.dumps(asdict(box.record)))
        try:
            new.rename(box.path)
        except OSError as error:
            remove_path(new)
            raise SpecError(
                f"A sandbox called {box.record.id} exists already.",
                hint="Choose another id, or wait for its end.",
            ) from error

    def remove(self, box: Box) -> None:
        """Moved aside first: others may be adding files of theirs (runtime.use), and find no place
        any more. What a crash leaves half removed is abandoned."""
        aside = self.boxes_dir / f"{UNFINISHED}{owner.token()}-{secrets.token_hex(8)}"
        with suppress(FileNotFoundError):
            box.path.rename(aside)
            remove_path(aside)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty directory for the block, removed after it, or by a reaper after a crash."""
        path = self.scratch_dir / f"{owner.token()}-{secrets.token_hex(4)}"
        path.mkdir(mode=0o711)
        path.chmod(0o711)
        try:
            yield path
        finally:
            remove_path(path)

    def dead_scratch(self) -> list[Path]:
        """Scratch directories whose owner is gone."""
        found = sorted(self.scratch_dir.iterdir())
        return [path for path in found if not owner.is_alive(path.name.partition("-")[0])]

    def boxes(self) -> list[Box]:
        """Every sandbox on record, living and dead."""
        return boxes_in(self.boxes_dir)

    def abandoned(self) -> list[Path]:
        """Directories of boxes that have no record, and whose maker is gone."""
        found = []
        for path in sorted(self.boxes_dir.iterdir()):
            if path.name.startswith(UNFINISHED):
                maker = path.name.removeprefix(UNFINISHED).partition("-")[0]
                if not owner.is_alive(maker):
                    found.append(path)
            elif not (path / RECORD).exists():  # it is in each box before that has its place
                found.append(path)
        return found


def boxes_in(directory: Path) -> list[Box]:
    found = []
    for path in sorted(directory.iterdir()):
        if path.name.startswith(UNFINISHED):
            continue  # being made or removed just now, or see abandoned()
        try:
            record = Record(**json.loads((path / RECORD).read_text()))
        except (OSError, ValueError, TypeError):
            continue
        found.append(Box(path, record))
    return found
