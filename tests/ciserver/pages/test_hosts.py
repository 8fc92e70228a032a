"""The pages of hosts."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from ciserver.releases.models import Host
from tests.ciserver.pages.test_pages import page

NEW = {"name": "edge", "address": "deploy@h.example"}


def test_an_administrator_adds_a_host_and_is_shown_the_line_to_paste(
    hello: Any, admin_user: Any, sign_in: Any
) -> None:
    client = sign_in(admin_user)
    answer = client.post("/hosts/", NEW)
    assert answer["Location"] == "/hosts/edge/"
    host = Host.objects.get(name="edge")
    text = page(client, "/hosts/edge/")
    assert host.public_key in text
    assert "not seen yet: the first is pinned" in text
    assert "Never checked." in text
    assert client.post("/hosts/", NEW).status_code == 400
    assert client.post("/hosts/edge/check/")["Location"] == "/hosts/edge/"
    assert "A worker is on its way to it (check)" in page(client, "/hosts/edge/")
    assert "edge" in page(client, "/hosts/")
    assert client.post("/hosts/edge/remove/")["Location"] == "/hosts/"
    assert not Host.objects.filter(name="edge").exists()


def test_a_changed_key_is_shown_with_the_way_to_accept_it(
    hello: Any, admin_user: Any, sign_in: Any
) -> None:
    client = sign_in(admin_user)
    client.post("/hosts/", NEW)
    offered = "SHA256:" + "n" * 43
    Host.objects.filter(name="edge").update(
        host_key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHhh", offered_key=offered
    )
    text = page(client, "/hosts/edge/")
    assert "Its host key changed." in text
    assert offered in text
    wrong = client.post("/hosts/edge/accept-key/", {"fingerprint": "yes"})
    assert wrong.status_code == 400
    client.post("/hosts/edge/accept-key/", {"fingerprint": offered})
    host = Host.objects.get(name="edge")
    assert (host.host_key, host.accepted_key) == ("", offered)


def test_a_report_and_what_runs_are_for_who_sees_the_project(
    hello: Any, alice: Any, charlie: Any, sign_in: Any
) -> None:
    Host.objects.filter(name="local").update(
        checked_at=timezone.now(),
        problem="",
        report={"engine": "podman 4.3.1", "user": "root", "warnings": ["Only 1 MiB is free."],
                "disk_free": 1 << 20, "disk_total": 1 << 30, "clock": "right"},
    )  # fmt: skip
    client = sign_in(alice)
    text = page(client, "/hosts/local/")
    assert "podman 4.3.1 of root" in text
    assert "Only 1 MiB is free." in text
    assert "hello@prod" in text
    assert "Accept this key" not in text
    assert "Another machine" not in page(client, "/hosts/")
    assert client.post("/hosts/", NEW).status_code == 403
    assert client.post("/hosts/local/prepare/").status_code == 403
    stranger = sign_in(charlie)
    assert stranger.get("/hosts/local/").status_code == 404
    assert "local" not in stranger.get("/hosts/").content.decode().partition("<main")[2]
