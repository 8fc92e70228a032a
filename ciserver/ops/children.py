"""The processes of the service: one row each, in the order in which they start."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ciserver.config import Config
from ciserver.ops.proxy import stop_unless_it_serves
from ciserver.ops.ready import Ready, at_once, http_answers, log_says, redis_answers

# The usual names, which GANTRY_LOG_STORE goes by as well.
_STORAGE_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")

# Seven processes import Django at once: seconds, but minutes on a small machine that is emulated.
SLOW_READY = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """What to run, as whom, and how to tell that it is up.

    ``ready`` is called anew at each start, before the process is there. ``stop_seconds`` is
    what SIGTERM may take before SIGKILL follows. Rows of one ``stage`` start together; a stage
    starts when the one before it is ready, and they stop in the opposite order.

    ``listen`` is the host and port of a socket that the supervisor opens once and holds for all
    rows that name it; each finds it by its descriptor, ``LISTEN_FD``.

    ``outlives_us`` is the socket of a child that goes on when the service ends, in whatever way,
    and whom the next start finds by it. ``at_end`` is done at a stop instead of ending it.
    """

    name: str
    command: tuple[str, ...]
    stage: int
    as_service_user: bool = True
    env: Mapping[str, str] = field(default_factory=dict)
    umask: int = 0o027
    before: Callable[[], None] = lambda: None
    ready: Callable[[], Ready] = lambda: at_once
    ready_seconds: float = 30.0
    stop_seconds: float = 5.0
    listen: tuple[str, int] | None = None
    outlives_us: Path | None = None
    at_end: Callable[[], Awaitable[None]] | None = None


def children_of(config: Config) -> list[Child]:
    """The rows that this installation needs: what a URL puts elsewhere is not started here."""
    rows = []
    if config.redis_url == f"unix://{config.home}/run/redis.sock":
        rows.append(_redis(config))
    if registry_is_ours(config):
        rows.append(_registry(config))
    keys = _storage_keys(config)
    workers = [
        _worker(config, "worker", "default", env=keys),
        # An environment has one deployment at a time, which may wait a minute for a container
        # that never gets healthy: others find a slot nevertheless. Idle ones are ended again.
        _worker(config, "deployer", "deployments", most=16),
        # Hosts are looked at, each for as long as one that hangs takes: releases are made, and
        # the other hosts looked at again, nevertheless.
        _worker(config, "chores", "chores", most=6, env=keys),
        # What it asks may be slow to answer, or away: others' pushes are planned nevertheless.
        _worker(config, "planner", "planning", most=8),
    ]
    rows += [_caddy(config), _web(config, keys), *workers, _scheduler(config), _watcher()]
    # The first alone is waited for at the start; the others are there for when it ends.
    more = range(2, config.web_processes + 1)
    return [*rows, *(_web(config, keys, name=f"web-{number}", stage=2) for number in more)]


def registry_is_ours(config: Config) -> bool:
    return config.registry.rpartition(":")[0] in {"127.0.0.1", "localhost"}


def _redis(config: Config) -> Child:
    settings = {
        "port": "0",
        "unixsocket": str(config.run / "redis.sock"),
        "unixsocketperm": "770",
        "dir": str(config.home / "redis"),
        "appendonly": "yes",
        "save": "",
        "daemonize": "no",
        "supervised": "no",
    }
    words = [word for key, value in settings.items() for word in (f"--{key}", value)]
    return Child(
        name="redis",
        stage=0,
        command=("redis-server", *words),
        umask=0o007,
        ready=lambda: redis_answers(config.run / "redis.sock"),
    )


def _registry(config: Config) -> Child:
    host, _, port = config.registry.rpartition(":")
    file = config.run / "registry.json"
    return Child(
        name="registry",
        stage=0,
        command=("docker-registry", "serve", str(file)),
        before=lambda: _write_json(file, registry_settings(config)),
        ready=lambda: http_answers("/v2/", {200, 401}, host=host, port=int(port)),
    )


def registry_settings(config: Config) -> dict[str, object]:
    """docker-registry's configuration; JSON is YAML. No ``cache``: it outlives deletions."""
    return {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(config.home / "registry")},
            "delete": {"enabled": True},
        },
        "http": {"addr": config.registry, "relativeurls": True},
        "auth": {
            "token": {
                "realm": f"{config.url}/api/v1/registry/token",
                "service": "gantry-registry",
                "issuer": "gantry",
                "rootcertbundle": str(config.keys / "registry.crt"),
            }
        },
    }


def _caddy(config: Config) -> Child:
    socket, file = config.run / "caddy.sock", config.run / "caddy.json"

    def before() -> None:
        socket.unlink(missing_ok=True)
        # Deployments add their routes through the socket; --resume brings them back.
        admin = {"listen": f"unix/{socket}", "origins": ["localhost"]}
        _write_json(file, {"admin": admin})

    return Child(
        name="caddy",
        stage=0,
        command=("caddy", "run", "--config", str(file), "--resume"),
        as_service_user=False,
        env={
            "HOME": str(config.home / "caddy"),
            "XDG_CONFIG_HOME": str(config.home / "caddy"),
            "XDG_DATA_HOME": str(config.home / "caddy"),
        },
        umask=0o077,  # the socket is root's alone
        before=before,
        ready=lambda: http_answers("/config/", {200}, socket=socket),
        outlives_us=socket,  # what it serves is production
        at_end=lambda: stop_unless_it_serves(socket),
    )


def _web(config: Config, env: Mapping[str, str], *, name: str = "web", stage: int = 1) -> Child:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.bind, config.bind)  # noqa: S104
    return Child(
        name=name,
        stage=stage,
        command=("python", "-m", "ciserver.serve"),
        env=env,
        ready=lambda: http_answers("/readyz", {200}, host=host, port=config.port),
        ready_seconds=SLOW_READY,
        listen=(config.bind, config.port),
    )


def _worker(
    config: Config, name: str, queue: str, *, most: int = 2, env: Mapping[str, str] | None = None
) -> Child:
    command = ["python", "-m", "celery", "-A", "ciserver.celery", "worker", "-Q", queue]
    slots = ["--concurrency", "2"] if most == 2 else ["--autoscale", f"{most},2"]
    command += ["--pool", "prefork", *slots, "--loglevel", "INFO"]
    command += ["--without-gossip", "--without-mingle", "-n", f"{name}@%h"]
    return Child(
        name=name,
        stage=1,
        command=tuple(command),
        as_service_user=False,  # it makes sandboxes, or containers
        env=env or {},
        ready=lambda: log_says(log_of(config, name), b" ready."),
        ready_seconds=SLOW_READY,
        stop_seconds=10.0,
    )


def _storage_keys(config: Config) -> dict[str, str]:
    """For those that read or keep logs; no other child sees them."""
    names = _STORAGE_KEYS if config.log_store else ()
    return {name: os.environ[name] for name in names if name in os.environ}


def _scheduler(config: Config) -> Child:
    return Child(name="scheduler", stage=1, command=("python", "manage.py", "tick"))


def _watcher() -> Child:
    """Root, since the containers are."""
    command = ("python", "manage.py", "watch")
    return Child(name="watcher", stage=1, command=command, as_service_user=False)


def log_of(config: Config, name: str) -> Path:
    return config.logs / "service" / f"{name}.log"


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2))
    path.chmod(0o644)
