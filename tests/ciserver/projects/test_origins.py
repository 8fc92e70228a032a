"""Where outside repositories may be, as the API, the form and the resolver have it."""

from __future__ import annotations

import socket
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from django.test import Client

from ciserver.lib.problems import Refused
from ciserver.projects import origins
from ciserver.projects.models import Project

SHOWN = [
    "https://alice:sesame@forge.example/x.git",
    "https://sesame@forge.example/x.git",
    "http://@forge.example/x.git",
]
OTHER_WAYS = [
    "git://forge.example/x.git",
    "file:///etc",
    "/etc",
    "ext::sh -c id",
    "--upload-pack=id",
    "HTTPS://forge.example/x.git",
    "https:forge.example",
]
NOT_PUBLIC = [
    "http://127.0.0.1/x.git",
    "http://127.1/x.git",
    "http://0x7f.1/x.git",
    "http://2130706433/x.git",
    "http://0/x.git",
    "http://[::1]/x.git",
    "http://[::]/x.git",
    "http://[::ffff:10.0.0.1]/x.git",
    "http://[64:ff9b::a00:1]/x.git",
    "http://[2002:7f00:1::]/x.git",
    "http://[fe80::1]/x.git",
    "http://[fd00::1]/x.git",
    "http://10.0.0.1/x.git",
    "http://172.16.0.1/x.git",
    "https://192.168.1.1:8443/x.git",
    "http://100.64.0.1/x.git",
    "http://169.254.169.254/latest/meta-data",
    "http://224.0.0.1/x.git",
    "http://localhost:5055/x.git",
    "http://LOCALHOST/x.git",
    "http://forge.localhost/x.git",
]
NO_ADDRESS = [
    "https://",
    "https:///x.git",
    "https://forge.example:port/x.git",
    "https://forge.example:99999/x.git",
    "https://forge.example/x.git?token=sesame",
    "https://forge.example/x.git#sesame",
    "https://forge.example\\.evil/x.git",
    "https://for ge.example/x.git",
    "https://forge.example\n.evil/x.git",
    "https://localhost./x.git",
    "https://forge%2eexample/x.git",
    "https://[fe80::1%25eth0]/x.git",
    "https://" + "a" * 64 + ".example/x.git",
    "https://förge.example/x.git",
]


@pytest.mark.parametrize(
    ("url", "why", "next_step"),
    [
        *((url, "must not hold a name, a password or a token", "Leave out") for url in SHOWN),
        *((url, "https:// or http:// and nothing else", "https:// address") for url in OTHER_WAYS),
        *((url, "in a network that is not public", "GANTRY_FETCH_ALLOW") for url in NOT_PUBLIC),
        *((url, "not the address of a repository", "It looks like") for url in NO_ADDRESS),
    ],
)
def test_an_unfit_repository_is_refused_with_the_next_step(
    alice: Any, url: str, why: str, next_step: str
) -> None:
    from ciserver.projects import services

    with pytest.raises(Refused, match=why) as caught:
        services.create(slug="outside", owner=alice, clone_url=url)

    assert (caught.value.code, caught.value.status) == ("project.clone-url", 400)
    assert next_step in caught.value.hint
    assert "sesame" not in str(caught.value)
    assert not Project.objects.exists()


@pytest.mark.parametrize(
    "url",
    [
        "https://forge.example/team/x.git",
        "http://forge.example:8080/@team/x",
        "https://198.41.0.4/x.git",
        "https://[2001:500:2f::f]/x.git",
        "https://localhost.example/x.git",
    ],
)
def test_a_public_address_is_taken(api: Any, url: str) -> None:
    answer = api.post("/api/v1/projects/", {"slug": "outside", "clone_url": url}, format="json")

    assert answer.status_code == 201
    assert answer.json()["clone_url"] == url


def test_a_network_that_is_allowed_is_not_refused(settings: Any) -> None:
    allowed = (ip_network("10.1.0.0/16"), ip_network("::1"))
    settings.GANTRY = replace(settings.GANTRY, fetch_allow=allowed)

    assert origins.check("http://10.1.2.3/x.git") == ("10.1.2.3", 80)
    assert origins.check("https://[::1]:444/x.git") == ("::1", 444)
    with pytest.raises(Refused):
        origins.check("http://10.2.2.3/x.git")


def test_a_name_is_refused_when_one_of_its_addresses_is_private(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = ["198.41.0.4", "10.0.0.1"]

    def lookup(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in answers]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with pytest.raises(Refused, match=r"forge\.example is this machine, or in a network"):
        origins.resolve("forge.example", 443)

    answers.pop()
    assert origins.resolve("forge.example", 443) == ["198.41.0.4"]


def test_the_form_shows_the_refusal_at_the_repositorys_field(alice: Any) -> None:
    client = Client()
    client.force_login(alice)

    answer = client.post("/new-project/", {"slug": "x", "clone_url": "http://127.0.0.1:5055/x"})

    assert answer.status_code == 400
    [error] = answer.context["form"].errors["clone_url"]
    assert "127.0.0.1 is this machine, or in a network that is not public. Use a public" in error
    assert "GANTRY_FETCH_ALLOW" in answer.content.decode()
    assert not Project.objects.exists()
