"""Settings fail loudly and name the variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from ciserver.config import Config, ConfigError


def test_everything_has_a_default() -> None:
    config = Config.from_env({})
    assert config.home == Path("/var/lib/gantry")
    assert config.url == "http://127.0.0.1:8000"


def test_an_address_that_binds_everywhere_is_reached_on_loopback() -> None:
    assert Config.from_env({"GANTRY_BIND": "0.0.0.0"}).url == "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GANTRY_HOME", "relative"),
        ("GANTRY_PORT", "0"),
        ("GANTRY_PORT", "x"),
        ("GANTRY_URL", "ftp://x"),
        ("GANTRY_URL", "http://[::1"),
        ("GANTRY_BIND", "everywhere"),
        ("GANTRY_ACME_ROOT", "relative"),
        ("GANTRY_ACME_ROOT", "/nowhere.crt"),
        ("GANTRY_ACME_ROOT", "/etc/hostname"),
        ("GANTRY_REGISTRY", "http://127.0.0.1:5055"),
        ("GANTRY_REGISTRY", "127.0.0.1:5055/team"),
        ("GANTRY_REGISTRY", ""),
        ("GANTRY_DATABASE_URL", "mysql://gantry@db/gantry"),
        ("GANTRY_DATABASE_URL", "postgres:db"),
        ("GANTRY_REDIS_URL", "localhost:6379"),
        ("GANTRY_EXTRA_CA", "/no/such/file"),
        ("GANTRY_REGISTRY_MIRRORS", "docker.io"),
        ("GANTRY_REGISTRY_MIRRORS", "docker.io=127.0.0.1:5055"),
        ("GANTRY_FETCH_ALLOW", "10.1.2.3/24"),
        ("GANTRY_BUILD_CPUS", "nan"),
        ("GANTRY_BUILD_TIMEOUT", "-1"),
        ("GANTRY_BUILD_MEMORY_MIB", "1"),
    ],
)
def test_a_value_that_cannot_be_used_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        Config.from_env({name: value})


def test_an_unusable_database_address_is_refused_without_telling_its_password() -> None:
    with pytest.raises(ConfigError) as refusal:
        Config.from_env({"GANTRY_DATABASE_URL": "mysql://gantry:hunter2@db/gantry"})
    assert "hunter2" not in str(refusal.value)
