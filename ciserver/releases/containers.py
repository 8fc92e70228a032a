"""What an environment's containers are made of: for its hosts, and for who runs one elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.conf import settings

from ciserver.accounts import registry_tokens
from ciserver.lib.problems import Refused
from ciserver.releases import policy, preview
from ciserver.releases.models import DeploymentState, Environment, Release

if TYPE_CHECKING:
    from ciserver.releases.targets.credentials import Credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A container of ``environment`` as it was started last. ``port`` is what its image exposes
    first; ``variables`` are all that it was given, of ``secrets`` only the names; ``login`` opens
    the image's repository for a short time, None where the registry is not Gantry's own."""

    environment: Environment
    release: Release
    port: int | None
    variables: Mapping[str, str]
    secrets: list[str]
    memory_mib: int
    cpus: float
    pids: int
    login: Credentials | None


def recipe(environment: Environment) -> Recipe:
    """Of what serves ``environment`` now, with the settings that it was deployed with, which may
    have changed since. Raises Refused when nothing was deployed there."""
    release = preview.serving(environment)
    if release is None:
        raise Refused(
            f"Nothing is deployed in {environment} yet.",
            code="environment.empty",
            hint=f"Promote a release first: gantry promote {environment.project} v1"
            f" {environment.name}",
        )
    then = _configuration(release, environment)
    port = release.image.get("port")
    return Recipe(
        environment=environment,
        release=release,
        port=port,
        variables=variables(release, environment, given=then["variables"], port=port),
        secrets=sorted(then.get("secrets", {})),
        memory_mib=then["memory_mib"],
        cpus=then["cpus"],
        pids=then["pids"],
        login=credentials(release.repository),
    )


def variables(
    release: Release, environment: Environment, *, given: Mapping[str, Any], port: int | None
) -> dict[str, str]:
    """All that a container is given but secrets: ``given`` are the environment's own."""
    env = {
        "PORT": str(port or ""),
        **{key: str(value) for key, value in given.items()},
        "GANTRY_COMMIT": release.commit,
        "GANTRY_RELEASE": release.name,
        "GANTRY_ENVIRONMENT": environment.name,
    }
    return {key: value for key, value in env.items() if value}


def credentials(repository: str) -> Credentials | None:
    """To pull REGISTRY/NAME and nothing else, for ``registry_tokens.LIFETIME`` seconds."""
    registry, _, name = repository.partition("/")
    if registry != settings.GANTRY.registry:
        return None
    return registry_tokens.PULL_USER, registry_tokens.pull_password(name)


def _configuration(release: Release, environment: Environment) -> dict[str, Any]:
    """What ``release`` runs with: of where it ran well last, else (it may serve on some hosts of
    a deployment that failed) of where it began last, else what holds now."""
    begun = environment.deployments.filter(release=release, started_at__isnull=False)
    rows = begun.order_by("-pk")
    row = rows.filter(state=DeploymentState.SUCCEEDED).first() or rows.first()
    now = policy.configuration_of(environment)
    if row is None or not row.configuration:
        return now
    now.pop("secrets", None)  # a deployment without any has none
    return {**now, **row.configuration}
