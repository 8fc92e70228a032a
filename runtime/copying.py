"""Copies files into and out of a running sandbox, whatever its processes do meanwhile.

Everything goes by directory fds: a name is opened once, below its directory and through no
link (openat2), and what was opened is what is looked at and read (CVE-2018-15664); no
program of the sandbox is run or loaded for it (CVE-2019-14271). A file appears under its
name whole, by a rename.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from runtime import bundle, cgroups, paths, syscalls
from runtime.errors import SpecError
from runtime.spec import MIB
from runtime.state import StateDirectory
from runtime.use import find, just_ended

MOST_BYTES = 4096 * MIB
DEEPEST = 64
CHUNK = MIB
KERNELS = ("/proc", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/pts")
BENEATH = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def copy_out(
    state: StateDirectory,
    id: str,
    path: str,
    target: Path,
    *,
    with_secrets: bool = False,
    max_bytes: int = MOST_BYTES,
    cancel: Event | None = None,
) -> None:
    """Copy a file or folder of a sandbox to ``target``, or into it where it is a folder.

    Files belong to the caller then, without setuid bits; links stay links, devices and pipes
    are left out. Raises SpecError for what cannot be, more than ``max_bytes``, secrets, and
    when cancelled; a folder may then be there in part.
    """
    with _root_of(state, id, with_secrets) as (root, blocked, _), _refused(path):
        source, name = paths.open_parent_in_root(root, path)
        try:
            into, new_name = (target, name) if target.is_dir() else (target.parent, target.name)
            with _opened(into) as folder:
                _Copier(blocked, None, max_bytes, cancel).copy(source, name, folder, new_name)
        finally:
            os.close(source)


def copy_in(
    state: StateDirectory,
    id: str,
    source: Path,
    path: str,
    *,
    max_bytes: int = MOST_BYTES,
    cancel: Event | None = None,
) -> None:
    """Copy ``source`` to ``path`` in a sandbox, or into it where it is a folder.

    Files belong to the sandbox's root. Raises as copy_out.
    """
    if not source.name or not os.path.lexists(source):
        raise SpecError(f"There is no {source} to copy.", hint="Name a file or folder of here.")
    with _root_of(state, id, True) as (root, blocked, base), _refused(path):
        found = paths.exists_in_root(root, path)
        if found is not None and stat.S_ISDIR(found.st_mode):
            folder, name = paths.open_in_root(root, path, os.O_RDONLY | os.O_DIRECTORY), source.name
        else:
            folder, name = paths.open_parent_in_root(root, path)
        try:
            if os.fstat(folder).st_dev in blocked:
                raise SpecError(
                    f"Nothing can be copied to {path}: it belongs to the kernel.",
                    hint="Choose a folder outside /dev, /proc and /sys.",
                )
            with _opened(source.absolute().parent) as above:
                copier = _Copier(frozenset(), (base, base), max_bytes, cancel)
                copier.copy(above, source.name, folder, name)
        finally:
            os.close(folder)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """An fd of a folder outside, which the caller vouches for."""
    with ExitStack() as stack:
        with _refused(str(folder)):
            fd = stack.enter_context(paths.open_root(folder))
        yield fd


@contextmanager
def _refused(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SpecError(
            f"{path} cannot be copied or written to: {error.strerror}.",
            hint="See whether it is there, and its folder.",
        ) from error


@contextmanager
def _root_of(
    state: StateDirectory, id: str, with_secrets: bool
) -> Iterator[tuple[int, frozenset[int], int]]:
    """(fd of the root as its processes see it, devices that are the kernel's, id of its root)."""
    box = find(state, id)
    try:
        config = json.loads((box.path / bundle.CONFIG).read_text())
        expected = Path(config["root"]["path"]).stat()
    except (OSError, ValueError):
        raise SpecError(
            f"The sandbox {id} is just starting or ending.", hint="Try again."
        ) from None
    if bundle.SECRETS in config.get("annotations", {}) and not with_secrets:
        raise SpecError(f"The sandbox {id} holds secrets.", hint="Ask with secrets if you may.")
    for pid in cgroups.open_cgroup(box.record.cgroup_name).processes():
        try:
            root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            # The OCI runtime's own first process still has the host's root.
            if not os.path.samestat(os.fstat(root), expected):
                continue
            kernels = [paths.exists_in_root(root, at) for at in KERNELS]
            yield root, frozenset(each.st_dev for each in kernels if each), _base(config)
            return
        finally:
            os.close(root)
    raise just_ended(id)


def _base(config: dict[str, dict[str, list[dict[str, int]]]]) -> int:
    return config["linux"]["uidMappings"][0]["hostID"]


@dataclass(slots=True)
class _Copier:
    """``blocked``: devices that are not entered. ``owner``: of what is made, None for ours."""

    blocked: frozenset[int]
    owner: tuple[int, int] | None
    left: int
    cancel: Event | None

    def copy(self, source: int, name: str, target: int, new_name: str, depth: int = 0) -> None:
        """The entry ``name`` of folder ``source`` to ``new_name`` in folder ``target``."""
        if depth > DEEPEST:
            raise SpecError(
                f"The folders are nested more than {DEEPEST} deep.",
                hint="Pack them with tar in the sandbox, and copy that.",
            )
        handle = syscalls.openat2(source, name, os.O_PATH | os.O_NOFOLLOW, resolve=BENEATH)
        try:
            found = os.fstat(handle)
            if found.st_dev in self.blocked:
                if depth == 0:
                    raise SpecError(
                        f"{name} cannot be copied: it belongs to the kernel.",
                        hint="Read it by `python -m runtime exec ID -- cat FILE`.",
                    )
            elif stat.S_ISREG(found.st_mode):
                self._file(handle, found, target, new_name)
            elif stat.S_ISDIR(found.st_mode):
                self._folder(handle, found, target, new_name, depth)
            elif stat.S_ISLNK(found.st_mode):
                os.symlink(os.readlink("", dir_fd=handle), new_name, dir_fd=target)
                if self.owner:
                    os.chown(new_name, *self.owner, dir_fd=target, follow_symlinks=False)
            elif depth == 0:
                raise SpecError(
                    f"{name} is no file, folder or link.", hint="Those alone can be copied."
                )
        finally:
            os.close(handle)

    def _file(self, handle: int, found: os.stat_result, target: int, new_name: str) -> None:
        part = f".gantry-{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        new = os.open(part, flags, 0o600, dir_fd=target)
        try:
            self._bytes(handle, new)
            if self.owner:
                os.fchown(new, *self.owner)
            os.fchmod(new, found.st_mode & 0o777)
            os.rename(part, new_name, src_dir_fd=target, dst_dir_fd=target)
        except BaseException:
            with suppress(OSError):
                os.unlink(part, dir_fd=target)
            raise
        finally:
            os.close(new)

    def _bytes(self, handle: int, new: int) -> None:
        with open(f"/proc/self/fd/{handle}", "rb", buffering=0) as file:  # noqa: PTH123
            while data := file.read(CHUNK):
                self.left -= len(data)
                if self.left < 0:
                    raise SpecError(
                        "There is more to copy than is allowed.",
                        hint=f"Copy it in parts of at most {MOST_BYTES // MIB} MiB.",
                    )
                if self.cancel is not None and self.cancel.is_set():
                    raise SpecError("Cancelled.", hint="A folder may be there in part.")
                view = memoryview(data)
                while view:
                    view = view[os.write(new, view) :]

    def _folder(
        self, handle: int, found: os.stat_result, target: int, new_name: str, depth: int
    ) -> None:
        with suppress(FileExistsError):
            os.mkdir(new_name, 0o700, dir_fd=target)
        new = syscalls.openat2(target, new_name, FOLDER, resolve=BENEATH)
        try:
            names = os.listdir(f"/proc/self/fd/{handle}")  # noqa: PTH208
            for name in sorted(names):
                with suppress(FileNotFoundError):  # gone by now
                    self.copy(handle, name, new, name, depth + 1)
            if self.owner:
                os.fchown(new, *self.owner)
            os.fchmod(new, found.st_mode & 0o777)
        finally:
            os.close(new)
