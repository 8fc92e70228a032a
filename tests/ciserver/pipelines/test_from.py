"""What FROM may name: no other project's image, and nothing that only this machine can reach."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders.errors import ImageNotFound, RegistryClosed
from builders.images.config import ImageConfig
from builders.images.reference import Reference
from builders.images.store import Store
from builders.registry import KnownRegistries, Registry
from builders.resolve import Resolver
from ciserver.pipelines.runner.workshop import Workshop
from runtime.state import StateDirectory
from tests.builders.registry.liar import Liar, running

pytestmark = pytest.mark.root


@pytest.fixture
def workshop(settings: Any, tmp_path: Path) -> Workshop:
    store = Store(tmp_path / "store")
    return Workshop(
        config=settings.GANTRY,
        store=store,
        state=StateDirectory(tmp_path / "sandboxes"),
        registry=Registry(settings.GANTRY.registry),
        resolver=Resolver(store),
    )


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost:1", "169.254.169.254", "10.0.0.1:5000"])
def test_a_registry_that_only_this_machine_can_reach_is_not_asked(
    workshop: Workshop, project: Any, host: str
) -> None:
    with pytest.raises(ImageNotFound, match="is this machine, or in a network that is not public"):
        workshop.resolver_for(project)(Reference.parse(f"{host}/secret:x"))


def test_a_name_that_means_something_else_the_second_time_leads_nowhere(
    workshop: Workshop, project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(Liar(None, {})) as inner:
        known, looked_up = socket.getaddrinfo, []

        def rebinding(host: Any, *rest: Any, **more: Any) -> Any:
            if host != "rebind.test":
                return known(host, *rest, **more)
            looked_up.append(host)
            if len(looked_up) == 1:
                raise socket.gaierror(socket.EAI_AGAIN, "try again")
            return known("127.0.0.1", *rest, **more)

        monkeypatch.setattr(socket, "getaddrinfo", rebinding)
        name = Reference.parse(f"rebind.test:{inner.host.partition(':')[2]}/secret:x")
        with pytest.raises(RegistryClosed, match=r"rebind\.test is this machine") as caught:
            workshop.resolver_for(project)(name)
        assert "GANTRY_FETCH_ALLOW" in caught.value.hint
        assert len(looked_up) == 2
        assert inner.seen == []


def test_a_mirror_of_the_operators_may_be_on_this_machine(workshop: Workshop, project: Any) -> None:
    with running(Liar(None, {})) as mirror:
        known = KnownRegistries(
            mirrors={"docker.io": (mirror.host,)}, plain_http=frozenset([mirror.host])
        )
        resolver = Resolver(workshop.store, known=known, upstream=False)
        told = replace(workshop, known=known, resolver=resolver)
        with pytest.raises(ImageNotFound, match="neither in the store nor at"):
            told.resolver_for(project)(Reference.parse("debian:none"))
        assert mirror.paths() == ["GET /v2/library/debian/manifests/none"]


def test_another_projects_image_is_refused(workshop: Workshop, project: Any) -> None:
    name = f"{workshop.config.registry}/other:latest"
    with pytest.raises(ImageNotFound, match="is not one of hello"):
        workshop.resolver_for(project)(Reference.parse(name))


def test_what_is_in_the_store_needs_no_registry(workshop: Workshop, project: Any) -> None:
    name = Reference.parse("10.0.0.1:5000/team/base:1")
    image = workshop.store.save_image(ImageConfig(architecture="amd64"), [], names=[name])
    assert workshop.resolver_for(project)(name).id == image.id
