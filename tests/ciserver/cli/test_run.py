"""``gantry run`` before it comes to an engine: what is refused, how, and what engines are told."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ciserver.cli import engines, ports, variables
from ciserver.cli.engines import Asked, Engine
from ciserver.cli.errors import CliError
from ciserver.cli.locally import Local
from ciserver.releases.targets import engine as deployed
from tests.ciserver.cli.conftest import Gantry

DIGEST = f"sha256:{'ab' * 32}"
RECIPE = {
    "release": "v1",
    "commit": "c" * 40,
    "repository": "127.0.0.1:5055/hello",
    "digest": DIGEST,
    "port": 8080,
    "variables": {},
    "secrets": ["KEY", "OTHER"],
    "login": None,
}


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``programs(podman="exit 0")``: all that the machine has, by what they do."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def install(**scripts: str) -> None:
        for name, script in scripts.items():
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)

    return install


@pytest.mark.django_db(transaction=True)
def test_what_cannot_be_run_is_one_sentence_and_a_next_step(
    logged_in: Gantry, history: Any, charlie: Any, programs: Callable[..., None]
) -> None:
    ran = logged_in("run", "hello@prod")
    assert ran.exit_code == 4 and "Nothing is deployed in hello@prod yet." in ran.err
    assert "gantry promote hello v1 prod" in ran.err
    ran = logged_in("run", "hello@moon")
    assert ran.exit_code == 4 and "hello has no environment 'moon'" in ran.err
    ran = logged_in("run", "hello@qa")
    assert ran.exit_code == 4
    assert "podman is not installed; docker is not installed" in ran.err
    assert "Install podman or docker" in ran.err
    programs(docker="echo cannot connect to the daemon. >&2; exit 1")
    ran = logged_in("run", "hello@qa", "--engine", "docker")
    assert "docker does not work (cannot connect to the daemon)." in ran.err
    history.memberships.all().delete()
    ran = logged_in("run", "hello@qa")
    assert ran.exit_code == 4 and "hello has no environment 'qa'" in ran.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["hello"], "'hello' is not PROJECT@ENVIRONMENT."),
        (["hello@qa", "--json"], "--json needs --detach"),
        (["hello@qa", "--env", "9=x"], "'9' cannot be a variable's name."),
        (["hello@qa", "--env", "NOT_HERE"], "NOT_HERE has no value"),
        (["hello@qa", "--env", "A=two\nlines"], "The value of A has a line break"),
        (["hello@qa", "--env-file", "/nowhere"], "/nowhere cannot be read"),
    ],
)
def test_a_wrong_word_is_told_before_anybody_is_asked(
    gantry: Gantry, words: list[str], sentence: str
) -> None:
    ran = gantry("run", *words)
    assert ran.exit_code == 2
    assert sentence in ran.err


def test_what_is_said_last_counts_and_a_mistake_in_a_file_has_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINE", "from where I am")
    file = tmp_path / "env"
    file.write_text("# a comment\n\nA=1\nB = 2\r\nMINE\nC=a=b#c\n".replace("B = ", "B="))
    found = variables.read([file], ["A=3", "EMPTY="])
    assert found == {"A": "3", "B": "2", "MINE": "from where I am", "C": "a=b#c", "EMPTY": ""}
    file.write_text("A=1\nB = 2\n")
    with pytest.raises(CliError, match=rf"{file}:2: 'B ' cannot be"):
        variables.read([file], [])


def test_ports_are_those_asked_for_or_the_images_own_or_free_ones() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        [(here, there)] = ports.choose([], port)
        assert here != port == there
        with pytest.raises(CliError, match=f"Port {port} of this machine cannot be used"):
            ports.choose([f"{port}:80"], None)
    assert ports.choose([], port) == [(port, port)]
    assert ports.choose([], None) == []
    assert ports.choose([f"{port}:80", str(port)], 8080) == [(port, 80), (port, 8080)]
    assert ports.choose(["0:80"], None)[0][0] > 0
    with pytest.raises(CliError, match="exposes no port"):
        ports.choose([str(port)], None)
    for wrong in ("http", "70000", "1:70000", "1:0", "-1", "1:2:3"):
        with pytest.raises(CliError, match="is not a port"):
            ports.choose([wrong], 80)


def test_it_is_pulled_by_digest_and_runs_with_the_rights_that_it_has_when_deployed() -> None:
    assert engines.CAPABILITIES == deployed.CAPABILITIES
    asked = Asked(
        name="one",
        label="hello@qa",
        reference=f"r.example/hello@{DIGEST}",
        limits=(256, 0.5, 64),
        publish=[(8080, 80)],
        command=["sh"],
    )
    words = Engine("docker").create(asked)
    assert words[-2:] == [f"r.example/hello@{DIGEST}", "sh"]
    assert {
        "--pull=never",
        "--memory=256m",
        "--cpus=0.5",
        "--pids-limit=64",
        "--cap-drop=ALL",
        "--publish=127.0.0.1:8080:80",
    } <= set(words)
    there = Engine("podman").pull(asked.reference, quiet=True, folder=None)
    assert there == ["podman", "pull", "--quiet", asked.reference]
    here = Engine("podman").pull("127.0.0.1:5055/hello", quiet=False, folder=Path("/f"))
    assert here[2:4] == ["--authfile=/f/config.json", "--tls-verify=false"]


def test_docker_keeps_to_its_context_and_gets_this_password_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "contexts").mkdir()
    own = {"auths": {"hub": {"auth": "x"}}, "credsStore": "desktop", "currentContext": "colima"}
    (tmp_path / "config.json").write_text(json.dumps(own))
    with engines.credentials(Engine("docker"), "r.example", "me", "word") as folder:
        assert folder.stat().st_mode & 0o077 == 0
        found = json.loads((folder / "config.json").read_text())
        assert found == {
            "currentContext": "colima",
            "auths": {"r.example": {"auth": "bWU6d29yZA=="}},
        }
        assert (folder / "contexts").resolve() == tmp_path / "contexts"
    assert not folder.exists()
    assert (tmp_path / "contexts").is_dir()


@pytest.mark.parametrize(
    ("service", "repository", "step"),
    [
        ("https://ci.example", "127.0.0.1:5055/hello", "ssh -N -L 5055:127.0.0.1:5055 ci.example"),
        ("http://127.0.0.1:8000", "127.0.0.1:5055/hello", "See that 127.0.0.1:5055 and http"),
        ("https://ci.example", "r.ci.example/hello", "See that r.ci.example and https"),
    ],
)
def test_a_registry_that_is_away_is_told_with_the_way_to_it(
    programs: Callable[..., None], service: str, repository: str, step: str
) -> None:
    programs(podman="echo some words >&2; echo connection refused >&2; exit 125")
    local = Local(
        place="hello@qa",
        recipe=RECIPE | {"repository": repository, "memory_mib": 1, "cpus": 1.0, "pids": 1},
        engine=Engine("podman"),
        service=service,
        publish=[],
        given={"KEY": "mine"},
        command=[],
        limited=True,
    )
    with pytest.raises(CliError, match=r"connection refused\.$") as told:
        local.show()
    assert step in told.value.next_step
    assert told.value.exit_code == 5
    assert local.missing == ["OTHER"]
