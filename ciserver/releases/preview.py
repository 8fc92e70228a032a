"""What a deployment of a release to an environment will change, told before it happens.

Commits come from the repository, layers and files from the registry, by digest. A part that
cannot be read is said to be unknown: a preview never keeps anybody from deploying.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import httpx
from django.conf import settings

from ciserver.accounts import registry_tokens
from ciserver.releases import layers, policy, retention
from ciserver.releases.models import (
    DeploymentKind,
    DeploymentState,
    DeploymentStep,
    Environment,
    Host,
    Release,
    Running,
)
from ciserver.releases.targets import images
from ciserver.releases.targets.errors import TargetError
from ciserver.releases.targets.images import Location
from ciserver.releases.targets.spec import ImageFacts, Layer
from ciserver.repositories import git, history
from ciserver.repositories.errors import RepositoryError
from ciserver.repositories.history import Commit

COMMITS = 50
MOST_READ = 8 * 1024 * 1024  # compressed bytes of a layer whose files are listed
MOST_FILES = 100  # named for each layer


@dataclass(frozen=True, slots=True)
class Change:
    """One variable or setting: None where it is not set."""

    name: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True)
class NewLayer:
    """``files`` names some of the ``count`` entries; None when they were not read."""

    layer: Layer
    files: list[str] | None
    count: int


@dataclass(frozen=True, slots=True)
class Travel:
    """``bytes`` of ``layers`` that ``host`` lacks, by what our records say it got and keeps."""

    host: Host
    layers: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """``None`` where something could not be read; see ``unknown`` for why."""

    current: Release | None
    again: bool  # it is what runs there
    back: bool  # the commits below are those that it takes away
    releases: list[Release]
    commits: list[Commit] | None
    commit_count: int
    variables: list[Change]
    settings: list[Change]
    layers: list[NewLayer] | None
    travels: list[Travel] | None
    unknown: list[str] = field(default_factory=list)


def of(release: Release, environment: Environment, kind: str = DeploymentKind.PROMOTION) -> Preview:
    """The preview of ``release`` in ``environment`` as both are now."""
    current = serving(environment)
    unknown: list[str] = []
    back = current is not None and current.number > release.number
    commits, count = _commits(release, current, unknown, back=back)
    old, new = configured(environment), policy.configuration_for(release, environment, kind)
    new_layers, travels = _layers(release, current, environment, unknown)
    return Preview(
        current=current,
        again=current == release,
        back=back,
        releases=between(release, current),
        commits=commits,
        commit_count=count,
        variables=changes((old or {}).get("variables", {}), new["variables"]) if old else [],
        settings=changes(_plain(old), _plain(new)) if old else [],
        layers=new_layers,
        travels=travels,
        unknown=unknown,
    )


def serving(environment: Environment) -> Release | None:
    """The newest release among those its hosts run."""
    rows = Running.objects.filter(environment=environment).select_related("release__project")
    return max((one.release for one in rows), key=lambda one: one.number, default=None)


def between(release: Release, current: Release | None) -> list[Release]:
    """The releases that ``release`` brings (or takes away), newest first."""
    if current is None:
        return [release]
    low, high = sorted((current.number, release.number))
    return list(Release.objects.filter(project=release.project, number__gt=low, number__lte=high))


def configured(environment: Environment) -> dict[str, Any] | None:
    """The configuration that what runs here was started with; None when nothing tells."""
    ended = environment.deployments.filter(state=DeploymentState.SUCCEEDED)
    last = ended.order_by("-pk").values_list("configuration", flat=True).first()
    return last or None


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """The keys whose values differ, by name."""

    def shown(values: dict[str, Any], key: str) -> str | None:
        value = values.get(key)
        if key == "secrets" and isinstance(value, dict):
            return ", ".join(f"{name} ({told[:6]})" for name, told in sorted(value.items()))
        return str(value) if key in values else None

    keys = sorted(old.keys() | new.keys())
    return [
        Change(key.replace("_", " ") if key.islower() else key, shown(old, key), shown(new, key))
        for key in keys
        if shown(old, key) != shown(new, key)
    ]


def _plain(configuration: dict[str, Any] | None) -> dict[str, Any]:
    rest = {key: value for key, value in (configuration or {}).items() if key != "variables"}
    return rest | ({"hosts": ", ".join(rest["hosts"])} if "hosts" in rest else {})


def _commits(
    release: Release, current: Release | None, unknown: list[str], *, back: bool
) -> tuple[list[Commit] | None, int]:
    if current is None:
        return None, 0
    old, new = (release, current) if back else (current, release)
    try:
        where = git.git_dir(release.project)
        return history.between(where, old.commit, new.commit, limit=COMMITS)
    except (RepositoryError, OSError):
        unknown.append("The commits could not be read from the repository.")
        return None, 0


def _layers(
    release: Release, current: Release | None, environment: Environment, unknown: list[str]
) -> tuple[list[NewLayer] | None, list[Travel] | None]:
    try:
        there = {one.digest for one in facts(current).layers} if current else set()
        wanted = facts(release).layers
        fresh = [one for one in wanted if one.digest not in there]
        travels = [_travel(host, wanted) for host in environment.hosts.all()]
    except TargetError:
        unknown.append("The layers could not be read from the registry.")
        return None, None
    return [_new_layer(release, layer, read=current is not None) for layer in fresh], travels


def facts(release: Release) -> ImageFacts:
    """Raises TargetError. A digest names what it names: it is read once."""
    return _facts(release.repository, release.digest)


@lru_cache(maxsize=256)
def _facts(repository: str, digest: str) -> ImageFacts:
    location = Location.parse(repository)
    return images.read_facts(location, digest, token=token_for(location))


def token_for(location: Location) -> str | None:
    """A bearer token that may pull from ``location``; None where it is not our registry."""
    if location.registry != settings.GANTRY.registry:
        return None
    access = registry_tokens.Access(location.name, ("pull",))
    return registry_tokens.issue(registry_tokens.PULL_USER, [access])


def _travel(host: Host, wanted: Iterable[Layer]) -> Travel:
    pulled = DeploymentStep.objects.filter(
        host=host, name="pull", state=DeploymentState.SUCCEEDED
    ).values("deployment__release")
    there = Release.objects.filter(pk__in=pulled, digest__in=retention.kept_on(host))
    known: set[str] = set()
    for one in there:
        try:
            image = ImageFacts.from_json(one.image) if one.image else facts(one)
            known |= {layer.digest for layer in image.layers}
        except TargetError:
            break  # then perhaps less is sent than is told; a page waits for one time-out only
    missing = [layer for layer in wanted if layer.digest not in known]
    return Travel(host, len(missing), sum(layer.size for layer in missing))


def _new_layer(release: Release, layer: Layer, *, read: bool) -> NewLayer:
    """The first deployment shows no files: all of them are new."""
    if not read or layer.size > MOST_READ:
        return NewLayer(layer, None, 0)
    try:
        names = list(_names(release.repository, layer.digest))
    except (httpx.HTTPError, layers.BadLayer):
        return NewLayer(layer, None, 0)
    return NewLayer(layer, names[:MOST_FILES], len(names))


@lru_cache(maxsize=128)
def _names(repository: str, digest: str) -> tuple[str, ...]:
    location = Location.parse(repository)
    token = token_for(location)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with (
        images.client(headers) as client,
        client.stream("GET", f"{location.url}/blobs/{digest}") as response,
    ):
        response.raise_for_status()
        return tuple(layers.names(b"".join(_bounded(response.iter_raw()))))


def _bounded(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Whatever the manifest says of its size."""
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > MOST_READ:
            raise layers.BadLayer("it is larger than its manifest says")
        yield chunk
