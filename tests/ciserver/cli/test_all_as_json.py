"""Every command with ``--json``, one after another: what it prints is JSON and nothing else.

A command without a row fails the test.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from ciserver.cli import hosts
from ciserver.releases.models import Host
from tests.ciserver.cli.conftest import Gantry
from tests.ciserver.cli.test_artifacts import artifact
from tests.ciserver.cli.test_whole import COMMANDS, WITHOUT_JSON

__all__ = ["artifact"]
pytestmark = pytest.mark.django_db(transaction=True)
PASSWORDS = "alice-password-1\na-password-of-her-own\n"
# In this order: some end what others made. Words in braces are of the answers before, by name.
ROWS = """
    whoami
    status
    projects
    project hello --description Greets
    pipelines hello
    pipeline hello 1
    logs hello 1
    logs hello 1 --job build
    logs hello 1 -f
    logs hello --grep test
    tests hello
    tests hello --flaky
    coverage hello 1
    releases hello
    deployments hello
    deployment {deployment}
    schedules hello
    images hello
    image {image}
    image {image} --against {image}
    find hello
    deliveries hello
    delivery {delivery}
    redeliver {delivery}
    lint {yml}
    env hello qa --set COLOUR=blue
    policy hello prod --approvals 1 --approver alice --approver bob
    promote hello v1 prod --dry-run
    promote hello v1 prod
    reject hello v1 prod -m later
    as-bob promote hello v1 prod
    approve hello v1 prod --yes
    audit
    open hello
    new shop -e qa
    new-env hello moon
    domains hello qa --add hello.example --https internal
    stop-line hello -m holiday
    resume-line hello
    rerun hello 2
    cancel hello 2
    tokens list
    tokens new laptop --days 3 = token
    tokens revoke {token}
    account sessions
    account end-session {session}
    account password
    users new dora
    users list
    users reset dora
    users disable dora
    users enable dora
    users admin dora
    users admin dora --off
    members set hello dora viewer
    members list hello
    members remove hello dora
    teams new crew
    teams add crew dora
    teams list
    teams remove crew dora
    teams delete crew
    artifacts list hello 1
    artifacts download hello 1 -o {folder}
    hosts list
    hosts add edge deploy@edge.example
    hosts show local
    hosts add other deploy@other.example
    hosts accept-key edge SHA256:{prints}
    hosts check edge
    hosts prepare edge
    move hello@qa edge --no-wait
    rollback hello v1 qa --no-wait
    hosts remove other
    secrets set hello KEY -f {file}
    secrets list hello
    secrets remove hello KEY
    hook-secret show hello
    hook-secret renew hello
    hook-secret renew hello
    hook-secret end-old hello
    pulls list hello
    pulls approve hello 3 {sha}
    repository show hello
    repository set hello --max-push-refs 20
    repository key away
    repository login away bot -f {file}
    repository forget-host away
    statuses set hello github acme/hello -f {file}
    statuses show hello
    statuses remove hello
    webhooks add hello https://hooks.example/x = webhook
    webhooks list hello
    webhooks pause hello {webhook}
    webhooks resume hello {webhook}
    webhooks rotate hello {webhook}
    webhooks test hello {webhook}
    webhooks messages hello {webhook} = message
    webhooks redeliver hello {webhook} {message}
    webhooks remove hello {webhook}
    archive shop
    restore shop
    delete shop --confirm shop
    login {url} --token {text}
"""
BOB = "as-bob "
# What a repository, a worker or an engine answers, and where that is asked for.
ELSEWHERE = {
    "ps": "tests/e2e/test_first_light.py",
    "cp": "tests/e2e/test_first_light.py",
    "exec": "tests/e2e/test_first_light.py",
    "stop": "tests/e2e/test_first_light.py",
    "restart": "nowhere: it goes through the same lines as stop",
    "attach": "nowhere: it goes through the same lines as logs of a container",
    "start": "tests/ciserver/cli/test_starts.py",
    "inspect": "tests/ciserver/cli/test_inspect.py",
    "hook-secret test": "tests/ciserver/cli/test_hook_secret.py",
}


@pytest.fixture
def known(
    history: Any, alice: Any, bob: Any, artifact: Any, live_server: Any, token: str, tmp_path: Path
) -> dict[str, Any]:
    """What rows name that only the database knows."""
    from django.test import Client

    from ciserver.accounts.models import Scope, Token
    from ciserver.projects.models import Membership, Role
    from ciserver.releases.models import Deployment
    from ciserver.webhooks.models import PullRequest
    from tests.ciserver.pages import seeding
    from tests.ciserver.pages.seeded_images import make_image

    alice.is_superuser = True
    alice.save()
    Membership.objects.create(project=history, user=bob, role=Role.MAINTAINER)
    image = make_image(history.pipelines.get(number=1), team="greeters")
    seeding.make_project("away", alice, clone_url="https://git.example/away.git")
    pull = PullRequest.objects.create(
        project=history, forge="github", number=3, head="x", base="main", sha="1" * 40,
        ref="refs/pull/3/head", from_fork=True,
    )  # fmt: skip
    seeding.make_delivery(history, history.pipelines.get(number=1), 1)
    browser = Client()
    browser.force_login(alice)
    (tmp_path / "gantry.yml").write_text("build:\n  dockerfile: Dockerfile\n")
    (tmp_path / "secret").write_text("not-to-be-told")
    return {
        "deployment": Deployment.objects.get().pk,
        "image": image.pk,
        "delivery": history.deliveries.get().pk,
        "session": alice.sessions.get().name,
        "sha": pull.sha,
        "yml": tmp_path / "gantry.yml",
        "file": tmp_path / "secret",
        "prints": "k" * 43,
        "url": live_server.url,
        "text": token,
        "bob": Token.make(user=bob, name="client", scope=Scope.WRITE)[1],
        "folder": tmp_path / "fetched",
    }


def test_each_command_has_a_row() -> None:
    rows = {_command(row) for row in _rows()}
    assert sorted(COMMANDS.keys() - rows - ELSEWHERE.keys() - WITHOUT_JSON) == []
    assert sorted((rows | ELSEWHERE.keys()) - COMMANDS.keys()) == []


def test_what_each_prints_is_json_and_nothing_else(
    logged_in: Gantry, known: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def visited(_: float) -> None:
        Host.objects.update(asked="", checked_at=timezone.now())

    monkeypatch.setattr(hosts.time, "sleep", visited)  # while the client waits for a worker's look
    wrong = {}
    for line in _rows():
        asked, _, name = line.removeprefix(BOB).partition(" = ")
        with monkeypatch.context() as now:
            now.setattr("sys.stdin", io.StringIO(PASSWORDS))
            if line.startswith(BOB):
                now.setenv("GANTRY_URL", known["url"])
                now.setenv("GANTRY_TOKEN", known["bob"])
            ran = logged_in(*asked.format(**known).split(), "--json")
        told = _parsed(ran.out)
        if ran.exit_code or ran.err or not told:
            wrong[line] = f"{ran.exit_code}: {ran.out[:300]} {ran.err[:300]}"
        elif name:
            row = told[0][0] if isinstance(told[0], list) else told[0]
            known[name] = row["id"]
    assert not wrong, json.dumps(wrong, indent=1)


def _rows() -> list[str]:
    return [row.strip() for row in ROWS.strip().splitlines()]


def _command(row: str) -> str:
    one, _, two = row.removeprefix(BOB).partition(" ")
    both = f"{one} {two.partition(' ')[0]}"
    return both if both in COMMANDS else one


def _parsed(text: str) -> list[Any]:
    """The one document that it is, or one from each line; nothing if it is neither."""
    for parts in ([text], text.splitlines()):
        try:
            return [json.loads(part) for part in parts]
        except ValueError:
            continue
    return []
