"""What an environment's containers are made of, as it is told to who runs one elsewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ciserver.accounts.registry_tokens import PULL_USER, repository_of
from ciserver.lib.crypto import Secret
from ciserver.releases import secrets, services
from ciserver.releases.one_host import HostDeployment
from ciserver.releases.targets import images
from ciserver.releases.targets.images import Location
from tests.conftest import api_as

CONFIG = {"config": {"ExposedPorts": {"8080/tcp": {}}}, "rootfs": {"diff_ids": []}}
MANIFEST = {"config": {"digest": f"sha256:{'ab' * 32}"}, "layers": []}
pytestmark = pytest.mark.django_db


@pytest.fixture
def qa(hello: Any, passed: Any, alice: Any, serves: Any) -> Any:
    """v1 serves there, with a variable and a secret."""
    row = hello.environments.get(name="qa")
    row.variables = {"LEVEL": "info"}
    row.save()
    secrets.set_secret(environment=row, user=alice, name="KEY", value=Secret("the-secret-itself"))
    release = services.make_release(passed())
    release.image = {"port": 8080}
    release.save()
    serves(release, row)
    return row


def ask(client: Any, environment: Any) -> Any:
    return client.get(f"/api/v1/environments/{environment.pk}/container/")


def test_it_tells_the_digest_and_the_variables_and_of_secrets_only_the_names(
    api: Any, qa: Any
) -> None:
    answer = ask(api, qa)
    told, release = answer.json(), qa.running.get().release
    assert (told["release"], told["digest"], told["port"]) == ("v1", release.digest, 8080)
    assert told["variables"] == {
        "PORT": "8080",
        "LEVEL": "info",
        "GANTRY_COMMIT": release.commit,
        "GANTRY_RELEASE": "v1",
        "GANTRY_ENVIRONMENT": "qa",
    }
    assert told["secrets"] == ["KEY"]
    assert "the-secret-itself" not in answer.content.decode()
    assert (told["memory_mib"], told["cpus"], told["pids"]) == (512, 1.0, 512)
    assert told["login"] is None  # of a registry that is not ours we have no password
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_host_gives_its_container_the_same_variables_and_the_secrets(api: Any, qa: Any) -> None:
    release = qa.running.get().release
    there = HostDeployment(
        deployment=release.deployments.get(environment=qa),
        location=Location.parse(release.repository),
        image=images.facts(release.digest, MANIFEST, CONFIG),
        host=qa.hosts.first(),
        target=None,  # type: ignore[arg-type]  # nothing is started
        lease=None,  # type: ignore[arg-type]  # nor written
    )
    given = ask(api, qa).json()["variables"]
    assert dict(there.wanted.env) == given | {"KEY": "the-secret-itself"}


def test_the_login_opens_that_repository_for_a_short_time(api: Any, qa: Any, settings: Any) -> None:
    settings.GANTRY = replace(settings.GANTRY, registry="registry.example:5000")
    login = ask(api, qa).json()["login"]
    assert (login["username"], login["expires_in"]) == (PULL_USER, 300)
    assert repository_of(login["password"]) == "hello"


def test_what_was_changed_since_it_was_deployed_is_not_what_runs(
    api: Any, qa: Any, alice: Any
) -> None:
    qa.variables, qa.memory_mib = {"LEVEL": "debug"}, 64
    qa.save()
    secrets.set_secret(environment=qa, user=alice, name="NEW", value=Secret("another-secret-1"))
    told = ask(api, qa).json()
    assert told["variables"]["LEVEL"] == "info"
    assert (told["memory_mib"], told["secrets"]) == (512, ["KEY"])


def test_where_nothing_is_deployed_it_says_how_to_get_it_there(api: Any, hello: Any) -> None:
    answer = ask(api, hello.environments.get(name="prod"))
    assert (answer.status_code, answer.json()["code"]) == (409, "environment.empty")
    assert answer.json()["hint"] == "Promote a release first: gantry promote hello v1 prod"


def test_who_may_not_see_the_project_is_told_nothing(qa: Any, charlie: Any) -> None:
    assert ask(api_as(charlie), qa).status_code == 404
