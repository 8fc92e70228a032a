"""A commit as a build context, read from a git directory that is never checked out.

No checkout means no filters, no hooks, no symlink races (CVE-2024-32002,
CVE-2025-48384), and a hash for every file that costs no reading. git runs with
an environment made from nothing: neither its users' nor its system's settings
count, and it may not fetch.
"""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from builders.context import Entry, Kind
from builders.errors import ContextError, ServiceError

_COMMIT = re.compile(r"^[0-9a-f]{40}([0-9a-f]{24})?$")
_CHUNK = 1 << 20
_AHEAD = 512
_GIT = (
    "git",
    "-c", "safe.directory=*",
    "-c", "core.hooksPath=/dev/null",
    "-c", "core.fsmonitor=false",
    "-c", "core.alternateRefsCommand=",
    "-c", "protocol.allow=never",
)  # fmt: skip
_ENV = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    # A repository's own protocol.X.allow beats protocol.allow, and git before 2.45 does not know
    # GIT_NO_LAZY_FETCH: a partial clone's settings must not make root run a transport.
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_SSH_COMMAND": "/bin/false",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
}
_KINDS = {
    "100644": (Kind.FILE, 0o644),
    "100664": (Kind.FILE, 0o644),
    "100755": (Kind.FILE, 0o755),
    "120000": (Kind.SYMLINK, 0o777),
    "040000": (Kind.FOLDER, 0o755),
    "160000": (Kind.FOLDER, 0o755),
}


class GitContext:
    """The tree of one commit, or the folder ``subdir`` of it.

    ``notices`` tells, after ``entries()``, what a checkout would have had and
    this context has not (submodules).
    """

    def __init__(self, git_dir: Path, commit: str, subdir: str = "") -> None:
        if not _COMMIT.match(commit):
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
                self._entries = self._list()
            return self._entries

    def digest(self, entry: Entry) -> str:
        return entry.token

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
        """Seconds since the epoch of the commit (its committer's date)."""
        data = self._run("cat-file", "commit", self._commit)
        match = re.search(rb"^committer .*> (\d+) [+-]\d+$", data, re.MULTILINE)
        return int(match.group(1)) if match else 0

    def _list(self) -> list[Entry]:
        data = self._run("ls-tree", "-r", "-t", "-z", "--full-tree", "--end-of-options", self._tree)
        entries: list[Entry] = []
        # "<mode> <type> <object>\t<path>\0"
        for record in data.decode("utf-8", "surrogateescape").split("\0")[:-1]:
            meta, _, path = record.partition("\t")
            mode, _, token = meta.split(" ")
            kind, bits = _KINDS.get(mode, (Kind.FILE, 0o644))
            if mode == "160000":
                self.notices.append(f"The submodule {path} is not part of the context.")
            entries.append(Entry(path, kind, bits, token))
        return entries

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
            self._cat = subprocess.Popen(
                [*_GIT, f"--git-dir={self._git_dir}", "cat-file", "--batch"],
                env=_ENV,
                cwd="/",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=_CHUNK,
            )
        if self._cat.stdin is None or self._cat.stdout is None:
            raise ServiceError("Git was started without pipes.")
        return self._cat.stdin, self._cat.stdout

    def _kill(self) -> None:
        if self._cat is not None:
            self._cat.kill()
        self.close()

    def _run(self, *args: str) -> bytes:
        done = subprocess.run(
            [*_GIT, f"--git-dir={self._git_dir}", *args],
            env=_ENV,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            words = done.stderr.decode("utf-8", "replace").strip().splitlines()
            text = words[-1] if words else f"git ended with code {done.returncode}"
            what = f"the folder {self._subdir!r} of commit" if self._subdir else "commit"
            raise ContextError(
                f"Cannot read {what} {self._commit[:12]}: {text}.", code="context.commit"
            )
        return done.stdout


class _Body:
    """The bytes of one object; what the caller left unread is skipped by ``finish``."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream = stream
        self._left = size

    def __iter__(self) -> Iterator[bytes]:
        while self._left:
            data = self._stream.read(min(self._left, _CHUNK))
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
    done = subprocess.run(
        [
            *_GIT,
            f"--git-dir={git_dir}",
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            f"{ref}^{{commit}}",
        ],
        env=_ENV,
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    commit = done.stdout.decode("ascii", "replace").strip()
    if done.returncode != 0 or not _COMMIT.match(commit):
        raise ContextError(f"There is no commit {ref!r} in {repository}.", code="context.commit")
    return git_dir, commit


def _clean_subdir(subdir: str) -> str:
    parts = [part for part in subdir.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise ContextError(
            f"The context's folder {subdir!r} leaves the repository.", code="context.subdir"
        )
    return "/".join(parts)
