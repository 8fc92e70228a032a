"""Services in ``gantry.yml``: containers that run beside a test, and how to tell they are ready."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, GetJsonSchemaHandler, model_validator
from pydantic_core import core_schema

from ciserver.lib.image_words import is_port
from ciserver.pipelines.faults import Fault, circle, in_circle, shortened, unknown
from ciserver.pipelines.values import Command, Moment, Part, Secrets, Size, Words

MOST_SERVICES = 16  # of one test
STARTED = "service_started"
HEALTHY = "service_healthy"
COMPLETED = "service_completed_successfully"
# What would hide a name that means something else in every container.
RESERVED = ("localhost", "ip6-localhost", "ip6-loopback")
# A label of a host's name, with '_' for Compose's (runtime.network.private has the same).
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?\Z")
_PORT = Field(ge=1, le=65535)


def _at_a_port(address: str) -> str:
    port = address.partition("/")[0]
    if not is_port(int(port)):
        raise ValueError(f"expected a port from 1 to 65535, not {port}")
    return address


class Healthcheck(Part):
    """When a service is ready: one of ``test``, ``tcp``, ``http`` and ``log``.

    Tried often at first and then every ``interval``; one try takes ``timeout`` at most. It must
    succeed within ``start_period`` + ``retries`` x ``interval``, when Compose would call the
    service unhealthy. Without any of the four the image's own check is used, with those of its
    times that are not written here.
    """

    test: Command | None = None
    tcp: Annotated[int, _PORT] | None = None
    http: (
        Annotated[str, Field(pattern=r"^[0-9]{1,5}(/[!-~]*)?$"), AfterValidator(_at_a_port)] | None
    ) = None
    log: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    interval: Annotated[Moment, Field(ge=0.05)] = 1.0
    timeout: Annotated[Moment, Field(ge=0.05)] = 5.0
    start_period: Moment = 0.0
    retries: Annotated[int, Field(ge=1, le=1000)] = 60

    @model_validator(mode="after")
    def _only_one(self) -> Healthcheck:
        kinds = [kind for kind in ("test", "tcp", "http", "log") if getattr(self, kind) is not None]
        if len(kinds) > 1:
            raise ValueError(f"expected one of {' and '.join(kinds)}, not both")
        return self

    @property
    def longest(self) -> float:
        """Seconds until the service counts as never getting ready."""
        return self.start_period + self.retries * self.interval


class Dependency(Part):
    condition: Literal["service_started", "service_healthy", "service_completed_successfully"] = (
        "service_healthy"
    )


def _by_name(value: Any) -> Any:
    """A list of names is a mapping without more to say about each."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return dict.fromkeys(value)
    return value


def _dependencies(value: Any) -> Any:
    named = _by_name(value)
    if isinstance(named, dict):
        return {str(name): {} if more is None else more for name, more in named.items()}
    return named


class OrNames:
    """In the JSON Schema: the mapping, or a list of names alone."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        names = {"type": "array", "items": {"type": "string"}}
        return {"anyOf": [{"type": "string"}, names, handler(core)]}


Dependencies = Annotated[dict[str, Dependency], BeforeValidator(_dependencies), OrNames]


class Service(Part):
    """A container that runs while the test does, and that it reaches by the service's name.

    ``image`` is an image of this file, ``project@environment`` (what runs there now), or any
    image's name; left out: the one that is built. ``command`` follows the image's ENTRYPOINT,
    as Compose has it.
    """

    image: str | None = None
    stage: str | None = None
    entrypoint: Command | None = None
    command: Command | None = None
    user: str | None = None
    working_dir: str | None = None
    environment: Words = Field(default_factory=dict)
    secrets: Secrets = ()
    healthcheck: Healthcheck | None = None
    depends_on: Dependencies = Field(default_factory=dict)
    memory: Size = 512 * 1024**2
    cpus: Annotated[float, Field(ge=0.01, allow_inf_nan=False)] = 1.0
    pids: Annotated[int, Field(ge=2)] = 256
    disk: Size | None = None
    inodes: Annotated[int, Field(ge=100)] | None = None


Services = Annotated[dict[str, Service | None], BeforeValidator(_by_name), OrNames]


def bad_services(
    services: Mapping[str, Service | None], path: str, shared: Mapping[str, Service] | None = None
) -> list[Fault]:
    """Mistakes in the services of one test at ``path``, which may name some of the ``shared``;
    or, without these, in the shared ones themselves."""
    faults = []
    if len(services) > MOST_SERVICES and shared is not None:
        faults.append(Fault(f"a test has at most {MOST_SERVICES} services.", path=path))
    for name, service in services.items():
        if not can_be_host(name):
            message = "cannot be a host's name: it means something else, or ends in '-'."
            message = f"{shortened(name)!r} {message}"
            faults.append(Fault(message, path=path))
        if service is None and name not in (shared or {}):
            faults.append(unknown("service", name, shared or {}, f"{path}.{name}"))
    known = chosen(services, shared or {})
    for name, one in known.items():
        for other in one.depends_on:
            if other not in known:
                where = f"{path}.{name}.depends_on"
                faults.append(unknown("service", other, known, where))
    if not faults and (names := circle({name: one.depends_on for name, one in known.items()})):
        faults.append(in_circle(names, f"{path}.{names[0]}.depends_on"))
    return faults


def can_be_host(name: str) -> bool:
    """Whether other containers can find a container by that name."""
    return bool(_HOST.match(name)) and name not in RESERVED and not name.startswith("ip6-")


def chosen(
    services: Mapping[str, Service | None], shared: Mapping[str, Service]
) -> dict[str, Service]:
    """The services of a test, those that it only names from the ``shared``, with what these
    depend on."""
    found = {name: one or shared[name] for name, one in services.items() if one or name in shared}
    todo = list(found)
    while todo:
        for other in found[todo.pop()].depends_on:
            if other not in found and other in shared:
                found[other] = shared[other]
                todo.append(other)
    return found
