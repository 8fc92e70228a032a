"""A commit as a build context, read from a git directory that is never checked out.

No checkout means no filters, no hooks, no symlink races (CVE-2024-32002,
CVE-2025-48384), and a hash for every file that costs no reading. What a commit
lists is not believed to end: a few kilobytes of trees that name each other expand
to more paths than any machine holds.
"""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO

from builders.context import Entry, Kind, command
from builders.context.recent import Recent
from builders.errors import ContextError, ServiceError

MAX_ENTRIES = 1_000_000
MAX_LISTING = 256 * 1024 * 1024  # bytes
MAX_PATH = 64 * 1024  # bytes
MAX_COMMIT = 1024 * 1024  # bytes of a commit object that is looked at for its time
LISTED_WITHIN = 120.0  # seconds
LAST_TIME = 8**11 - 1  # the seconds that a layer's tar can hold; git takes any number
MAX_TREE = 16 * 1024 * 1024  # bytes of one folder that is looked through for a name
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_AHEAD = 512
TREE, SUBMODULE = "040000", "160000"
_KINDS = {
    "100644": (Kind.FILE, 0o644),
    "100664": (Kind.FILE, 0o644),
    "100755": (Kind.FILE, 0o755),
    "120000": (Kind.SYMLINK, 0o777),
    TREE: (Kind.FOLDER, 0o755),
    SUBMODULE: (Kind.FOLDER, 0o755),
}


_LISTED: Recent[tuple[list[Entry], tuple[str, ...]]] = Recent()


class GitContext:
    """The tree of one commit, or the folder ``subdir`` of it.

    ``notices`` tells, after ``entries()``, what a checkout would have had and
    this context has not (submodules).
    """

    def __init__(self, git_dir: Path, commit: str, subdir: str = "") -> None:
        if not _COMMIT.fullmatch(commit):
            raise ContextError(f"{commit!r} is no full commit id.", code="context.commit")
        self._git_dir = git_dir
        self._subdir = _clean_subdir(subdir)
        self._tree = f"{commit}:{self._subdir}" if self._subdir else commit
        self._commit = commit
        self._entries: list[Entry] | None = None
        self._cat: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self.notices: list[str] = []

    def entries(self) -> list[Entry]:
        """Raise ContextError when there is no such commit or folder."""
        with self._lock:
            if self._entries is None:
                known = _LISTED.get(self.identity)
                if known is None:
                    self._entries = self._list()
                    known = (self._entries, tuple(self.notices))
                    _LISTED.keep(self.identity, known, len(self._entries))
                self._entries, self.notices = known[0], list(known[1])
            return self._entries

    @property
    def identity(self) -> str:
        """The commit and the folder in it."""
        return self._tree

    def digest(self, entry: Entry) -> str:
        return entry.token

    def find(self, path: str) -> Entry | None:
        """The entry at a clean path, without listing all others; no symbolic link is followed.

        Raises ContextError when there is no such commit, or a folder on the way is too big.
        """
        mode, token = TREE, f"{self._commit}^{{tree}}"
        for name in "/".join(filter(None, (self._subdir, path))).split("/"):
            if mode != TREE:
                return None
            raw = name.encode("utf-8", "surrogateescape")
            found = _held(self._folder(token), raw, len(self._commit) // 2)
            if found is None:
                return None
            mode, token = found
        return Entry(path, *_KINDS.get(mode, (Kind.FILE, 0o644)), token)

    def _folder(self, token: str) -> bytes:
        """A tree object as it is: ``MODE NAME\\0ID`` for each entry."""
        with self._lock:
            stdin, stdout = self._cat_file()
            stdin.write(token.encode() + b"\n")
            stdin.flush()
            words = stdout.readline().split()
            if len(words) != 3 or words[1] != b"tree" or int(words[2]) > MAX_TREE:
                self._kill()
                gone = b"tree" not in words
                why = "it is not there" if gone else "a folder of it has too many entries"
                raise ContextError(f"Cannot read the {self._named}: {why}.", code="context.commit")
            body = _Body(stdout, int(words[2]))
            data = b"".join(body)
            body.finish()
            return data

    def read(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, Iterator[bytes]]]:
        wanted = list(entries)
        with self._lock:
            stdin, stdout = self._cat_file()
            asked = 0
            for number, entry in enumerate(wanted):
                if number == asked:
                    # Fewer ids than a pipe holds: neither side can wait for the other.
                    ahead = wanted[asked : asked + _AHEAD]
                    stdin.write(b"".join(item.token.encode() + b"\n" for item in ahead))
                    stdin.flush()
                    asked += len(ahead)
                body = _Body(stdout, self._header(stdout, entry))
                complete = False
                try:
                    yield entry, iter(body)
                    body.finish()
                    complete = True
                finally:
                    if not complete:  # the answers still under way belong to nobody
                        self._kill()

    def close(self) -> None:
        process, self._cat = self._cat, None
        if process is not None and process.stdin and process.stdout:
            process.stdin.close()
            process.stdout.close()
            process.wait()

    def commit_time(self) -> int:
        """Seconds since the epoch of the commit (its committer's date), at most LAST_TIME."""
        data = b""
        with closing(self._output("cat-file", "commit", self._commit)) as chunks:
            for chunk in chunks:
                data += chunk
                if len(data) > MAX_COMMIT:
                    break
        match = re.search(rb"^committer .*> (\d+) [+-]\d+$", data, re.MULTILINE)
        return min(int(match.group(1)), LAST_TIME) if match else 0

    def _list(self) -> list[Entry]:
        asked = ("ls-tree", "-r", "-t", "-z", "--full-tree", "--end-of-options", self._tree)
        entries: list[Entry] = []
        size, rest = 0, b""
        with closing(self._output(*asked)) as chunks:
            for chunk in chunks:
                size += len(chunk)
                *records, rest = (rest + chunk).split(b"\0")
                entries += map(self._entry, records)
                self._bound(len(entries), size, len(rest))
        return entries

    def _bound(self, entries: int, size: int, path: int) -> None:
        if entries > MAX_ENTRIES or size > MAX_LISTING or path > MAX_PATH:
            raise ContextError(
                f"The {self._named} has more than {MAX_ENTRIES:,} files and folders, names of "
                f"more than {MAX_LISTING >> 20} MiB in all, or one of more than "
                f"{MAX_PATH >> 10} KiB.",
                hint="Build a smaller folder of the repository: build.context in gantry.yml.",
                code="context.too-many",
            )

    def _entry(self, record: bytes) -> Entry:
        """An entry of ``<mode> <type> <object>\\t<path>``."""
        meta, _, path = record.decode("utf-8", "surrogateescape").partition("\t")
        mode, _, token = meta.split(" ")
        kind, bits = _KINDS.get(mode, (Kind.FILE, 0o644))
        if mode == SUBMODULE:
            self.notices.append(f"The submodule {path} is not part of the context.")
        return Entry(path, kind, bits, token)

    def _header(self, stdout: IO[bytes], entry: Entry) -> int:
        words = stdout.readline().split()
        if len(words) != 3 or words[1] != b"blob":
            self._kill()
            raise ServiceError(
                f"Git object {entry.token} of {entry.path!r} cannot be read from {self._git_dir}.",
                hint="Run git fsck there.",
                code="context.object",
            )
        return int(words[2])

    def _cat_file(self) -> tuple[IO[bytes], IO[bytes]]:
        if self._cat is None:
            self._cat = command.start(
                self._git_dir,
                "cat-file",
                "--batch",
                stdin=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        if self._cat.stdin is None or self._cat.stdout is None:
            raise ServiceError("Git was started without pipes.")
        return self._cat.stdin, self._cat.stdout

    def _kill(self) -> None:
        if self._cat is not None:
            self._cat.kill()
        self.close()

    def _output(self, *args: str) -> Generator[bytes, None, None]:
        try:
            yield from command.output(self._git_dir, *args, seconds=LISTED_WITHIN)
        except command.GitTrouble as error:
            raise ContextError(
                f"Cannot read the {self._named}: {error}.", code="context.commit"
            ) from None

    @property
    def _named(self) -> str:
        commit = f"commit {self._commit[:12]}"
        return f"folder {self._subdir!r} of {commit}" if self._subdir else commit


def _held(tree: bytes, name: bytes, id_bytes: int) -> tuple[str, str] | None:
    """(mode, object id) of ``name`` in a tree object."""
    start = 0
    while start < len(tree):
        end = tree.index(b"\0", start)
        mode, _, found = tree[start:end].partition(b" ")
        start = end + 1 + id_bytes
        if found == name:
            return mode.decode().zfill(6), tree[end + 1 : start].hex()
    return None


class _Body:
    """The bytes of one object; what the caller left unread is skipped by ``finish``."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream = stream
        self._left = size

    def __iter__(self) -> Iterator[bytes]:
        while self._left:
            data = self._stream.read(min(self._left, command.CHUNK))
            if not data:
                raise ServiceError("Git ended in the middle of an object.", code="context.object")
            self._left -= len(data)
            yield data

    def finish(self) -> None:
        for _ in self:
            pass
        self._stream.read(1)  # the line feed after each object


def find_commit(repository: Path, ref: str) -> tuple[Path, str]:
    """(git directory, full commit id) of a ref in a local repository, bare or not.

    Raises ContextError.
    """
    repository = repository.resolve()
    inner = repository / ".git"
    git_dir = inner if inner.is_dir() else repository
    asked = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    try:
        commit = b"".join(command.output(git_dir, *asked, seconds=LISTED_WITHIN)).decode().strip()
    except command.GitTrouble:
        commit = ""
    if not _COMMIT.fullmatch(commit):
        raise ContextError(f"There is no commit {ref!r} in {repository}.", code="context.commit")
    return git_dir, commit


def _clean_subdir(subdir: str) -> str:
    parts = [part for part in subdir.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise ContextError(
            f"The context's folder {subdir!r} leaves the repository.", code="context.subdir"
        )
    return "/".join(parts)
