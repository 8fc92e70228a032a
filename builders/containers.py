"""Containers of a finished image: a fresh writable root file system, and commands in it.

Tests run here straight from the built snapshot, with no push and pull between;
their reports are read out of the same root afterwards.
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
import secrets
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from builders.context.tree import has_wildcard, name_matcher
from builders.errors import UserError
from builders.images.extract import extract_tar
from builders.images.layers import LayerLimits, Sink, write_tree
from builders.images.store import Image, Store
from builders.images.streams import TarStream
from builders.steps.accounts import find_account
from builders.steps.state import DEFAULT_PATH, DEFAULT_SHELL
from runtime import use
from runtime.errors import SpecError
from runtime.kept import run_and_keep
from runtime.network import NetworkHandle, open_network
from runtime.paths import mkdir_in_root, open_in_root, open_root, read_in_root
from runtime.sandbox import Stream
from runtime.snapshots import RootFs
from runtime.spec import NO_PARENT, IdRange, Limits, Mount, Network, Parent, Receipt, SandboxSpec
from runtime.state import StateDirectory

MOST_WALKED = 500_000  # entries of directories that one pattern is looked for in
_DEEPEST = 64


@dataclass(frozen=True, slots=True)
class Owner:
    """Ids inside the container, and the mode, of a directory."""

    uid: int = 0
    gid: int = 0
    mode: int = 0o755


class Container:
    """One root file system. Commands may follow one another: each sees what the last one wrote."""

    def __init__(
        self,
        image: Image,
        rootfs: RootFs,
        root_fd: int,
        *,
        state: StateDirectory,
        ids: IdRange,
        network: Network,
        handle: NetworkHandle | None,
    ) -> None:
        self._image = image
        self._rootfs = rootfs
        self._root = root_fd
        self._state = state
        self._ids = ids
        self._network = network
        self._handle = handle
        self._running: SandboxSpec | None = None

    def run(
        self,
        command: Sequence[str] | str | None = None,
        *,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        user: str | None = None,
        hostname: str = "sandbox",
        limits: Limits | None = None,
        secret_env: Mapping[str, str] | None = None,
        secret_mounts: Sequence[Mount] = (),
        on_output: Callable[[Stream, bytes], None] | None = None,
        on_end: Callable[[], None] | None = None,
        cancel: threading.Event | None = None,
        parent: Parent = NO_PARENT,
        keep: float = 0,
        note: str = "",
    ) -> Receipt:
        """Run ``command`` to its end: a list as it is, a string by the image's shell.

        None is the image's ENTRYPOINT and CMD. ``user`` (a name or ids, the image's
        own by default) is looked up in the image. While it holds secrets, nobody runs
        a program in it who does not ask with secrets. When it fails, what it left is kept for
        ``keep`` seconds (``runtime.kept``), and no more command can run here. ``on_end`` and
        ``note`` are as ``runtime.sandbox.run`` and its spec have them. Raises UserError
        when there is nothing to run or no such user, SandboxError when there can be no sandbox.
        """
        spec = self._spec(
            command,
            {**(env or {}), **(secret_env or {})},
            workdir,
            user,
            hostname=hostname,
            limits=limits or Limits(),
            mounts=tuple(secret_mounts),
            secrets=(*(secret_env or {}), *(mount.target for mount in secret_mounts)),
            note=note,
        )
        self._running = spec
        try:
            return run_and_keep(
                spec,
                self._rootfs,
                keep,
                state=self._state,
                on_output=on_output,
                on_end=on_end,
                cancel=cancel,
                parent=parent,
            )
        finally:
            self._running = None

    def _spec(
        self,
        command: Sequence[str] | str | None,
        env: Mapping[str, str],
        workdir: str | None,
        user: str | None,
        **more: Any,
    ) -> SandboxSpec:
        """The sandbox of ``run``; ``more`` are the fields that nothing is to be found out for."""
        config = self._image.config
        account = find_account(self._root, config.user if user is None else user)
        return SandboxSpec(
            id=f"run-{secrets.token_hex(8)}",
            rootfs=self._rootfs.path,
            args=self._words(command),
            ids=self._ids,
            env={"PATH": DEFAULT_PATH, "HOME": account.home, **config.environment, **env},
            cwd=self._workdir(workdir or config.working_dir or "/"),
            user=account.user,
            network=self._network,
            netns=self._handle.netns if self._handle else None,
            upper=self._rootfs.upper,
            **more,
        )

    def execute(
        self,
        command: Sequence[str] | str,
        *,
        timeout: float,
        output: int | None = None,
        on_output: Callable[[Stream, bytes], None] | None = None,
    ) -> Receipt:
        """Run one more program beside what ``run`` runs, called from another thread.

        ``command`` as ``run`` takes it. It sees what that sees, also its secrets. Raises
        SpecError while nothing runs, RuntimeFailed.
        """
        running = self._running
        if running is None:
            raise SpecError("Nothing runs in this container.", hint="Start it first.")
        return use.execute(
            self._state,
            running.id,
            self._words(command),
            timeout=timeout,
            output=output,
            on_output=on_output,
            with_secrets=True,
        )

    def is_running(self) -> bool:
        """Whether a process of ``run`` is there by now, and still is."""
        running = self._running
        if running is None:
            return False
        try:
            return use.processes(self._state, running.id) > 0
        except SpecError:
            return False

    def read_file(self, path: str, max_bytes: int) -> bytes:
        """A regular file of the container, inside its root. Raises OSError (EFBIG, EINVAL too)."""
        try:
            return read_in_root(self._root, self._absolute(path), max_bytes)
        except SpecError as error:
            raise OSError(errno.EINVAL, error.message, path) from None

    def glob(self, pattern: str, *, below: bool = False) -> list[str]:
        """Absolute paths of the regular files that match, sorted. ``**`` crosses folders.

        With ``below`` a directory that matches stands for all files in it. Raises OSError (E2BIG)
        where more than MOST_WALKED entries would have to be looked at: half of them says nothing.
        """
        absolute = self._absolute(pattern)
        if not has_wildcard(absolute):
            if self._is_file(absolute):
                return [absolute]
            return sorted(self._files(absolute)) if below else []
        matches = _path_matcher(f"{absolute}/**" if below else absolute)
        fixed = []
        for part in absolute.split("/")[:-1]:
            if has_wildcard(part):
                break
            fixed.append(part)
        found = (path for path in self._files("/".join(fixed) or "/") if matches.match(path))
        return sorted(found)

    def archive(self, path: str, sink: Sink, *, limits: LayerLimits) -> Owner:
        """Write the directory ``path`` as a tar of what is in it, links as they are; whose it is.

        Sockets and devices in it are removed. Nothing may run in the container. Raises OSError
        when it is no directory, UserError beyond ``limits`` or for what no tar can hold.
        """
        fd = open_in_root(self._root, self._absolute(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            write_tree(fd, sink, base=self._ids.base, epoch=None, limits=limits)
            status = os.fstat(fd)
        finally:
            os.close(fd)
        base = self._ids.base
        return Owner(status.st_uid - base, status.st_gid - base, stat.S_IMODE(status.st_mode))

    def unpack(self, path: str, stream: TarStream, *, owner: Owner, limits: LayerLimits) -> None:
        """Put what ``archive`` wrote into the directory ``path``, made for ``owner`` if need be.

        Whatever the tar says, nothing outside ``path``'s root is touched. Raises OSError, BadTar,
        UserError.
        """
        absolute = self._absolute(path)
        base = self._ids.base
        ids = (owner.uid + base, owner.gid + base)
        made = mkdir_in_root(self._root, absolute, owner=(base, base))
        fd = open_in_root(self._root, absolute, os.O_RDONLY | os.O_DIRECTORY)
        try:
            extract_tar(stream, fd, base=base, limits=limits)
            if made:
                os.fchown(fd, *ids)
                os.fchmod(fd, owner.mode)
        finally:
            os.close(fd)

    def _words(self, command: Sequence[str] | str | None) -> tuple[str, ...]:
        config = self._image.config
        if isinstance(command, str):
            return (*(config.shell or DEFAULT_SHELL), command)
        words = (*(config.entrypoint or ()), *(config.cmd or ())) if command is None else command
        if not words:
            raise UserError(
                "The image has neither an ENTRYPOINT nor a CMD.",
                hint="Give it one, or name a command.",
                code="image.no-command",
            )
        return tuple(words)

    def _absolute(self, path: str) -> str:
        base = self._image.config.working_dir or "/"
        return "/" + posixpath.normpath(posixpath.join("/", base, path)).lstrip("/")

    def _workdir(self, path: str) -> str:
        """As docker does, a missing working directory is made."""
        absolute = self._absolute(path)
        try:
            mkdir_in_root(self._root, absolute, owner=(self._ids.base, self._ids.base))
        except NotADirectoryError:
            raise UserError(
                f"The working directory {absolute} is no directory.",
                hint="Name a directory; one that is not there yet is made.",
                code="image.workdir",
            ) from None
        return absolute

    def _is_file(self, path: str) -> bool:
        try:
            fd = open_in_root(self._root, path, os.O_PATH)
        except OSError:
            return False
        try:
            return stat.S_ISREG(os.fstat(fd).st_mode)
        finally:
            os.close(fd)

    def _files(self, folder: str) -> Iterator[str]:
        try:
            fd = open_in_root(self._root, folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return
        try:
            yield from _Walk().files(fd, folder.rstrip("/") + "/")
        finally:
            os.close(fd)


@contextmanager
def open_container(
    image: Image,
    *,
    store: Store,
    state: StateDirectory,
    ids: IdRange,
    network: Network | NetworkHandle = Network.NONE,
    egress_allow: Sequence[str] = (),
) -> Iterator[Container]:
    """A container of ``image`` for the duration of the block; nothing of it is kept.

    A NetworkHandle is a member of a private network (``runtime.network.open_private``).
    """
    with ExitStack() as stack:
        rootfs = stack.enter_context(store.rootfs(image.layers, ids=ids))
        root_fd = stack.enter_context(open_root(rootfs.path))
        handle: NetworkHandle | None
        if isinstance(network, NetworkHandle):
            kind, handle = Network.PRIVATE, network
        else:
            kind = network
            opened = open_network(network, state=state, allow=egress_allow)
            handle = stack.enter_context(opened)
        yield Container(image, rootfs, root_fd, state=state, ids=ids, network=kind, handle=handle)


class _Walk:
    """One look through a tree that a stranger made."""

    def __init__(self) -> None:
        self._seen = 0

    def files(self, fd: int, prefix: str, depth: int = 0) -> Iterator[str]:
        """Paths of the regular files below the directory ``fd``. Raises OSError (E2BIG)."""
        if depth > _DEEPEST:
            return
        for name, is_folder in sorted(self._entries(fd)):
            if not is_folder:
                yield prefix + name
                continue
            try:
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            except OSError:
                continue
            try:
                yield from self.files(inner, f"{prefix}{name}/", depth + 1)
            finally:
                os.close(inner)

    def _entries(self, fd: int) -> Iterator[tuple[str, bool]]:
        with os.scandir(fd) as listing:
            for item in listing:
                self._seen += 1
                if self._seen > MOST_WALKED:
                    words = f"more than {MOST_WALKED} files and folders: name one further down"
                    raise OSError(errno.E2BIG, words)
                if item.is_dir(follow_symlinks=False):
                    yield item.name, True
                elif item.is_file(follow_symlinks=False):
                    yield item.name, False


@lru_cache(maxsize=64)
def _path_matcher(pattern: str) -> re.Pattern[str]:
    first, *sections = [
        "".join(f"/{name_matcher(part).pattern[:-2]}" for part in section.split("/") if part)
        for section in re.split(r"(?:/\*\*)+/", f"/{pattern.strip('/')}/")
    ]
    if not sections:
        return re.compile(first + r"\Z", re.DOTALL)
    # Between two ** the first place that fits is as good as any, see builders.context.globs.
    *middle, last = sections
    between = "".join(f"(?>(?:/[^/]+)*?{section})" for section in middle if section)
    return re.compile(f"{first}{between}(?:/[^/]+)*{last}\\Z", re.DOTALL)
