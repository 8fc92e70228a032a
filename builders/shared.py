"""The step cache in a registry: what one machine has made, the next one need not make again.

A lane is one manifest under a tag of its own. Its config, of a type that no image has, maps
step keys to diff ids; its layers are the blobs of those. So a registry keeps the blobs as long as
the lane names them, and a machine that was never here fetches only the layers that it needs. As
on disk, a build writes the lane of its scope alone; layers are held to their digests and diff ids.
Nothing here ever fails a build: without the registry it is slower.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from builders.cache import CacheEntry, lane_name
from builders.errors import BuildCancelled, BuildError, ImageNotFound
from builders.images.digests import Descriptor, check_digest
from builders.images.documents import Malformed, as_list, as_object, load_object
from builders.images.layerstore import Layer
from builders.images.reference import Reference
from builders.images.store import Store
from builders.registry import Registry, Sent

CONFIG = "application/vnd.gantry.cache.config.v1+json"
MOST_STEPS = 300
_FRESH = 86400.0  # seconds after which the use of a step is worth telling


@dataclass(frozen=True, slots=True)
class _Step:
    diff_id: str | None
    seconds: float
    used: float


@dataclass(frozen=True, slots=True)
class _Lane:
    steps: Mapping[str, _Step] = field(default_factory=dict)
    blobs: Mapping[str, Descriptor] = field(default_factory=dict)  # by diff id


class SharedCache:
    """One build's view of the lanes in ``repository`` (a name whose tag does not matter).

    ``say`` gets a sentence when the registry cannot be used. Call ``save`` after the build.
    """

    def __init__(
        self,
        registry: Registry,
        repository: Reference,
        store: Store,
        *,
        scope: str,
        also_read: Sequence[str] = (),
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._registry = registry
        self._store = store
        self._lanes = [repository.with_tag(f"cache-{lane_name(s)}") for s in (scope, *also_read)]
        self._say = say
        self._lock = threading.Lock()
        self._loading = threading.Lock()  # held while the registry is asked, for long perhaps
        self._read: list[_Lane] | None = None
        self._noted: dict[str, _Step] = {}
        self._broken = False

    def find(self, key: str) -> CacheEntry | None:
        """What another machine has kept under ``key`` in a lane that may be read."""
        for lane in self._known():
            step = lane.steps.get(key)
            if step is not None:
                return CacheEntry(step.diff_id, step.seconds)
        return None

    def fetch(self, diff_id: str) -> Layer | None:
        """The layer, from now on in this machine's store."""
        for reference, lane in zip(self._lanes, self._known(), strict=True):
            blob = lane.blobs.get(diff_id)
            if blob is not None:
                try:
                    return self._registry.pull_layer(reference, blob, diff_id, self._store)
                except BuildError as error:
                    self._say(f"A layer of the shared cache cannot be had: {error.message}")
        return None

    def note(self, key: str, entry: CacheEntry) -> None:
        """A step of this build came to ``entry``."""
        with self._lock:
            self._noted[key] = _Step(entry.diff_id, entry.seconds, time.time())

    def save(self, *, cancel: threading.Event | None = None) -> Sent:
        """Let other machines have what this build used and made, in the lane of its scope.

        Given up without a word once ``cancel`` is set.
        """
        self._known()
        if self._broken or not self._noted:
            return Sent()
        try:
            return self._save(cancel)
        except BuildCancelled:
            return Sent()
        except (BuildError, OSError) as error:
            words = error.message if isinstance(error, BuildError) else f"{error}."
            self._say(f"The shared cache could not be written: {words}")
            return Sent()

    def _save(self, cancel: threading.Event | None) -> Sent:
        """Merged with what others wrote meanwhile; of two at once the later one wins."""
        target = self._lanes[0]
        there = self._load(target)
        if self._broken:
            return Sent()  # what cannot be read must not be written over
        with self._lock:
            noted = dict(self._noted)
        if all(_is_known(step, there.steps.get(key)) for key, step in noted.items()):
            return Sent()
        sent, blobs = Sent(), {}
        for diff_id in dict.fromkeys(step.diff_id for step in noted.values() if step.diff_id):
            layer = self._store.layer(diff_id)
            if layer is not None:  # pruned meanwhile: then there is nothing to give
                blobs[diff_id] = self._store.blob(layer)
                sent += self._registry.push_blob(layer, target, self._store, cancel=cancel)
        try:
            self._write(target, {**there.steps, **noted}, {**there.blobs, **blobs})
        except BuildError:
            # The registry may have lost what was there before, but not what was sent just now.
            self._write(target, noted, blobs)
        return sent

    def _write(
        self, target: Reference, steps: Mapping[str, _Step], blobs: Mapping[str, Descriptor]
    ) -> None:
        usable = [(k, s) for k, s in steps.items() if s.diff_id is None or s.diff_id in blobs]
        newest = sorted(usable, key=lambda item: item[1].used, reverse=True)[:MOST_STEPS]
        diff_ids = sorted({step.diff_id for _, step in newest if step.diff_id})
        document = {
            "layers": diff_ids,
            "steps": {
                key: {"diff_id": s.diff_id, "seconds": round(s.seconds, 3), "used": int(s.used)}
                for key, s in newest
            },
        }
        config = self._store.add_blob(json.dumps(document, sort_keys=True).encode(), CONFIG)
        wanted = [blobs[diff_id] for diff_id in diff_ids]
        self._registry.push_document(target, config, wanted, self._store)

    def _known(self) -> list[_Lane]:
        with self._loading:
            if self._read is None:
                self._read = [self._load(reference) for reference in self._lanes]
            return self._read

    def _load(self, reference: Reference) -> _Lane:
        """What the registry has under a lane's tag; nothing where it cannot say."""
        if self._broken:
            return _Lane()
        try:
            manifest, config = self._registry.pull_document(reference, CONFIG)
            return _parse(config, manifest.layers)
        except ImageNotFound:
            return _Lane()
        except Malformed as error:
            self._say(f"The shared cache is not one of ours and is written anew: {error}.")
            return _Lane()
        except BuildError as error:
            self._broken = True
            self._say(f"The shared cache cannot be used: {error.message}")
            return _Lane()


def _is_known(step: _Step, there: _Step | None) -> bool:
    return there is not None and there.diff_id == step.diff_id and there.used > step.used - _FRESH


def _parse(config: bytes, layers: Sequence[Descriptor]) -> _Lane:
    """Raises Malformed."""
    document = load_object(config, "the cache's config")
    diff_ids = [check_digest(value) for value in as_list(document.get("layers"), "layers")]
    if len(diff_ids) != len(layers):
        raise Malformed("its config and its manifest count different layers")
    steps = as_object(document.get("steps"), "steps")
    return _Lane(
        {key: _step(value) for key, value in steps.items()},
        dict(zip(diff_ids, layers, strict=True)),
    )


def _step(value: Any) -> _Step:
    entry = as_object(value, "a step")
    diff_id, seconds, used = (entry.get(name) for name in ("diff_id", "seconds", "used"))
    if not isinstance(seconds, int | float) or not isinstance(used, int | float):
        raise Malformed("a step says no times")
    return _Step(None if diff_id is None else check_digest(diff_id), float(seconds), float(used))
