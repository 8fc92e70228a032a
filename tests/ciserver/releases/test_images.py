"""What an image's manifest and config say, and registries that lie."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from ciserver.releases.targets.errors import ImageUnreadable
from ciserver.releases.targets.images import (
    Location,
    bytes_missing,
    check_of,
    facts,
    first_port,
    read_facts,
)
from ciserver.releases.targets.spec import Check, ImageFacts, Layer, check_as, wrong_health

ABSENT = "sha256:" + "0" * 64


def test_the_lowest_tcp_port_is_the_one() -> None:
    assert first_port({"9000/tcp": {}, "8080/tcp": {}, "53/udp": {}}) == 8080
    assert first_port({"8080": {}}) == 8080
    assert first_port({}) is None


@pytest.mark.parametrize("port", ["0/tcp", "65536/tcp", "80-90/tcp", "-1", "x", "9" * 5000, "²"])
def test_what_is_no_port_is_not_taken_for_one(port: str) -> None:
    assert first_port({port: {}}) is None
    assert first_port({port: {}, "65535/tcp": {}}) == 65535


def test_a_healthcheck_comes_before_http_and_http_before_nothing() -> None:
    shell = check_of({"Test": ["CMD-SHELL", "curl -f x"], "Timeout": 3_000_000_000}, 80)
    assert shell.command == ("/bin/sh", "-c", "curl -f x")
    assert shell.timeout == pytest.approx(3.0)
    assert check_of({"Test": ["CMD", "/probe", "-q"]}, 80).command == ("/probe", "-q")
    for none in ({}, {"Test": ["NONE"]}, {"Test": []}):
        assert (check_of(none, 80).command, check_of(none, 80).path) == ((), "/")
    assert check_of({}, None).path == ""


@pytest.mark.parametrize("timeout", [None, 0, -(10**9), 1, "3s", 2.5])
def test_a_healthcheck_whose_timeout_is_none_has_the_usual_one(timeout: Any) -> None:
    assert check_of({"Test": ["CMD", "/probe"], "Timeout": timeout}, None).timeout == 5


def test_only_layers_that_are_not_there_are_counted_and_each_once() -> None:
    layers = [
        Layer(digest="a", size=100, diff_id="A"),
        Layer(digest="b", size=10, diff_id="B"),
        Layer(digest="b", size=10, diff_id="B"),
    ]
    assert bytes_missing(layers, set()) == 110
    assert bytes_missing(layers, {"A"}) == 10
    assert bytes_missing(layers, {"A", "B"}) == 0


def test_facts_survive_being_kept_with_a_release() -> None:
    manifest = {"config": {"digest": "c"}, "layers": [{"digest": "a", "size": 1}]}
    runs = {"Healthcheck": {"Test": ["CMD", "/probe"]}, "ExposedPorts": {"80/tcp": {}}}
    found = facts("m", manifest, {"rootfs": {"diff_ids": ["A"]}, "config": runs})
    assert ImageFacts.from_json(json.loads(json.dumps(found.as_json()))) == found


def test_layers_are_paired_with_their_content() -> None:
    manifest = {"config": {"digest": "c"}, "layers": [{"digest": "a", "size": 1}]}
    found = facts("m", manifest, {"rootfs": {"diff_ids": ["A"]}})
    assert found.layers == (Layer(digest="a", size=1, diff_id="A"),)


@pytest.mark.parametrize(
    ("registry", "plain"),
    [("127.0.0.1:5055", True), ("localhost:5000", True), ("registry.example", False)],
)
def test_plain_http_is_for_this_machine_alone(registry: str, plain: bool) -> None:
    assert Location.parse(f"{registry}/hello").plain_http is plain


def test_a_repository_without_a_registry_is_refused() -> None:
    with pytest.raises(ImageUnreadable, match="does not name a registry"):
        Location.parse("hello")


def test_a_registry_that_is_away_is_named() -> None:
    with pytest.raises(ImageUnreadable, match=r"127\.0\.0\.1:1 does not answer"):
        read_facts(Location("127.0.0.1:1", "hello"), ABSENT, token=None)


def test_a_digest_that_is_gone_is_named(registry: Any) -> None:
    registry.push("hello", page="x")
    with pytest.raises(ImageUnreadable, match="no longer has sha256:000"):
        read_facts(Location(registry.address, "hello"), ABSENT, token=None)


def test_other_bytes_than_the_digest_names_are_refused(monkeypatch: Any) -> None:
    original = httpx.Client.__init__

    def lying(self: httpx.Client, **options: Any) -> None:
        answer = httpx.MockTransport(lambda _: httpx.Response(200, content=b"{}"))
        original(self, **options, transport=answer)

    monkeypatch.setattr(httpx.Client, "__init__", lying)
    with pytest.raises(ImageUnreadable, match="gave other bytes"):
        read_facts(Location("127.0.0.1:1", "hello"), ABSENT, token=None)


def test_an_environment_may_ask_for_another_check_than_the_image() -> None:
    own = Check(command=("/probe",), timeout=3)
    assert check_as("", 4, own) == Check(command=("/probe",), timeout=3, passes=4)
    assert check_as("http /healthz", 3, own) == Check(path="/healthz", passes=3)
    assert check_as("tcp", 2, own) == Check(tcp=True, passes=2)
    assert check_as("exec /bin/x 'a b'", 1, own).command == ("/bin/x", "a b")


@pytest.mark.parametrize("text", ["http", "http x", "http /a b", "tcp 80", "exec", "exec 'x", "no"])
def test_a_check_that_cannot_be_is_refused(text: str) -> None:
    assert wrong_health(text)
