"""What a build may sign with: the deploy key and secrets that are keys, never for a fork."""

from __future__ import annotations

import os
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from builders.steps.agents import Agents
from ciserver.lib.crypto import Secret
from ciserver.pipelines.runner.sshkeys import keys_for
from ciserver.projects.models import ProjectSecret
from ciserver.repositories.models import Access
from tests.ciserver.pipelines.workplace import Workplace, log_of

pytestmark = [pytest.mark.root, pytest.mark.django_db(transaction=True)]

ASK = (
    "FROM busybox\n"
    "RUN --mount=type=ssh,required test -S $SSH_AUTH_SOCK && echo default is there\n"
    "RUN --mount=type=ssh,id=OTHER,required test -S $SSH_AUTH_SOCK && echo OTHER is there\n"
    "RUN --mount=type=secret,id=GIT_KNOWN_HOSTS cat /run/secrets/GIT_KNOWN_HOSTS\n"
)
ALLOWED = "build: {secrets: [OTHER, TOKEN]}\ntests:\n  unit: {command: 'true', memory: 64m}\n"


def private_key() -> str:
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


@pytest.fixture
def access(workplace: Workplace) -> Access:
    """The project has a deploy key, a pinned host, a secret that is a key and one that is not."""
    access = Access(project=workplace.project, host_keys="git.example.com ssh-ed25519 AAAA\n")
    access.renew_key()
    access.save()
    for name, value in (("OTHER", private_key()), ("TOKEN", "no key at all")):
        row = ProjectSecret(project=workplace.project, name=name)
        row.put(Secret(value))
        row.save()
    return access


def test_steps_get_the_deploy_key_and_secrets_that_are_keys(
    workplace: Workplace, access: Access
) -> None:
    pipeline = workplace.run({"Dockerfile": ASK, "gantry.yml": ALLOWED})
    assert (pipeline.state, pipeline.reason) == ("passed", "")
    log = log_of(pipeline.jobs.get(name="build"))
    for line in ("default is there", "OTHER is there", "git.example.com ssh-ed25519 AAAA"):
        assert f" out {line}" in log

    keys = keys_for(pipeline, {"OTHER": Secret(private_key()), "TOKEN": Secret("no key at all")})
    assert sorted(keys.by_id) == ["OTHER", "default"]
    with Agents(keys.by_id) as agents:
        told = subprocess.run(
            ["ssh-add", "-L"],
            env={**os.environ, "SSH_AUTH_SOCK": str(agents.socket("default"))},
            capture_output=True,
            check=True,
        )
    assert told.stdout.decode().split()[:2] == access.public_key.split()[:2]


PLAIN = "tests:\n  unit: {command: 'true', memory: 64m}\n"


def test_a_fork_gets_no_key_and_hears_why(workplace: Workplace, access: Access) -> None:
    dockerfile = "FROM busybox\nRUN --mount=type=ssh,required echo of a fork\n"
    files = {"Dockerfile": dockerfile, "gantry.yml": PLAIN}
    pipeline = workplace.run(files, from_fork=True, ref="refs/pull/7/head", pull_request=7)
    assert (pipeline.state, pipeline.reason) == ("failed", "The SSH agent 'default' was not given.")
    assert "A pull request from a fork gets none." in log_of(pipeline.jobs.get(name="build"))


def test_who_asks_for_a_key_that_is_not_given_hears_what_to_set(workplace: Workplace) -> None:
    dockerfile = "FROM busybox\nRUN --mount=type=ssh,id=OTHER,required echo unknown\n"
    pipeline = workplace.run({"Dockerfile": dockerfile, "gantry.yml": PLAIN})
    assert (pipeline.state, pipeline.reason) == ("failed", "The SSH agent 'OTHER' was not given.")
    log = log_of(pipeline.jobs.get(name="build"))
    assert f"gantry secrets set {workplace.project} OTHER --file KEYFILE" in log
