"""``gantry run`` with this machine's podman, and with the docker of a machine of its own: what an
environment runs, by its digest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ciserver.cli.engines import GRACE
from ciserver.lib.crypto import Secret
from ciserver.releases import secrets, services
from tests.ciserver.releases.conftest import free_port, wait_for
from tests.machines import Machine

pytestmark = [pytest.mark.root, pytest.mark.django_db(transaction=True)]
OURS = "--filter=label=gantry.run=hello@qa"
LAST_WORDS = "trap 'echo bye; exit 3' TERM; /bin/busybox httpd -f -p 8080 -h /www & wait"


class Laptop:
    """Where alice has a client, and podman or docker."""

    def __init__(self, url: str, token: str, folder: Path, digest: str) -> None:
        self.url, self.digest = url, digest
        self.env = os.environ | {
            "GANTRY_URL": url,
            "GANTRY_TOKEN": token,
            "XDG_CONFIG_HOME": str(folder),
            "KEY": "alice-own-key",
        }

    def begin(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "ciserver.cli", "run", "hello@qa", *words],
            env=self.env,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *words: str, stdin: str = "") -> tuple[int, str, str]:
        process = self.begin(*words)
        out, err = process.communicate(stdin, timeout=60)
        return process.returncode, out, err


def page(url: str) -> str:
    """Empty while nobody answers."""
    try:
        return httpx.get(url, trust_env=False, verify=False).text
    except httpx.HTTPError:
        return ""


def left() -> list[str]:
    """Containers that ``gantry run`` made and did not remove."""
    asked = ["podman", "ps", "--all", "--quiet", OURS]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()


@pytest.fixture
def laptop(
    hello: Any,
    alice: Any,
    passed: Any,
    serves: Any,
    guarded_registry: Any,
    live_server: Any,
    tmp_path: Path,
) -> Iterator[Laptop]:
    from ciserver.accounts.models import Scope, Token

    qa = hello.environments.get(name="qa")
    qa.variables = {"LEVEL": "info"}
    qa.save()
    secrets.set_secret(environment=qa, user=alice, name="KEY", value=Secret("the-secret-itself"))
    digest = guarded_registry.push("hello", page="from qa", command=LAST_WORDS)
    release = services.make_release(passed(digest, repository=f"{guarded_registry.address}/hello"))
    release.image = {"port": 8080}
    release.save()
    serves(release, qa)
    token = Token.make(user=alice, name="laptop", scope=Scope.READ)[1]
    try:
        yield Laptop(live_server.url, token, tmp_path, digest)
    finally:
        for name in left():
            subprocess.run(["podman", "rm", "--force", "--time=0", name], check=True)
        reference = f"{release.repository}@{digest}"
        subprocess.run(["podman", "image", "rm", "--force", reference], check=False)


@pytest.fixture
def docker(
    laptop: Laptop, guarded_registry: Any, ships: list[Machine], tmp_path: Path
) -> Iterator[Callable[..., str]]:
    """docker's client, for the daemon of a machine that reaches the registry and the service at
    the addresses that they have here; ``laptop`` has it, too."""
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", key], check=True)
    ships[0].allow(key.with_suffix(".pub").read_text().strip())
    ports = [url.rpartition(":")[2] for url in (guarded_registry.address, laptop.url)]
    words = ["-F", "none", "-i", str(key), "-o", "StrictHostKeyChecking=no"]
    words += ["-o", "UserKnownHostsFile=/dev/null", "-o", "ExitOnForwardFailure=yes"]
    words += [word for port in ports for word in ("-R", f"127.0.0.1:{port}:127.0.0.1:{port}")]
    laptop.env["DOCKER_HOST"] = f"unix:///proc/{ships[0].pid}/root/run/docker.sock"

    def asked(*words: str) -> str:
        done = subprocess.run(
            ["docker", *words], env=laptop.env, capture_output=True, text=True, check=True
        )
        return done.stdout

    with subprocess.Popen(
        ["ssh", *words, "-N", f"root@{ships[0].ip}"], stderr=subprocess.DEVNULL
    ) as tunnel:
        try:
            wait_for(lambda: f"127.0.0.1:{ports[1]} " in ships[0].sh("ss -Hltn"), 20)
            yield asked
        finally:
            for name in asked("ps", "--all", "--quiet", OURS).split():
                asked("rm", "--force", name)
            tunnel.terminate()


def test_docker_runs_the_same(
    laptop: Laptop, docker: Callable[..., str], ships: list[Machine]
) -> None:
    script = "echo $LEVEL $KEY; cat; exit 7"
    code, out, err = laptop.run(
        "--engine=docker", "--env", "KEY", "--", "sh", "-c", script, stdin="typed\n"
    )
    assert (code, out) == (7, "info alice-own-key\ntyped\n"), err
    assert docker("ps", "--all", "--quiet", OURS) == ""
    code, out, err = laptop.run("--engine=docker", "--detach", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["image"].endswith(laptop.digest)
    image = docker("container", "inspect", "--format={{.Config.Image}}", told["container"])
    assert image.strip().endswith(laptop.digest)
    address = told["addresses"][0]
    wait_for(lambda: ships[0].sh(f"wget -qO- {address}", check=False) == "from qa")


def test_docker_ends_with_ctrl_c(laptop: Laptop, docker: Callable[..., str]) -> None:
    process = laptop.begin("--engine=docker")
    wait_for(lambda: docker("ps", "--quiet", OURS) != "")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (3, "bye\n"), err
    assert docker("ps", "--all", "--quiet", OURS) == ""


def test_it_serves_until_ctrl_c_and_leaves_nothing(laptop: Laptop) -> None:
    port = free_port()
    process = laptop.begin("--port", str(port))

    def serving() -> bool:
        assert process.poll() is None, process.communicate()
        return page(f"http://127.0.0.1:{port}/") == "from qa"

    wait_for(serving, 30)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (3, "bye\n")  # it was asked, and had its last word
    assert f"@{laptop.digest}" in err
    assert "It lacks KEY" in err and "--env KEY=" in err
    assert left() == []
    assert not list(Path("/dev/shm").glob("gantry-run-*"))


def test_a_command_has_the_variables_the_input_and_the_exit_code(laptop: Laptop) -> None:
    script = "echo $LEVEL $KEY $GANTRY_RELEASE $PORT; cat; exit 7"
    code, out, err = laptop.run(
        "--env", "KEY", "--env", "LEVEL=debug", "--", "sh", "-c", script, stdin="typed\n"
    )
    assert (code, out) == (7, "debug alice-own-key v1 8080\ntyped\n"), err
    assert "lacks" not in err
    assert left() == []


def test_what_does_not_heed_ctrl_c_is_killed_by_the_second(laptop: Laptop) -> None:
    script = "trap '' TERM INT; echo up; while :; do /bin/busybox sleep 1; done"
    process = laptop.begin("--", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "up\n"
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        while "killed" not in process.stderr.readline():
            assert process.poll() is None
    began = time.monotonic()
    assert process.wait(timeout=30) == 137
    assert time.monotonic() - began < GRACE - 2
    process.communicate()
    assert left() == []


def test_in_the_background_it_says_where_it_answers(laptop: Laptop, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("# of my own\nKEY=from-a-file\n")
    code, out, err = laptop.run("--detach", "--json", "--env-file", str(tmp_path / "mine"))
    assert code == 0, err
    told = json.loads(out)
    assert (told["release"], told["missing_secrets"]) == ("v1", [])
    assert told["image"].endswith(laptop.digest)
    wait_for(lambda: page(told["addresses"][0]) == "from qa")
    env = ["podman", "exec", told["container"], "/bin/busybox", "env"]
    given = subprocess.run(env, capture_output=True, text=True, check=True).stdout
    assert "KEY=from-a-file\n" in given and "LEVEL=info\n" in given
    assert len(left()) == 1
