"""What ADD brings from elsewhere, as something to place: a file of the web, a repository's files.

Each is fetched once, only where the step is not cached, and gone at the end of it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from pathlib import Path

from e2b_dockerfile_utils import PatternMatcher

from builders.context import Kind
from builders.context.git import GitContext
from builders.context.ignore import Ignore
from builders.context.tree import ContextTree
from builders.dockerfile.instructions import Add
from builders.errors import ContextError
from builders.remote.git import Access, Repository
from builders.remote.places import GitPlace
from builders.remote.web import Fetched, fetch
from builders.steps.agents import DEFAULT, AgentRelay
from builders.steps.bench import Bench
from builders.steps.sources import ContextSource, Found, Item
from runtime.sandbox import Stream

TOKEN = "GIT_AUTH_TOKEN"  # noqa: S105 - the name of a secret, BuildKit's own
KNOWN_HOSTS = "GIT_KNOWN_HOSTS"
WHOLE = Found("", "", folder=True)


class Remotes:
    """Context manager: everything that one ADD fetches. Raises ContextError."""

    def __init__(self, step: Add, bench: Bench) -> None:
        self._step = step
        self._bench = bench
        self._stack = ExitStack()
        self._files: dict[str, Fetched] = {}
        self._repositories: dict[GitPlace, Repository] = {}

    def __enter__(self) -> Remotes:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def file(self, url: str, checksum: str = "") -> Fetched:
        """Raises ContextError, also when the content is not that of ``checksum``."""
        if url not in self._files:
            self._check_network(url)
            folder = self._stack.enter_context(self._bench.store.staging())
            self._files[url] = fetch(url, folder / "file", allow=self._bench.egress_allow)
        found = self._files[url]
        if checksum and found.digest != checksum:
            raise self._otherwise(url, f"the digest {found.digest}", checksum)
        return found

    def commit(self, place: GitPlace, checksum: str = "") -> str:
        """The commit that ``place`` means now; ``checksum`` is the beginning of its id, or all."""
        commit = place.commit or self._repository(place).commit()
        if not commit.startswith(checksum):
            raise self._otherwise(
                place.url, f"at {place.ref or 'HEAD'} the commit {commit}", checksum
            )
        return commit

    def tree(
        self, place: GitPlace, commit: str, *, keep_git_dir: bool
    ) -> Sequence[ContextSource | GitDir]:
        """The files of a commit, and its ``.git`` where that is asked for."""
        repository = self._repository(place)
        git_dir = repository.fetch(commit)
        context = GitContext(git_dir, commit, place.subdir)
        self._stack.callback(context.close)
        source = ContextSource(ContextTree(context, lambda: Ignore.parse(b"")))
        source.find(".")
        for notice in context.notices:
            words = f"Notice: {notice.replace('the context', place.url)}\n"
            self._bench.output(Stream.STDERR, words.encode())
        if not keep_git_dir:
            return [source]
        repository.keep_git_dir(commit)
        return [source, GitDir(git_dir)]

    def _repository(self, place: GitPlace) -> Repository:
        if place not in self._repositories:
            self._check_network(place.url)
            staging = self._bench.store.git_staging(self._bench.ids.base)
            folder = self._stack.enter_context(staging)
            self._repositories[place] = Repository(place, folder, self._access(place, folder))
        return self._repositories[place]

    def _access(self, place: GitPlace, folder: Path) -> Access:
        bench = self._bench
        secrets = bench.secrets
        agent = known = None
        if place.scheme == "ssh":
            agent = self._agent(place, folder)
            known = self._known_hosts(folder)
        return Access(
            owner=bench.ids.base,
            allow=bench.egress_allow,
            token=secrets.get(f"{TOKEN}.{place.host}", secrets.get(TOKEN)),
            agent=agent,
            known_hosts=known,
        )

    def _agent(self, place: GitPlace, folder: Path) -> Path:
        agents = self._bench.agents
        if DEFAULT not in agents:
            raise ContextError(
                f"ADD cannot fetch {place.url}: no SSH agent was given.",
                hint=f"{agents.hint(DEFAULT)} Or use https.",
                code="context.remote",
            )
        socket = folder / "agent"
        self._stack.enter_context(
            AgentRelay(agents.socket(DEFAULT), socket, owner=(self._bench.ids.base,) * 2)
        )
        return socket

    def _known_hosts(self, folder: Path) -> Path | None:
        given = self._bench.secrets.get(KNOWN_HOSTS)
        if given is None:
            return None
        path = folder / "known_hosts"
        path.write_bytes(given)
        os.chown(path, self._bench.ids.base, self._bench.ids.base)
        return path

    def _check_network(self, url: str) -> None:
        if not self._bench.may_fetch:
            raise ContextError(
                f"ADD cannot fetch {url}: this build has no network.",
                hint="Build without --network none, or COPY the file from the context.",
                code="context.remote",
            )

    def _otherwise(self, url: str, found: str, checksum: str) -> ContextError:
        return ContextError(
            f"{url} has {found}, and not {checksum}.",
            place=self._step.at.place,
            hint="Was it published anew? Look at what it holds before you change --checksum.",
            code="context.checksum",
        )


class WebSource:
    """A downloaded file: root's alone, with the server's time, as docker places it."""

    def __init__(self, fetched: Fetched) -> None:
        self._fetched = fetched

    def find(self, pattern: str) -> list[Found]:
        return []

    def items(self, found: Found, exclude: object) -> Generator[Item]:
        with self._fetched.path.open("rb") as file:
            chunks = iter(lambda: file.read(1 << 20), b"")
            yield Item("", Kind.FILE, 0o600, mtime=self._fetched.mtime, chunks=chunks)

    def folder(self, path: str) -> Item:
        return Item("", Kind.FOLDER, 0o755)

    def nearest(self, pattern: str) -> list[str]:
        return []


class GitDir:
    """The repository itself as the folder ``.git``: root's, with the layer's time."""

    def __init__(self, git_dir: Path) -> None:
        self._git_dir = git_dir

    def find(self, pattern: str) -> list[Found]:
        return [WHOLE]

    def items(self, found: Found, exclude: PatternMatcher | None) -> Generator[Item]:
        yield Item(".git", Kind.FOLDER, 0o755)
        for folder, folders, files in os.walk(self._git_dir):
            folders.sort()
            inside = Path(folder).relative_to(self._git_dir.parent)
            above = Path(".git", *inside.parts[1:])
            if inside.parts[1:]:
                yield Item(str(above), Kind.FOLDER, 0o755)
            for name in sorted(files):
                path = Path(folder) / name
                mode = 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644
                with path.open("rb") as stream:
                    chunks = iter(lambda: stream.read(1 << 20), b"")
                    yield Item(str(above / name), Kind.FILE, mode, chunks=chunks)

    def folder(self, path: str) -> Item:
        return Item("", Kind.FOLDER, 0o755)

    def nearest(self, pattern: str) -> list[str]:
        return []
