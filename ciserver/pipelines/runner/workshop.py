"""What a worker process keeps between pipelines: the store, the sandboxes, the registry."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

from django.conf import settings
from django.db import connection

from builders.errors import ImageNotFound, RegistryClosed
from builders.images.prune import PruneLimits
from builders.images.reference import Reference
from builders.images.store import Image, Store
from builders.registry.auth import Scope
from builders.registry.client import Registry
from builders.registry.known import KnownRegistries
from builders.resolve import Resolver
from builders.shared import SharedCache
from ciserver.accounts.registry_tokens import Access, issue
from ciserver.config import Config, ConfigError
from ciserver.lib.problems import Refused
from ciserver.pipelines.models import Pipeline
from ciserver.pipelines.runner.cachestore import prune as prune_caches
from ciserver.pipelines.runner.casekeeping import forget_old_cases
from ciserver.pipelines.runner.completing import complete_logs
from ciserver.pipelines.runner.expiry import forget_expired
from ciserver.pipelines.runner.logkeeping import forget_old_logs, pack_logs
from ciserver.projects import origins
from ciserver.projects.models import Project
from runtime.reap import reap
from runtime.spec import Limits
from runtime.state import StateDirectory

log = logging.getLogger(__name__)
MAX_OUTPUT = 1024 * 1024 * 1024  # of one step or test, of which its log keeps what logs.py says


@dataclass(frozen=True, slots=True)
class Workshop:
    config: Config
    store: Store
    state: StateDirectory
    registry: Registry
    resolver: Resolver
    known: KnownRegistries = field(default_factory=KnownRegistries)

    def resolver_for(self, project: Project) -> Callable[[Reference], Image]:
        """What FROM may name in a project's Dockerfile: of our registry, its own images alone.

        The worker could read every repository, and what it pulled once is in the store.
        """

        def resolve(reference: Reference) -> Image:
            ours = reference.registry == self.config.registry
            if ours and reference.repository.split("/")[0] != project.slug:
                raise ImageNotFound(
                    f"The image {reference.familiar} is not one of {project}.",
                    hint=f"Here FROM may name {self.config.registry}/{project.slug}.",
                )
            host = reference.registry
            told = (self.config.registry_mirrors, self.known.mirrors, self.known.credentials)
            known = ours or any(host in hosts for hosts in told)
            return self.resolver(reference, lookup=None if known else _public)

        return resolve

    def shared_cache(self, pipeline: Pipeline) -> SharedCache | None:
        """The step cache that all workers have together; None where the service has none."""
        if not self.config.shared_cache:
            return None
        name = self.config.step_cache(pipeline.project.slug)
        return SharedCache(
            self.registry,
            Reference.parse(name),
            self.store,
            scope=scope_of(pipeline),
            also_read=also_read(pipeline),
            say=log.warning,
        )

    def limits(self) -> Limits:
        """The limits of one build step."""
        config = self.config
        return Limits(
            memory=config.build_memory,
            cpus=config.build_cpus,
            pids=config.build_pids,
            timeout=config.build_timeout,
            silence=config.build_silence,
            disk=config.build_disk,
            inodes=config.build_inodes,
            output=MAX_OUTPUT,
        )

    def budget(self) -> Limits:
        """What all sandboxes of one pipeline have together, however many run at once."""
        config = self.config
        return Limits(
            memory=config.pipeline_memory, cpus=config.pipeline_cpus, pids=config.pipeline_pids
        )


def scope_of(pipeline: Pipeline) -> str:
    """The lane of step caches and cache mounts that a pipeline writes."""
    return f"project-{pipeline.project_id}/{pipeline.lane}"


def also_read(pipeline: Pipeline) -> tuple[str, ...]:
    """The lanes that it reads, too: the protected one, which only protected refs write."""
    trusted = f"project-{pipeline.project_id}/protected"
    return () if trusted == scope_of(pipeline) else (trusted,)


@cache
def open_workshop() -> Workshop:
    """This process's workshop. Made after the fork, because it holds connections."""
    config: Config = settings.GANTRY
    store = Store(config.store)
    registry = Registry(config.registry, token=_token)
    known = _known_registries(config)
    return Workshop(
        config=config,
        store=store,
        state=StateDirectory(config.sandboxes),
        registry=registry,
        resolver=Resolver(
            store,
            mirrors=config.registry_mirrors,
            known=known,
            registries={config.registry: registry},
            upstream=not config.offline,
        ),
        known=known,
    )


def _known_registries(config: Config) -> KnownRegistries:
    """What the operator's file says. Raises BadRegistriesFile, ConfigError."""
    if config.registries is None:
        return KnownRegistries()
    known = KnownRegistries.load(config.registries)
    if any(config.registry in hosts for hosts in known.mirrors.values()):
        # A mirror is asked with the worker's own rights, whichever project asks.
        raise ConfigError(
            f"{config.registries} must not name Gantry's own registry, {config.registry}, "
            "as a mirror."
        )
    return known


def _public(host: str, port: int) -> list[str]:
    """The worker is root in the host's network: FROM must not lead it to what only it can reach.

    That holds for the registry that FROM names, for the token service that this one names, and
    for where it redirects. Raises RegistryClosed, and OSError for no such name.
    """
    try:
        return origins.resolve(host, port)
    except Refused as error:
        raise RegistryClosed(f"FROM cannot ask there: {error.message}", hint=error.hint) from error


def tidy() -> None:
    """Remove what dead processes left behind, and artifacts whose time is over; complete and pack
    logs."""
    workshop = open_workshop()
    for done in [*reap(workshop.state), *workshop.store.reap()]:
        log.warning("tidied: %s", done)
    complete_logs(workshop.state)
    forget_expired()
    pack_logs()


def complete() -> None:
    """Complete the logs that dead workers of this machine left. For a thread of its own."""
    try:
        complete_logs(StateDirectory(settings.GANTRY.sandboxes))
    finally:
        connection.close()


def prune() -> None:
    """Take from this machine what is old or too much: of its store (never what a release still
    needs), of caches and of logs; and test cases."""
    workshop = open_workshop()
    done = workshop.store.prune(
        PruneLimits(
            older_than=workshop.config.store_days * 86400.0,
            max_bytes=workshop.config.store_bytes,
            keep=_released_digests(),
        )
    )
    log.info("pruned: %s", done)
    config = workshop.config
    forget_old_logs()
    forget_old_cases()
    prune_caches(
        config.caches, most=config.cache_bytes, share=config.cache_share, days=config.store_days
    )


def _released_digests() -> frozenset[str]:
    """Of every image of each release that is not given up."""
    needed = Pipeline.objects.filter(release__isnull=False, release__removed_at=None)
    return frozenset(
        digest
        for deployed, images in needed.values_list("digest", "images")
        for digest in (deployed, *(image["digest"] for image in images.values()))
    )


def _token(scopes: Sequence[Scope]) -> str:
    """Workers sign their own registry tokens: no round trip, no password."""
    access = [Access(scope.repository, scope.actions) for scope in scopes]
    return issue(f"worker-{os.getpid()}", access)
