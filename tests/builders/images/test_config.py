"""Image configs survive the trip through JSON, and broken ones are named."""

from __future__ import annotations

import json

import pytest

from builders.images.config import Healthcheck, History, ImageConfig
from builders.images.documents import Malformed

FULL = ImageConfig(
    architecture="amd64",
    created="2024-01-02T03:04:05Z",
    author="alice",
    env=("PATH=/bin", "EMPTY="),
    cmd=("serve",),
    entrypoint=(),
    user="1000:1000",
    working_dir="/srv",
    labels={"a": "b"},
    exposed_ports=("53/udp", "80/tcp"),
    volumes=("/data",),
    stop_signal="SIGINT",
    healthcheck=Healthcheck(test=("CMD", "true"), interval=5_000_000_000, retries=3),
    shell=("/bin/bash", "-c"),
    on_build=("RUN true",),
    history=(History(created_by="RUN make"), History(created_by="ENV A=b", empty_layer=True)),
    diff_ids=("sha256:" + "1" * 64,),
)


def test_nothing_is_lost_on_the_way_through_json() -> None:
    assert ImageConfig.from_json(FULL.to_json()) == FULL


def test_equal_configs_have_equal_bytes() -> None:
    again = ImageConfig.from_json(FULL.to_json())
    assert again.to_json() == FULL.to_json()
    assert b" " not in ImageConfig(architecture="amd64").to_json()


def test_an_empty_command_differs_from_none() -> None:
    assert ImageConfig.from_json(ImageConfig(architecture="a", cmd=()).to_json()).cmd == ()
    assert ImageConfig.from_json(ImageConfig(architecture="a").to_json()).cmd is None


def test_extensions_are_spelled_as_docker_spells_them() -> None:
    run = json.loads(FULL.to_json())["config"]
    assert run["Healthcheck"] == {"Test": ["CMD", "true"], "Interval": 5_000_000_000, "Retries": 3}
    assert run["OnBuild"] == ["RUN true"]
    assert run["Shell"] == ["/bin/bash", "-c"]
    assert run["ExposedPorts"] == {"53/udp": {}, "80/tcp": {}}


def test_nulls_that_docker_writes_mean_absent() -> None:
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": None, "Volumes": None, "Labels": None, "OnBuild": None, "Env": None},
        "rootfs": {"type": "layers", "diff_ids": None},
        "container_config": {"unknown": 1},
    }
    assert ImageConfig.from_json(json.dumps(document).encode()) == ImageConfig(architecture="amd64")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"config": []}',
        b'{"config": {"Env": "A=b"}}',
        b'{"config": {"Env": [1]}}',
        b'{"config": {"Labels": {"a": 1}}}',
        b'{"config": {"Healthcheck": {"Interval": "5s"}}}',
        b'{"rootfs": {"diff_ids": ["../../etc/passwd"]}}',
        b'{"rootfs": {"diff_ids": [1]}}',
        b'{"history": {"0": 1}}',
        b'{"architecture": 64}',
        b"[" * 100_000,
    ],
)
def test_a_broken_config_is_refused_with_a_sentence(data: bytes) -> None:
    with pytest.raises(Malformed):
        ImageConfig.from_json(data)
