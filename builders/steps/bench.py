"""What a step may use: the workbench of one stage, and the one way a layer is made."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from builders.cache import CacheEntry, StepCache, step_key
from builders.context.tree import ContextTree
from builders.dockerfile.expand import Expander
from builders.dockerfile.instructions import Instruction
from builders.errors import BuildCancelled
from builders.images.layerstore import Layer
from builders.images.store import Store
from builders.steps.agents import Agents
from builders.steps.state import StageState
from runtime.network import NetworkHandle
from runtime.sandbox import Stream
from runtime.snapshots import RootFs
from runtime.spec import NO_PARENT, IdRange, Limits, Network, Parent, Receipt
from runtime.state import StateDirectory

_FALLBACK_TIME = 946_684_800  # 2000-01-01, for bases that do not say when they were made
_SPREAD = 1 << 20  # seconds, about twelve days


def _no_origin(word: str, step: Instruction) -> Sequence[Layer]:
    raise LookupError(word)


def _no_output(stream: Stream, data: bytes) -> None:
    pass


@dataclass(frozen=True)
class Bench:
    """Shared by all steps of a stage. ``origin`` gives the layers behind a ``--from``.

    ``network`` opens the build's one network on its first use. ``turns`` bounds how
    many sandboxes of the build run at once. ``pack``: its layers will be pushed.
    ``meanwhile`` is called by a step that is going to wait, so that others may begin.
    """

    store: Store
    state: StateDirectory
    cache: StepCache
    tree: ContextTree
    ids: IdRange
    limits: Limits
    network: Callable[[], tuple[Network, NetworkHandle | None]]
    turns: AbstractContextManager[object]
    cancel: threading.Event
    origin: Callable[[str, Instruction], Sequence[Layer]] = _no_origin
    output: Callable[[Stream, bytes], None] = _no_output
    note: Callable[[], str] = str
    meanwhile: Callable[[], None] = lambda: None
    epoch: int = 0
    escape: str = "\\"
    build_args: Mapping[str, str] = field(default_factory=dict)
    head_args: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    agents: Agents = field(default_factory=lambda: Agents({}))
    step_env: Mapping[str, str] = field(default_factory=dict)
    extra_ca: Path | None = None
    platform: str = ""
    use_cache: bool = True
    parent_cgroup: Parent = NO_PARENT
    scope: str = ""
    base_time: int = _FALLBACK_TIME
    notices: Sequence[str] = ()
    may_fetch: bool = True
    egress_allow: Sequence[str] = ()
    cache_mount_bytes: int = 10 << 30
    pack: bool = False
    keep_failed: float = 0  # seconds, see runtime.kept

    def expander(self, step: Instruction, state: StageState) -> Expander:
        return Expander(state.env, escape=self.escape, at=step.at)

    def for_base(self, created: str | None) -> Bench:
        return replace(self, base_time=_seconds(created) or _FALLBACK_TIME)

    def layer_time(self, key: str) -> int:
        """The latest time a file of the layer made under ``key`` may have, in seconds.

        It depends on the key alone, never on the commit: a layer that one commit made
        and the next finds in the cache must be the very layer that a worker without
        that cache makes. It lies shortly before the base image's time, so that what
        packages bring keeps its own times, and differs when the content does, so that
        web servers' Last-Modified and ETag change when a file may have changed.
        """
        return max(1, self.base_time - int(key[:8], 16) % _SPREAD)

    def check_cancelled(self) -> None:
        raise_if_cancelled(self.cancel)


def raise_if_cancelled(cancel: threading.Event) -> None:
    """Raise BuildCancelled once ``cancel`` is set."""
    if cancel.is_set():
        raise BuildCancelled("The build was cancelled.")


@dataclass(frozen=True)
class Done:
    """The state after a step; ``layer`` is what it added, None when it changed no file."""

    state: StageState
    layer: Layer | None = None
    cached: bool = False
    receipt: Receipt | None = None
    acted: bool = True  # False for instructions that only change the config
    seconds: float | None = None  # what it took, where that was before its turn


@dataclass(frozen=True)
class Made:
    layer: Layer | None
    cached: bool
    receipt: Receipt | None = None


Act = Callable[[RootFs], Receipt | None]


def layer_of(
    bench: Bench,
    layers: Sequence[Layer],
    key: str,
    act: Act,
    *,
    mountpoints: Sequence[str] | None = None,
) -> Made:
    """The cached layer for ``key``, or the one that ``act`` makes on top of ``layers``.

    ``act`` raises to fail the step: then nothing is kept. It runs a sandbox only where
    ``mountpoints`` says what will be mounted over.
    """
    # Files' times come from the base image's, which its layers do not tell.
    kept_as = step_key(key, bench.base_time)
    if bench.use_cache and (made := _from_cache(bench, kept_as)) is not None:
        return made
    bench.check_cancelled()
    started = time.monotonic()
    with bench.store.rootfs(
        layers, ids=bench.ids, mountpoints=mountpoints or (), bare=mountpoints is None
    ) as rootfs:
        receipt = act(rootfs)
        layer = bench.store.commit_upper(
            rootfs.upper,
            bench.ids,
            epoch=bench.layer_time(key),
            pack=bench.pack,
            check=bench.check_cancelled,
        )
    kept = None if layer.empty else layer
    seconds = time.monotonic() - started
    bench.cache.put(kept_as, CacheEntry(kept.diff_id if kept else None, seconds))
    return Made(kept, False, receipt)


def _from_cache(bench: Bench, key: str) -> Made | None:
    entry = bench.cache.get(key)
    if entry is None:
        return None
    if entry.diff_id is None:
        return Made(None, True)
    layer = bench.store.layer(entry.diff_id) or bench.cache.fetch(entry.diff_id)
    return None if layer is None else Made(layer, True)


def _seconds(created: str | None) -> int:
    """Seconds of an RFC 3339 time; 0 where there is none that Python can read."""
    if not created:
        return 0
    text = re.sub(r"\.\d+", "", created).replace("Z", "+00:00")
    try:
        return max(0, int(datetime.fromisoformat(text).timestamp()))
    except (ValueError, OverflowError):
        return 0
