"""What ``RUN --mount`` shows to one step: made ready before it, taken away after it.

Secrets lie in memory only (``builders.memory``) while the step runs. Sources inside stages
or the context are resolved inside their root, on a mount of their own that no step
can change meanwhile (CVE-2024-1753, CVE-2024-23651).
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Self

from builders.cache import step_key
from builders.dockerfile.instructions import Run
from builders.dockerfile.mounts import RunMount
from builders.errors import ContextError, UserError
from builders.images.layerstore import Layer
from builders.memory import memory_folder
from builders.steps.agents import AgentRelay
from builders.steps.bench import Bench, layer_of
from builders.steps.caches import Lane
from builders.steps.copy import CONTEXT, opened_layers
from builders.steps.placing import Placer
from builders.steps.sources import ContextSource, Found, RootSource, nearest_names
from builders.steps.state import StageState, chain_id
from runtime.paths import exists_in_root, open_root, resolve_in_root
from runtime.sandbox import Stream
from runtime.snapshots import RootFs
from runtime.spec import BindMount, Mount, TmpfsMount

_TMPFS_SIZE = 256 * 1024 * 1024
_NO_TIME = 0  # files of a stage have times of their own


def mount_identity(mount: RunMount, step: Run, bench: Bench) -> object:
    """What of a mount shapes the step's result: never the content of secrets and caches."""
    known: list[object] = [mount.kind, mount.target, mount.source, mount.id, mount.env, mount.size]
    known += [mount.read_only, mount.mode, mount.uid, mount.gid]
    if mount.origin:
        known.append(chain_id(tuple(bench.origin(mount.origin, step))))
    elif mount.kind == "bind":
        source = ContextSource(bench.tree)
        found = source.find(mount.source, literal=True)
        known.append([source.digest(each, None) for each in found])
    return known


def is_file(mount: RunMount, step: Run, bench: Bench) -> bool:
    """Whether a bind mount shows a single file: its place in the root file system is one, too."""
    if not mount.origin:
        found = ContextSource(bench.tree).find(mount.source, literal=True)
        return any(not each.folder for each in found)
    if not mount.source.strip("/."):
        return False
    layers = bench.origin(mount.origin, step)
    with (
        bench.store.rootfs(layers, ids=bench.ids, bare=True) as shown,
        open_root(shown.path) as root,
    ):
        status = exists_in_root(root, "/" + mount.source)
    return status is not None and not stat.S_ISDIR(status.st_mode)


class MountDesk:
    """Context manager around one sandbox. ``env`` holds secrets asked for as variables."""

    def __init__(self, bench: Bench, step: Run, state: StageState) -> None:
        self._bench = bench
        self._step = step
        self._state = state
        self._stack = ExitStack()
        self.env: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @staticmethod
    def target(mount: RunMount, workdir: str) -> str:
        return "/" + posixpath.normpath(posixpath.join(workdir, mount.target)).lstrip("/")

    @staticmethod
    def secret_target(mount: RunMount, workdir: str) -> str:
        """Empty for a secret that is only a variable."""
        if mount.env and not mount.target:
            return ""
        return MountDesk.target(mount, workdir) if mount.target else f"/run/secrets/{mount.id}"

    def prepare(self, mounts: Sequence[RunMount]) -> list[Mount]:
        ready: list[Mount] = []
        for mount in mounts:
            if mount.kind == "secret":
                ready.extend(self._secret(mount))
            elif mount.kind == "ssh":
                ready.extend(self._ssh(mount))
            elif mount.kind == "cache":
                ready.append(self._cache(mount))
            elif mount.kind == "tmpfs":
                size = mount.size or _TMPFS_SIZE
                ready.append(TmpfsMount(target=self._target(mount), size=size))
            else:
                ready.append(self._bind(mount))
        return ready

    def script(self, target: str, text: str) -> Mount:
        """A heredoc with its own ``#!`` line, as a file that can be executed."""
        return BindMount(source=self._memory_file(text.encode(), 0, 0, 0o755), target=target)

    def _target(self, mount: RunMount) -> str:
        return self.target(mount, self._state.workdir)

    def _secret(self, mount: RunMount) -> list[Mount]:
        name = mount.secret_name
        value = self._bench.secrets.get(name)
        if value is None:
            if not mount.required:
                return []
            raise UserError(
                f"The secret {name!r} was not given.",
                place=self._step.at.place,
                hint=f"Pass it with --secret id={name},src=FILE.",
                code="dockerfile.secret",
            )
        if mount.env:
            self.env[mount.env] = value.decode("utf-8", "replace")
        target = self.secret_target(mount, self._state.workdir)
        if not target:
            return []
        mode = 0o400 if mount.mode is None else mount.mode
        return [
            BindMount(source=self._memory_file(value, mount.uid, mount.gid, mode), target=target)
        ]

    def _ssh(self, mount: RunMount) -> list[Mount]:
        """A socket that leads to the agent. Without one only ``required`` fails, as in BuildKit."""
        agents = self._bench.agents
        if mount.agent not in agents:
            if mount.required:
                raise UserError(
                    f"The SSH agent {mount.agent!r} was not given.",
                    place=self._step.at.place,
                    hint=agents.hint(mount.agent),
                    code="dockerfile.ssh",
                )
            words = f"Notice: no SSH agent {mount.agent!r} was given; this step runs without one.\n"
            self._bench.output(Stream.STDERR, words.encode())
            return []
        path = self._stack.enter_context(memory_folder()) / "agent"
        base = self._bench.ids.base
        relay = AgentRelay(
            agents.socket(mount.agent),
            path,
            owner=(base + mount.uid, base + mount.gid),
            mode=0o600 if mount.mode is None else mount.mode,
        )
        self._stack.enter_context(relay)
        target = self._target(mount)
        if "SSH_AUTH_SOCK" not in self._state.env:
            self.env.setdefault("SSH_AUTH_SOCK", target)
        # Connecting needs a writable socket, not a writable file system.
        return [BindMount(source=path, target=target)]

    def _memory_file(self, data: bytes, uid: int, gid: int, mode: int) -> Path:
        path = self._stack.enter_context(memory_folder()) / "file"
        path.touch(mode=0o600)
        path.write_bytes(data)
        os.chown(path, self._bench.ids.base + uid, self._bench.ids.base + gid)
        path.chmod(mode)
        return path

    def _cache(self, mount: RunMount) -> Mount:
        """A folder that the builds of this lane have in common, by the mount's id."""
        bench = self._bench
        name, fill = mount.id or self._target(mount), None
        if mount.origin:
            layers = bench.origin(mount.origin, self._step)
            # What it begins with is part of the name, as in BuildKit.
            name = "\0".join((name, chain_id(tuple(layers)), posixpath.normpath(mount.source)))
            fill = partial(self._fill, mount, layers)
        lane = Lane(bench.store, bench.scope, bench.ids.base, bench.cache_mount_bytes)
        tree = lane.open(
            self._stack,
            name,
            sharing=mount.sharing,
            owner=(mount.uid, mount.gid),
            mode=0o755 if mount.mode is None else mount.mode,
            say=lambda words: bench.output(Stream.STDERR, words.encode()),
            check=bench.check_cancelled,
            fill=fill,
        )
        return BindMount(source=tree, target=self._target(mount), read_only=mount.read_only)

    def _fill(self, mount: RunMount, layers: Sequence[Layer], tree: Path) -> None:
        """Copy the folder ``source`` of a stage or image: the cache's beginning."""
        bench = self._bench
        with opened_layers(layers, bench) as source, open_root(tree) as root:
            found = source.find(mount.source, literal=True)
            if not found or not found[0].folder:
                raise ContextError(
                    f"There is no folder {mount.source or '/'} in {mount.origin} to begin the cache"
                    " with.",
                    place=self._step.at.place,
                    hint="It is a file." if found else nearest_names(source, mount.source),
                    code="context.missing",
                )
            placer = Placer(root, bench.ids, _NO_TIME)
            with closing(source.items(found[0], None)) as items:
                placer.place_folder("/", items)
            placer.become("/", source.folder(found[0].path))

    def _bind(self, mount: RunMount) -> Mount:
        layers = (
            self._bench.origin(mount.origin, self._step)
            if mount.origin
            else self._context_layers(mount)
        )
        shown = self._stack.enter_context(
            self._bench.store.rootfs(layers, ids=self._bench.ids, bare=True)
        )
        with open_root(shown.path) as root:
            real = resolve_in_root(root, "/" + mount.source)
            if exists_in_root(root, real) is None:
                raise ContextError(
                    f"There is no {mount.source} to mount in {mount.origin or CONTEXT}.",
                    place=self._step.at.place,
                    hint=nearest_names(RootSource(root, base=self._bench.ids.base), mount.source),
                    code="context.missing",
                )
        # Resolved, and in a mount of this step's own that nothing else writes to: no part of
        # this path can become a link before the runtime opens it.
        source = shown.path / real.lstrip("/")
        return BindMount(source=source, target=self._target(mount), read_only=mount.read_only)

    def _context_layers(self, mount: RunMount) -> Sequence[Layer]:
        """The asked part of the context as a layer of its own, made once for its content."""
        bench = self._bench
        source = ContextSource(bench.tree)
        found = source.find(mount.source, literal=True)
        if not found:
            raise ContextError(
                f"There is no {mount.source} in the build context.",
                place=self._step.at.place,
                hint=nearest_names(source, mount.source) or "Is it ignored by .dockerignore?",
                code="context.missing",
            )
        key = step_key("context", found[0].path, source.digest(found[0], None))

        def act(rootfs: RootFs) -> None:
            with open_root(rootfs.path) as root:
                _place_whole(Placer(root, bench.ids, bench.layer_time(key)), source, found[0])

        made = layer_of(bench, (), key, act)
        return () if made.layer is None else (made.layer,)


def _place_whole(placer: Placer, source: ContextSource, found: Found) -> None:
    path = "/" + found.path
    with closing(source.items(found, None)) as items:
        if found.folder:
            placer.make_folders(path)
            placer.place_folder(path, items)
        else:
            placer.make_folders(posixpath.dirname(path))
            placer.place_file(path, items)
