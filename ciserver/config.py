"""Every GANTRY_* setting of the service, read from the environment in this one place.

Fails loudly: a value that cannot be used is a ConfigError that names the variable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

# distribution-spec's registry names: a host name or address in brackets, and perhaps a port.
_HOST_AND_PORT = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?")


class ConfigError(Exception):
    """A setting is wrong; the message names the variable and what it should hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of one installation. See ``docs/settings.md`` for the words."""

    home: Path
    url: str
    bind: str
    port: int
    web_processes: int
    registry: str
    database_url: str
    redis_url: str
    debug: bool
    extra_ca: Path | None
    look_seconds: int
    api_rate: int
    api_anonymous_rate: int
    registry_mirrors: Mapping[str, str]
    registries: Path | None
    offline: bool
    shared_cache: bool
    egress_allow: tuple[str, ...]
    fetch_allow: tuple[IPNetwork, ...]
    fetch_bytes: int
    build_memory: int
    build_cpus: float
    build_pids: int
    build_timeout: float
    log_days: int
    log_bytes: int
    case_days: int
    log_store: str
    build_silence: float
    keep_failed: int
    build_disk: int
    build_inodes: int
    pipeline_memory: int
    pipeline_cpus: float
    pipeline_pids: int
    deploy_ports: range
    http_port: int
    https_port: int
    acme_url: str
    acme_email: str
    acme_root: Path | None
    reserve: int
    lease_seconds: int
    store_days: int
    store_bytes: int
    cache_bytes: int
    cache_mount_bytes: int

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Config:
        """Raises ConfigError."""
        home = _home(env)
        return cls(
            home=home,
            url=_url(env),
            bind=_bind(env),
            port=_port(env),
            web_processes=_integer(env, "GANTRY_WEB_PROCESSES", 2, low=1, high=64),
            registry=_registry(env),
            database_url=_database(env, home),
            redis_url=_redis(env, home),
            debug=env.get("GANTRY_DEBUG", "") == "1",
            extra_ca=_optional_file(env, "GANTRY_EXTRA_CA"),
            look_seconds=_integer(env, "GANTRY_LOOK_SECONDS", 300, low=10),
            api_rate=_integer(env, "GANTRY_API_RATE", 3000, low=0),
            api_anonymous_rate=_integer(env, "GANTRY_API_ANONYMOUS_RATE", 300, low=0),
            registry_mirrors=_mirrors(env),
            registries=_optional_path(env, "GANTRY_REGISTRIES"),
            offline=env.get("GANTRY_OFFLINE", "") == "1",
            shared_cache=env.get("GANTRY_SHARED_CACHE", "1") != "0",
            egress_allow=tuple(env.get("GANTRY_EGRESS_ALLOW", "").replace(",", " ").split()),
            fetch_allow=_networks(env, "GANTRY_FETCH_ALLOW"),
            fetch_bytes=_integer(env, "GANTRY_FETCH_MAX_MIB", 8192, low=1) * 1024 * 1024,
            build_memory=_integer(env, "GANTRY_BUILD_MEMORY_MIB", 2048, low=16) * 1024 * 1024,
            build_cpus=_number(env, "GANTRY_BUILD_CPUS", float(os.cpu_count() or 1)),
            build_pids=_integer(env, "GANTRY_BUILD_PIDS", 1024, low=8),
            build_timeout=_number(env, "GANTRY_BUILD_TIMEOUT", 3600.0),
            log_days=_integer(env, "GANTRY_LOG_DAYS", 365, low=1),
            log_bytes=_integer(env, "GANTRY_LOG_MAX_GIB", 20, low=1) << 30,
            case_days=_integer(env, "GANTRY_CASE_DAYS", 365, low=1),
            log_store=_optional_address(env, "GANTRY_LOG_STORE", schemes=("s3",)),
            build_silence=_number(env, "GANTRY_BUILD_SILENCE", 1200.0),
            keep_failed=_integer(env, "GANTRY_KEEP_FAILED", 0, low=0),
            build_disk=_integer(env, "GANTRY_BUILD_DISK_MIB", 10240, low=1) * 1024 * 1024,
            build_inodes=_integer(env, "GANTRY_BUILD_INODES", 1_000_000, low=100),
            pipeline_memory=_integer(env, "GANTRY_PIPELINE_MEMORY_MIB", 4096, low=16) * 1024 * 1024,
            pipeline_cpus=_number(env, "GANTRY_PIPELINE_CPUS", float(os.cpu_count() or 1)),
            pipeline_pids=_integer(env, "GANTRY_PIPELINE_PIDS", 4096, low=8),
            deploy_ports=_deploy_ports(env),
            http_port=_integer(env, "GANTRY_HTTP_PORT", 80, low=1, high=65535),
            https_port=_integer(env, "GANTRY_HTTPS_PORT", 443, low=1, high=65535),
            acme_url=_optional_address(env, "GANTRY_ACME_URL", schemes=("https",)),
            acme_email=env.get("GANTRY_ACME_EMAIL", ""),
            acme_root=_certificates(env, "GANTRY_ACME_ROOT"),
            reserve=_integer(env, "GANTRY_RESERVE_MIB", 512, low=0) * 1024 * 1024,
            lease_seconds=_integer(env, "GANTRY_LEASE_SECONDS", 20, low=4),
            store_days=_integer(env, "GANTRY_STORE_DAYS", 30, low=1),
            store_bytes=_integer(env, "GANTRY_STORE_MAX_GIB", 50, low=1) << 30,
            cache_bytes=_integer(env, "GANTRY_CACHE_MAX_GIB", 10, low=1) << 30,
            cache_mount_bytes=_integer(env, "GANTRY_CACHE_MOUNTS_MAX_GIB", 10, low=1) << 30,
        )

    @property
    def keys(self) -> Path:
        return self.home / "keys"

    @property
    def run(self) -> Path:
        return self.home / "run"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def artifacts(self) -> Path:
        return self.home / "artifacts"

    @property
    def repositories(self) -> Path:
        return self.home / "repositories"

    @property
    def mirrors(self) -> Path:
        return self.home / "mirrors"

    @property
    def store(self) -> Path:
        return self.home / "store"

    @property
    def caches(self) -> Path:
        return self.home / "caches"

    @property
    def cache_share(self) -> int:
        """Bytes of ``cache_bytes`` that one project may keep."""
        return self.cache_bytes // 2

    @property
    def sandboxes(self) -> Path:
        return self.home / "sandboxes"

    def step_cache(self, project: str) -> str:
        """The repository of the step cache that all workers have together, by a project's name."""
        return f"{self.registry}/{project}/cache"


def _home(env: Mapping[str, str]) -> Path:
    home = Path(env.get("GANTRY_HOME", "/var/lib/gantry"))
    if not home.is_absolute():
        raise ConfigError(f"GANTRY_HOME must be an absolute path, not {str(home)!r}.")
    return home


def _url(env: Mapping[str, str]) -> str:
    url = env.get("GANTRY_URL", f"http://{_reachable(_bind(env))}:{_port(env)}").rstrip("/")
    if _scheme(url) not in {"http", "https"} or not urlsplit(url).hostname:
        raise ConfigError(f"GANTRY_URL must be an http(s) address, not {url!r}.")
    return url


def _reachable(bind: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(bind, bind)  # noqa: S104


def _port(env: Mapping[str, str]) -> int:
    return _integer(env, "GANTRY_PORT", 8000, low=1, high=65535)


def _deploy_ports(env: Mapping[str, str]) -> range:
    first = _integer(env, "GANTRY_DEPLOY_PORT", 8100, low=1, high=65000)
    return range(first, first + 500)


def _bind(env: Mapping[str, str]) -> str:
    raw = env.get("GANTRY_BIND", "127.0.0.1")
    try:
        ip_address(raw)
    except ValueError:
        raise ConfigError(
            f"GANTRY_BIND must be an IP address, such as 127.0.0.1 or 0.0.0.0, not {raw!r}."
        ) from None
    return raw


def _registry(env: Mapping[str, str]) -> str:
    raw = env.get("GANTRY_REGISTRY", "127.0.0.1:5055")
    if not _HOST_AND_PORT.fullmatch(raw):
        raise ConfigError(f"GANTRY_REGISTRY must be HOST or HOST:PORT, not {raw!r}.")
    return raw


def _mirrors(env: Mapping[str, str]) -> dict[str, str]:
    mirrors = _pairs(env, "GANTRY_REGISTRY_MIRRORS")
    registry = _registry(env)
    if registry in mirrors.values():
        # A mirror is asked with the worker's own rights, whichever project asks.
        raise ConfigError(
            f"GANTRY_REGISTRY_MIRRORS must not name Gantry's own registry, {registry}."
        )
    return mirrors


def _database(env: Mapping[str, str], home: Path) -> str:
    own = f"sqlite:///{home}/db/gantry.sqlite3"
    schemes = ("postgres", "postgresql", "sqlite")
    return _address(env, "GANTRY_DATABASE_URL", own, schemes=schemes)


def _redis(env: Mapping[str, str], home: Path) -> str:
    own = f"unix://{home}/run/redis.sock"
    return _address(env, "GANTRY_REDIS_URL", own, schemes=("redis", "rediss", "unix"))


def _address(env: Mapping[str, str], name: str, default: str, *, schemes: tuple[str, ...]) -> str:
    raw = env.get(name, default)
    if _scheme(raw) not in schemes or "://" not in raw:
        # The value itself stays out of the message: it may hold a password.
        raise ConfigError(f"{name} must begin with one of {', '.join(schemes)}, then '://'.")
    return raw


def _optional_address(env: Mapping[str, str], name: str, *, schemes: tuple[str, ...]) -> str:
    """Empty when it is not set."""
    return _address(env, name, "", schemes=schemes) if env.get(name) else ""


def _scheme(url: str) -> str:
    """The scheme of an address; empty when it cannot be read as one."""
    try:
        return urlsplit(url).scheme
    except ValueError:
        return ""


def _integer(
    env: Mapping[str, str], name: str, default: int, *, low: int = 0, high: int | None = None
) -> int:
    raw = env.get(name, str(default))
    if not raw.isdecimal() or int(raw) < low or (high is not None and int(raw) > high):
        limit = f"between {low} and {high}" if high is not None else f"of at least {low}"
        raise ConfigError(f"{name} must be a whole number {limit}, not {raw!r}.")
    return int(raw)


def _number(env: Mapping[str, str], name: str, default: float) -> float:
    raw = env.get(name, str(default))
    try:
        value = float(raw)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise ConfigError(f"{name} must be a number above 0, not {raw!r}.")
    return value


def _optional_file(env: Mapping[str, str], name: str) -> Path | None:
    raw = env.get(name, "")
    if not raw:
        return None
    path = Path(raw)
    if not path.is_file():
        raise ConfigError(f"{name} names no file: {raw!r}. Give a PEM bundle or leave it out.")
    return path


def _optional_path(env: Mapping[str, str], name: str) -> Path | None:
    """A file that only workers, who are root, need be able to read."""
    raw = env.get(name, "")
    if raw and not raw.startswith("/"):
        raise ConfigError(f"{name} must be an absolute path, not {raw!r}.")
    return Path(raw) if raw else None


def _certificates(env: Mapping[str, str], name: str) -> Path | None:
    """A file that Caddy, too, must be able to read, who is not root."""
    path = _optional_path(env, name)
    try:
        if path is not None and "BEGIN CERTIFICATE" not in path.read_text(errors="replace"):
            raise ConfigError(f"{name}: {path} holds no certificate. Name a PEM file.")
    except OSError as error:
        raise ConfigError(
            f"{name}: {path} cannot be read ({error.strerror}). The user 'gantry' must be able to."
        ) from error
    return path


def _pairs(env: Mapping[str, str], name: str) -> dict[str, str]:
    pairs = {}
    for item in env.get(name, "").replace(",", " ").split():
        left, found, right = item.partition("=")
        if not found or not left or not right:
            raise ConfigError(f"{name} holds NAME=HOST:PORT pairs, not {item!r}.")
        pairs[left] = right
    return pairs


def _networks(env: Mapping[str, str], name: str) -> tuple[IPNetwork, ...]:
    try:
        return tuple(map(ip_network, env.get(name, "").replace(",", " ").split()))
    except ValueError as error:
        raise ConfigError(f"{name} holds networks such as 10.1.2.0/24: {error}.") from None
