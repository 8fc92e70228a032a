"""Where cache mounts are kept: a folder per lane of trust and id, with a cap for each lane.

``caches/LANE/ID/`` holds ``tree``, what is mounted; ``use``, locked shared while a step has it
mounted and as old as its last use; ``lock`` for sharing=locked; ``name`` and ``bytes`` for the
cap. Names come from Dockerfiles, so they are hashed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from builders.images.prune import CACHES, tree_bytes
from builders.images.store import Store
from runtime.removal import remove_path

Say = Callable[[str], None]
Fill = Callable[[Path], None]
LOOK = 0.05  # seconds between two looks at a cache that another step has to itself


@dataclass(frozen=True)
class Lane:
    """The caches that the builds of one lane of trust have together, at most ``most`` bytes.

    ``base`` is the host id of the sandboxes' uid 0, which owns what is in them.
    """

    store: Store
    scope: str
    base: int
    most: int

    @property
    def folder(self) -> Path:
        parts = f"{self.scope}\0{self.base}"
        return self.store.root / CACHES / hashlib.sha256(parts.encode()).hexdigest()[:32]

    def open(
        self, stack: ExitStack, name: str, *, sharing: str, owner: tuple[int, int], mode: int,
        say: Say, check: Callable[[], None], fill: Fill | None = None,
    ) -> Path:  # fmt: skip
        """The tree to mount for the cache ``name``, held until ``stack`` closes.

        With ``sharing`` private, who comes second gets an empty one of its own; locked waits.
        ``owner`` are ids inside. ``say`` hears what the cap took away, and that it waits; ``check``
        is called meanwhile, and what it raises ends the waiting. ``fill`` writes what a new one
        begins with into the folder it is given, whose owner and mode stay.
        """
        folder = self.folder / hashlib.sha256(name.encode()).hexdigest()
        use = _use(stack, folder)
        if sharing == "private" and not _lock(stack, folder):
            folder = Path(tempfile.mkdtemp(prefix="private-", dir=self.folder))
            stack.callback(remove_path, folder)
            use = _use(stack, folder)
        elif sharing == "locked" and not _lock(stack, folder):
            shown = name.partition("\0")[0]
            say(f"Notice: another step has the cache mount {shown} to itself; this one waits.\n")
            while not _lock(stack, folder):
                check()
                time.sleep(LOOK)
        (folder / "name").write_text(name)
        tree = folder / "tree"
        stack.callback(self._cap, folder, use, say)
        if tree.exists():
            return tree
        if fill is not None:
            self._filled(tree, fill)
            return tree
        tree.mkdir(parents=True, exist_ok=True)
        os.chown(tree, self.base + owner[0], self.base + owner[1])
        tree.chmod(mode)
        return tree

    def _filled(self, tree: Path, fill: Fill) -> None:
        """Make ``tree`` whole or not at all; of two steps at once the first one's stays."""
        with self.store.staging() as staging:
            (staging / "tree").mkdir()
            fill(staging / "tree")
            try:
                (staging / "tree").rename(tree)
            except OSError:  # another step's may hold files already
                if not tree.is_dir():
                    raise

    def _cap(self, folder: Path, use: int, say: Say) -> None:
        """Empty what was not used for longest until the lane fits; what is mounted stays."""
        _write_bytes(folder, tree_bytes(folder / "tree"))
        sizes = {each: _bytes(each) for each in self.folder.iterdir()}
        total = sum(sizes.values())
        others = sorted((each for each in sizes if each != folder), key=_last_use)
        for each in [*others, folder]:
            if total <= self.most:
                return
            if sizes[each] and self._emptied(each, use if each == folder else None):
                total -= sizes[each]
                say(
                    f"Notice: the cache mounts held more than {self.most >> 20} MiB in all, "
                    f"so {_name(each)} was emptied of {sizes[each] / 2**20:.1f} MiB.\n"
                )

    def _emptied(self, folder: Path, use: int | None) -> bool:
        """Whether nobody else has it mounted, so that it could be emptied."""
        with contextlib.ExitStack() as stack:
            if use is None:
                try:
                    use = os.open(folder / "use", os.O_RDWR | os.O_CLOEXEC)
                except OSError:
                    return False  # pruning took it
                stack.callback(os.close, use)
            try:
                fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
            with self.store.staging() as staging, suppress(FileNotFoundError):
                (folder / "tree").rename(staging / "full")
            _write_bytes(folder, 0)
        return True


def _use(stack: ExitStack, folder: Path) -> int:
    """Hold the cache against pruning for as long as the step runs; return the lock's fd."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            fd = os.open(folder / "use", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(fd, fcntl.LOCK_SH)
            if (folder / "use").exists() and os.path.samestat(
                os.fstat(fd), (folder / "use").stat()
            ):
                stack.callback(os.close, fd)
                os.utime(fd)
                return fd
            os.close(fd)  # pruning took it between the two lines above


def _lock(stack: ExitStack, folder: Path) -> bool:
    """Whether nobody had it, so that it is ours now."""
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return False
    stack.callback(os.close, fd)
    return True


def _write_bytes(folder: Path, size: int) -> None:
    with suppress(FileNotFoundError):
        (folder / "bytes").write_text(str(size))


def _bytes(folder: Path) -> int:
    try:
        return int((folder / "bytes").read_text() or 0)
    except (OSError, ValueError):
        return 0  # a step has it for the first time, and will say how much it is


def _last_use(folder: Path) -> float:
    try:
        return (folder / "use").stat().st_mtime
    except OSError:
        return 0.0


def _name(folder: Path) -> str:
    try:
        return (folder / "name").read_text().partition("\0")[0][:100]
    except OSError:
        return "one"
