"""The registry of one image that a host is given through its connection."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from ciserver.accounts.registry_tokens import PULL_USER, Access, issue, pull_password
from ciserver.releases.targets import images, relay
from ciserver.releases.targets.images import MANIFESTS, Location


def test_its_password_is_good_for_one_image_and_nothing_else(registry: Any, tmp_path: Path) -> None:
    mine, other = (registry.push("hello", page=page) for page in ("one", "two"))
    location = Location(registry.address, "hello")
    image = images.read_facts(location, mine, token=None)
    with relay.serve(image, location, lambda: None, tmp_path / "relay.sock") as served:
        transport = httpx.HTTPTransport(uds=str(served.socket), verify=False)
        headers = {"Accept": ", ".join(MANIFESTS)}
        with httpx.Client(transport=transport, base_url="http://x", headers=headers) as client:
            path = f"/v2/hello/manifests/{mine}"
            assert client.get(path).status_code == 401
            assert client.get(path, auth=("gantry", "guess")).status_code == 401
            assert client.get(path, auth=served.credentials).status_code == 200
            assert client.head(path, auth=served.credentials).content == b""
            for elsewhere in (
                f"/v2/hello/manifests/{other}",
                f"/v2/secret/manifests/{mine}",
                "/v2/hello/tags/list",
                "/v2/hello/blobs/%2e%2e/manifests/main",
                "/v2/_catalog",
            ):
                assert client.get(elsewhere, auth=served.credentials).status_code == 404
            assert served.sent == 0
            layer = image.layers[-1]
            client.get(f"/v2/hello/blobs/{layer.digest}", auth=served.credentials)
            assert served.sent == layer.size


@pytest.mark.django_db(transaction=True)
def test_a_pull_goes_on_when_its_token_is_over(guarded_registry: Any, tmp_path: Path) -> None:
    mine = guarded_registry.push("hello", page="one")
    location = Location(guarded_registry.address, "hello")
    may_pull = [Access("hello", ("pull",))]
    image = images.read_facts(location, mine, token=issue("worker", may_pull))
    asked = []

    def credentials() -> tuple[str, str]:
        asked.append(time.monotonic())
        return PULL_USER, pull_password("hello")

    with relay.serve(image, location, credentials, tmp_path / "relay.sock") as served:
        transport = httpx.HTTPTransport(uds=str(served.socket), verify=False)
        with httpx.Client(transport=transport, base_url="http://x") as client:
            for layer in image.layers:
                served._token = issue("worker", may_pull, lifetime=-3600)
                got = client.get(f"/v2/hello/blobs/{layer.digest}", auth=served.credentials)
                assert (got.status_code, len(got.content)) == (200, layer.size)
    assert len(asked) == 1 + len(image.layers)
