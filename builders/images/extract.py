"""A layer's tar unpacked into a tree, in the form overlayfs wants for a lower directory.

The archive is hostile until proven otherwise. No path of it is ever given to the
kernel whole without ``openat2(RESOLVE_IN_ROOT)``: parents are opened as directory
fds inside the tree, and the last component is created or replaced without
following anything. So links, absolute names and races cannot lead outside.
Devices are never made (a sandbox has its own /dev). Names and links otherwise
mean what they mean to containerd: a member may pass through a symlink of the same
layer, which is resolved inside the tree.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from builders.images import tarformat, xattrs
from builders.images.layers import OPAQUE_MARKER, WHITEOUT, LayerLimits, LayerTooBig
from builders.images.streams import CHUNK, TarStream
from builders.images.tarformat import BadTar, Member
from runtime.paths import open_in_root
from runtime.removal import remove_tree

_AUFS = b".wh..wh."
_NANO = 1_000_000_000
_LONGEST_PATH = 4096
_LARGEST_HEADER = 1 << 20
_LARGEST_ID = (1 << 32) - 2
_LATEST = (1 << 34) * _NANO  # what ext4 can store, year 2446
_PARENTS_KEPT = 64
_MOST_NAMES = 256 << 20  # bytes of directory names held in memory
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def extract_tar(
    stream: TarStream,
    tree: Path | int,
    *,
    base: int,
    limits: LayerLimits,
    implied: set[str] | None = None,
) -> int:
    """Unpack ``stream`` into the existing directory ``tree`` (a path, or open); count its members.

    Files that are there already are replaced; for a layer it is to be empty. Into ``implied``
    go the paths of directories that were made because something is in them, and that no member
    describes.

    Owners are the tar's plus ``base``. The stream is read to its very end, so its digest
    is complete afterwards; judging it is the caller's.

    Raises BadTar, LayerTooBig; OSError where the disk fails.
    """
    root = os.dup(tree) if isinstance(tree, int) else os.open(tree, _DIRECTORY | os.O_NOFOLLOW)
    extractor = _Extractor(stream, root, base)
    try:
        count = 0
        for member in read_members(stream):
            count += 1
            if count + extractor.parents_made > limits.files:
                raise LayerTooBig(f"The layer has more than {limits.files} files.")
            extractor.member(member)
        extractor.finish()
        if implied is not None:
            implied |= {os.fsdecode(path) for path in extractor.implied}
    finally:
        extractor.close()
        os.close(root)
    stream.drain()
    return count


def read_members(stream: TarStream) -> Iterator[Member]:
    """The members of a tar, pax and GNU headers applied.

    The consumer reads exactly ``member.size`` bytes of data before it asks for the next.
    """
    records: dict[bytes, bytes] = {}
    name = link = None
    while True:
        block = stream.read(tarformat.BLOCK)
        if not any(block):
            return
        member = tarformat.decode(block)
        if member.type in _HEADERS:
            if member.size > _LARGEST_HEADER:
                raise BadTar("it holds an extended header of more than 1 MiB")
            body = stream.read(member.size)
            stream.skip(tarformat.padding(member.size))
            if member.type == tarformat.PAX:
                records = tarformat.parse_pax(body)
            elif member.type == tarformat.GNU_LONG_NAME:
                name = body.partition(b"\0")[0]
            elif member.type == tarformat.GNU_LONG_LINK:
                link = body.partition(b"\0")[0]
            continue  # a global header (git archive's comment) changes nothing, as in Go
        member.name = name if name is not None else member.name
        member.link = link if link is not None else member.link
        tarformat.apply_pax(member, records)
        records, name, link = {}, None, None
        if member.size < 0:
            raise BadTar("a member has a negative size")
        if member.type != tarformat.REGULAR and member.type in _DATALESS:
            member.size = 0
        stream.foresee(member.size)
        yield member
        stream.skip(tarformat.padding(member.size))


_HEADERS = frozenset(
    (tarformat.PAX, tarformat.PAX_GLOBAL, tarformat.GNU_LONG_NAME, tarformat.GNU_LONG_LINK)
)
_DATALESS = frozenset(
    (
        tarformat.HARD_LINK,
        tarformat.SYMLINK,
        tarformat.CHARACTER_DEVICE,
        tarformat.BLOCK_DEVICE,
        tarformat.DIRECTORY,
        tarformat.FIFO,
    )
)


class _Extractor:
    """Puts members into one tree. Directories stay open while members go into them."""

    def __init__(self, stream: TarStream, root: int, base: int) -> None:
        self._stream = stream
        self._root = root
        self._base = base
        self._parents: dict[bytes, int] = {}
        self._stale = False
        self._directory_times: dict[bytes, int] = {}
        self._names = 0
        self.implied: set[bytes] = set()
        self.parents_made = 0

    def member(self, member: Member) -> None:
        path = clean(member.name)
        if not path:
            self._stream.skip(member.size)
            return
        self._drop_stale_parents()
        parent_path, _, name = path.rpartition(b"/")
        if member.type != tarformat.REGULAR and member.type not in _DATALESS:
            raise BadTar(f"{_show(path)} is of the unknown type {member.type!r}")
        try:
            parent = self._parent(parent_path)
            if name.startswith(WHITEOUT):
                self._whiteout(parent, name, path)
                self._stream.skip(member.size)
            else:
                self._create(member, parent, name, path)
        except OSError as error:
            if error.errno is not None and error.errno in _DISK_FAULTS:
                raise
            raise BadTar(f"{_show(path)} cannot be unpacked: {error.strerror}") from error

    def close(self) -> None:
        """Nothing may be put afterwards. May be called twice."""
        self._forget_parents()

    def finish(self) -> None:
        """Give directories their times, which filling them has changed."""
        self._forget_parents()
        for path, mtime in self._directory_times.items():
            # A later member may have put something else there.
            with contextlib.suppress(OSError):
                fd = open_in_root(self._root, os.fsdecode(path), _DIRECTORY | os.O_NOFOLLOW)
                try:
                    os.utime(fd, ns=(mtime, mtime))
                finally:
                    os.close(fd)

    def _create(self, member: Member, parent: int, name: bytes, path: bytes) -> None:
        if member.type == tarformat.DIRECTORY:
            self._directory(member, parent, name, path)
        elif member.type == tarformat.REGULAR:
            self._regular(member, parent, name)
        elif member.type == tarformat.SYMLINK:
            self._make_room(parent, name)
            os.symlink(member.link, name, dir_fd=parent)
            self._own(member, name, parent)
        elif member.type == tarformat.HARD_LINK:
            self._hard_link(member, parent, name)
        elif member.type == tarformat.FIFO:
            self._make_room(parent, name)
            os.mkfifo(name, 0o600, dir_fd=parent)
            self._own(member, name, parent)
            os.chmod(name, member.mode, dir_fd=parent)  # mkfifo's is less the umask

    def _regular(self, member: Member, parent: int, name: bytes) -> None:
        try:
            fd = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
        except FileExistsError:
            self._make_room(parent, name)
            fd = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
        try:
            left = member.size
            while left:
                part = self._stream.read_some(min(left, CHUNK))
                if not part:
                    raise BadTar("it ends in the middle")
                left -= len(part)
                while part:
                    part = part[os.write(fd, part) :]
            self._settle(fd, member)
        finally:
            os.close(fd)

    def _directory(self, member: Member, parent: int, name: bytes, path: bytes) -> None:
        fd = self._open_or_make_directory(parent, name)
        try:
            self._settle(fd, member)
        finally:
            os.close(fd)
        self._remember(path)
        self._directory_times[path] = _time(member)
        self.implied.discard(path)

    def _remember(self, path: bytes) -> None:
        self._names += len(path)
        if self._names > _MOST_NAMES:
            raise LayerTooBig("The names of the layer's directories exceed the size limit.")

    def _open_or_make_directory(self, parent: int, name: bytes) -> int:
        """A directory of that name, whatever was there; opaque where it replaces a whiteout."""
        opaque = False
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                opaque = _is_whiteout(status)
                self._make_room(parent, name)
                os.mkdir(name, 0o755, dir_fd=parent)
        fd = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        if opaque:
            os.setxattr(fd, xattrs.OPAQUE, b"y")
        return fd

    def _hard_link(self, member: Member, parent: int, name: bytes) -> None:
        target = clean(member.link)
        folder, _, last = target.rpartition(b"/")
        if not last:
            raise BadTar("a hard link leads nowhere")
        source = self._parent(folder, make=False)
        status = os.stat(last, dir_fd=source, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISLNK(status.st_mode):
            raise BadTar(f"the hard link to {_show(target)} leads to no file")
        if source == parent and last == name:
            return
        self._make_room(parent, name)
        os.link(last, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)

    def _whiteout(self, parent: int, name: bytes, path: bytes) -> None:
        if name == OPAQUE_MARKER:
            if parent == self._root:
                raise BadTar("it marks the root directory opaque")
            os.setxattr(parent, xattrs.OPAQUE, b"y")
            return
        if name.startswith(_AUFS):
            return  # bookkeeping of AUFS, which docker skips as well
        victim = name.removeprefix(WHITEOUT)
        if victim in (b"", b".", b".."):
            raise BadTar(f"{_show(path)} removes nothing that has a name")
        try:
            os.mknod(victim, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
        except FileExistsError:
            # A whiteout hides lower layers only; this layer's own file stays.
            status = os.stat(victim, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                fd = os.open(victim, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
                try:
                    os.setxattr(fd, xattrs.OPAQUE, b"y")
                finally:
                    os.close(fd)

    def _settle(self, fd: int, member: Member) -> None:
        """Owner first: chown clears set-user-id bits and capabilities."""
        uid, gid = self._ids(member)
        if uid or gid:
            os.fchown(fd, uid, gid)
        os.fchmod(fd, member.mode)
        if member.xattrs:
            xattrs.set_portable(fd, member.xattrs, self._base)
        mtime = _time(member)
        os.utime(fd, ns=(mtime, mtime))

    def _own(self, member: Member, name: bytes, parent: int) -> None:
        uid, gid = self._ids(member)
        if uid or gid:
            os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
        mtime = _time(member)
        os.utime(name, ns=(mtime, mtime), dir_fd=parent, follow_symlinks=False)

    def _ids(self, member: Member) -> tuple[int, int]:
        uid, gid = member.uid + self._base, member.gid + self._base
        if not (0 <= uid <= _LARGEST_ID and 0 <= gid <= _LARGEST_ID):
            raise BadTar(f"{_show(member.name)} belongs to the impossible user {member.uid}")
        return uid, gid

    def _make_room(self, parent: int, name: bytes) -> None:
        """Remove what an earlier member of this layer left at the name."""
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            return
        except (IsADirectoryError, PermissionError):
            remove_tree(parent, name)
        # What was removed may have been a link or a directory on the way to an open parent.
        self._stale = True

    def _parent(self, path: bytes, *, make: bool = True) -> int:
        """An open directory inside the tree. It stays open until the cache lets it go."""
        if not path:
            return self._root
        fd = self._parents.get(path)
        if fd is None:
            try:
                fd = open_in_root(self._root, os.fsdecode(path), _DIRECTORY)
            except (FileNotFoundError, NotADirectoryError):
                if not make:
                    raise
                fd = self._make_parents(path)
            self._parents[path] = fd
        return fd

    def _make_parents(self, path: bytes) -> int:
        """The directories that members imply; a whiteout in the way becomes an opaque one."""
        fd = os.dup(self._root)
        done = b""
        for name in path.split(b"/"):
            done = done + b"/" + name if done else name
            try:
                child = open_in_root(self._root, os.fsdecode(done), _DIRECTORY)
            except (FileNotFoundError, NotADirectoryError) as error:
                try:
                    self._remember(done)
                    child = self._make_parent(fd, name, error)
                except (OSError, LayerTooBig):
                    os.close(fd)
                    raise
                self.implied.add(done)
                self.parents_made += 1
            os.close(fd)
            fd = child
        return fd

    def _make_parent(self, parent: int, name: bytes, error: OSError) -> int:
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not _is_whiteout(status):
                raise error
        fd = self._open_or_make_directory(parent, name)
        if self._base:
            os.fchown(fd, self._base, self._base)
        return fd

    def _drop_stale_parents(self) -> None:
        """Between members only, since one member may use two directories at once."""
        if self._stale or len(self._parents) > _PARENTS_KEPT:
            self._forget_parents()

    def _forget_parents(self) -> None:
        for fd in self._parents.values():
            os.close(fd)
        self._parents.clear()
        self._stale = False


_DISK_FAULTS = frozenset((5, 12, 24, 28, 30, 122))  # EIO ENOMEM EMFILE ENOSPC EROFS EDQUOT


def clean(name: bytes) -> bytes:
    """A member's name relative to the root: no leading slash, no ``.``; ``..`` is refused."""
    if len(name) > _LONGEST_PATH:
        raise BadTar(f"{_show(name)} is longer than {_LONGEST_PATH} bytes")
    if not (name.startswith((b"/", b"./", b"../")) or b"/." in name or b"//" in name):
        stripped = name[:-1] if name.endswith(b"/") else name
        if stripped not in (b".", b".."):
            return stripped
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise BadTar(f"{_show(name)} leads out of the layer")
    return b"/".join(parts)


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _time(member: Member) -> int:
    return max(0, min(member.mtime, _LATEST)) // _NANO * _NANO


def _show(name: bytes) -> str:
    text = os.fsdecode(name[:80]).encode("utf-8", "replace").decode()
    return repr(text if len(name) <= 80 else text + "...")
