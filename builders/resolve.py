"""Where FROM finds its image: the own store, then configured mirrors, then the image's registry."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import replace

from builders.bases.recipes import recipe_names
from builders.errors import ImageNotFound, RegistryClosed, RegistryError, WrongPlatform
from builders.images.layers import LayerLimits
from builders.images.reference import Reference
from builders.images.store import Image, Store
from builders.registry import KnownRegistries, Registry
from builders.remote.pinned import Lookup

_PATIENCE = 20.0
_MOST_NEAR = 3


class Resolver:
    """Finds base images; what it pulls stays in the store. Threads may share it.

    ``mirrors`` maps a registry (``docker.io``) to the ``HOST:PORT`` asked before it, and before
    those that ``known`` has; ``known`` also tells who we are to a registry. ``registries`` are
    clients to use instead of those made from it, by host. Without ``upstream``
    nobody but the mirrors is asked: the machine has no way out, or shall not use it. With
    ``newer`` they are asked first of all, and the store alone for what a digest names.
    """

    def __init__(
        self,
        store: Store,
        *,
        mirrors: Mapping[str, str] | None = None,
        registries: Mapping[str, Registry] | None = None,
        known: KnownRegistries | None = None,
        limits: LayerLimits | None = None,
        upstream: bool = True,
        newer: bool = False,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self._store = store
        self._mirrors = dict(mirrors or {})
        self._registries = dict(registries or {})
        self._known = known or KnownRegistries()
        self._limits = limits
        self._upstream = upstream
        self._newer = newer
        self._progress = progress

    def __call__(self, reference: Reference, *, lookup: Lookup | None = None) -> Image:
        """The image. ``lookup`` gives the addresses at which its own registry may be asked; the
        mirrors may be anywhere. Raises ImageNotFound where nobody has it, RegistryClosed as
        ``lookup`` says, RegistryError where nobody who could have it can be asked, LayerTooBig."""
        known = None if self._newer and not reference.digest else self._in_store(reference)
        if known is not None:
            return known
        hosts = self._hosts(reference)
        silent: RegistryError | None = None
        other: WrongPlatform | None = None
        for host in hosts:
            try:
                return self._pull(host, reference, lookup if host == reference.registry else None)
            except RegistryClosed:
                raise
            except WrongPlatform as error:
                other = other or error
            except ImageNotFound:
                continue
            except RegistryError as error:
                silent = silent or error
        if other is not None:
            raise other
        hint = self._next_step(reference)
        if silent is not None:
            here = "may be newer elsewhere" if self._newer else "is not in the store"
            raise RegistryError(
                f"The image {reference.familiar} {here}, and {_lower(silent.message)}",
                hint=hint,
                code=silent.code,
            ) from silent
        asked = f" nor at {' or '.join(hosts)}" if hosts else ", and no registry is asked for it"
        where = f"{'neither' if hosts else 'not'} in the store{asked}"
        if self._newer:
            where = f"not to be had anew{asked.replace(' nor', '')}"
        raise ImageNotFound(f"The image {reference.familiar} is {where}.", hint=hint)

    def _in_store(self, reference: Reference) -> Image | None:
        """Of another platform than this machine's also one that was built here under the name."""
        known = self._store.find_image(reference)
        if known is not None or not reference.platform:
            return known
        known = self._store.find_image(replace(reference, platform=""))
        system, architecture = reference.platform.split("/")[:2]
        fits = known and (known.config.os, known.config.architecture) == (system, architecture)
        return known if fits else None

    def _hosts(self, reference: Reference) -> list[str]:
        first = self._mirrors.get(reference.registry)
        hosts = [first] if first else []
        hosts += self._known.mirrors.get(reference.registry, ())
        return list(dict.fromkeys([*hosts, *([reference.registry] if self._upstream else [])]))

    def _pull(self, host: str, reference: Reference, lookup: Lookup | None) -> Image:
        known = self._registries.get(host)
        if known is not None:
            return known.pull(reference, self._store, limits=self._limits, progress=self._progress)
        client = Registry(
            host,
            credentials=self._known.credentials.get(host),
            plain_http=self._known.speaks_plain(host),
            patience=_PATIENCE,
            lookup=lookup,
        )
        with client:
            return client.pull(reference, self._store, limits=self._limits, progress=self._progress)

    def _next_step(self, reference: Reference) -> str:
        """Names that are near, and what to do about the one that was meant."""
        wanted = reference.familiar
        here = [Reference.parse(name).familiar for name in self._store.names() if "@" not in name]
        if wanted in recipe_names():
            return f"Run: ./gantry base {wanted}"
        every = sorted({*here, *recipe_names()} - {wanted})
        near = difflib.get_close_matches(wanted, every, _MOST_NEAR, 0.5)
        steps = [f"Did you mean {' or '.join(near)}?"] if near else []
        makeable = next((name for name in near if name not in here), None)
        if makeable:
            steps.append(f"To make it run: ./gantry base {makeable}")
        elif not near:
            steps.append(f"Names that can be made here: {', '.join(recipe_names())}.")
        return " ".join(steps)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
