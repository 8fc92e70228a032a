"""RUN --mount=type=ssh and ADD over ssh: an agent is forwarded, and nothing but its signatures."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from builders.cli.sources import agents
from builders.errors import ContextError, UserError
from builders.steps.agents import AgentRelay, Agents
from runtime.spec import Network
from tests.builders.conftest import IDS, Builder, Recorder
from tests.builders.githost import make_repository

pytestmark = pytest.mark.root
Project = Callable[[Mapping[str, str]], Path]

ASK = b"\0\0\0\1\x0b"  # list the identities
REMOVE_ALL = b"\0\0\0\1\x13"
LOCK = b"\0\0\0\5\x16\0\0\0\0"
SAY = "id -u; echo $SSH_AUTH_SOCK; test -S $SSH_AUTH_SOCK && echo agent"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


def talk(path: Path, *messages: bytes) -> list[bytes]:
    with socket.socket(socket.AF_UNIX) as end:
        end.settimeout(10)
        end.connect(str(path))
        answers = []
        for message in messages:
            end.sendall(message)
            size = int.from_bytes(end.recv(4), "big")
            answers.append(end.recv(size, socket.MSG_WAITALL))
        return answers


def test_a_key_is_given_to_an_agent_of_the_build_alone(key: Path) -> None:
    with Agents({"default": key.read_bytes()}) as opened:
        assert "default" in opened and "other" not in opened
        path = opened.socket("default")
        (answer,) = talk(path, ASK)
        assert answer[:5] == b"\x0c\0\0\0\1"
        assert path == opened.socket("default")
    assert not path.parent.exists()


@pytest.mark.parametrize("what", [b"", b"no key\n", Path("/etc/passwd")])
def test_what_is_neither_key_nor_socket_is_refused(what: bytes | Path) -> None:
    with Agents({"default": what}) as opened, pytest.raises(UserError, match="neither the socket"):
        opened.socket("default")


def test_through_the_relay_keys_can_be_used_but_not_taken_away(key: Path, tmp_path: Path) -> None:
    with Agents({"default": key.read_bytes()}) as opened:
        upstream, path = opened.socket("default"), tmp_path / "relay"
        with AgentRelay(upstream, path, owner=(0, 0)):
            asked = talk(path, REMOVE_ALL, LOCK, b"\0\0\0\0", ASK)
            assert asked[:3] == [b"\5", b"\5", b"\5"]
            assert asked[3][:5] == b"\x0c\0\0\0\1"
        assert not path.exists()
        assert talk(upstream, ASK)[0][:5] == b"\x0c\0\0\0\1"


def test_the_relay_ends_with_the_step_whatever_its_clients_do(key: Path, tmp_path: Path) -> None:
    before = threading.active_count()
    with Agents({"default": key.read_bytes()}) as opened:
        with AgentRelay(opened.socket("default"), tmp_path / "r", owner=(0, 0)):
            idle = [socket.socket(socket.AF_UNIX) for _ in range(40)]
            for end in idle:
                end.connect(str(tmp_path / "r"))
            idle[0].sendall(b"\xff\xff\xff\xff")
            assert idle[0].recv(1) == b""  # 4 GiB of a message are not waited for
        deadline = time.monotonic() + 5
        while threading.active_count() > before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert threading.active_count() <= before
        for end in idle:
            end.close()


def ssh_build(builder: Builder, project: Project, run: str, **asked: object) -> Recorder:
    context = project({"Dockerfile": f"FROM busybox\n{run}\n"})
    return builder.all(context, no_cache=True, **asked)[1]


def test_a_step_finds_the_agent_where_ssh_looks_for_it(
    builder: Builder, project: Project, key: Path
) -> None:
    run = f"RUN --mount=type=ssh {SAY}"
    seen = ssh_build(builder, project, run, ssh={"default": key.read_bytes()})
    assert seen.output.split() == [b"0", b"/run/buildkit/ssh_agent.0", b"agent"]


def test_id_target_and_owner_are_the_mounts(builder: Builder, project: Project, key: Path) -> None:
    mount = "--mount=type=ssh,id=deploy,target=/s,uid=1000,required"
    run = f"USER alice\nRUN {mount} {SAY}; stat -c %a:%u /s"
    seen = ssh_build(builder, project, run, ssh={"deploy": key.read_bytes()})
    assert seen.output.split() == [b"1000", b"/s", b"agent", b"600:1000"]


def test_nothing_of_the_agent_stays_in_the_layer(
    builder: Builder, project: Project, key: Path
) -> None:
    context = project({"Dockerfile": "FROM busybox\nRUN --mount=type=ssh echo x > /x\n"})
    image = builder.one(context, ssh={"default": key.read_bytes()})
    without = builder.one(context, no_cache=True)
    assert image.layers == without.layers
    assert "SSH_AUTH_SOCK" not in image.config.to_json().decode()


def test_an_agent_that_is_not_given_is_missed_only_where_it_is_required(
    builder: Builder, project: Project
) -> None:
    seen = ssh_build(builder, project, "RUN --mount=type=ssh echo ${SSH_AUTH_SOCK-none}")
    assert b"no SSH agent 'default' was given" in seen.output
    assert seen.output.endswith(b"none\n")
    with pytest.raises(UserError, match="Pass it with --ssh deploy, or --ssh deploy=KEYFILE"):
        ssh_build(builder, project, "RUN --mount=type=ssh,id=deploy,required true")


def test_the_command_line_takes_sockets_and_keys(
    key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "")
    assert agents([f"deploy={key}"]) == {"deploy": key.read_bytes()}
    with pytest.raises(UserError, match="leads to no agent"):
        agents(["default"])
    with Agents({"default": key.read_bytes()}) as opened:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(opened.socket("default")))
        assert agents(["default"]) == {"default": opened.socket("default")}


# Also tells whose the client's end of the connection is (proc(5), /proc/net/tcp).
_SERVED = """#!/bin/sh
set -- $SSH_CONNECTION
port=$(printf %04X "$2")
while read -r _ here _ state _ _ _ user _; do
    test "$here $state" != "0100007F:$port 01" || echo "$user" >> {clients}
done < /proc/net/tcp
exec git-shell -c "$SSH_ORIGINAL_COMMAND"
"""


class Sshd:
    """A real sshd that lets one key in as root, for ``git-upload-pack`` alone."""

    def __init__(self, folder: Path, key: Path) -> None:
        host_key = folder / "host"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", host_key], check=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        allowed = folder / "allowed"
        public = key.with_suffix(".pub").read_text()
        self.clients = folder / "clients"
        served = folder / "serve.sh"
        served.write_text(_SERVED.format(clients=self.clients))
        served.chmod(0o755)
        allowed.write_text(f'restrict,command="{served}" {public}')
        config = folder / "sshd_config"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {host_key}\nPidFile none\n"
            f"AuthorizedKeysFile {allowed}\nStrictModes no\nPasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\nUsePAM no\nPermitRootLogin forced-commands-only\n"
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        self.known = f"[127.0.0.1]:{self.port} {host_key.with_suffix('.pub').read_text()}".encode()
        self._process = subprocess.Popen(
            ["/usr/sbin/sshd", "-D", "-e", "-f", config], stderr=(folder / "log").open("w")
        )
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError((folder / "log").read_text())

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)


@pytest.fixture
def sshd(tmp_path: Path, key: Path) -> Iterator[Sshd]:
    server = Sshd(tmp_path, key)
    yield server
    server.close()


def test_a_repository_is_added_over_ssh_with_the_agents_key_and_a_known_host(
    builder: Builder, project: Project, sshd: Sshd, key: Path, tmp_path: Path
) -> None:
    repository, _ = make_repository(tmp_path / "served")
    url = f"ssh://root@127.0.0.1:{sshd.port}{repository}"
    context = project({"Dockerfile": f"FROM scratch\nADD {url}#v1 /app\n"})
    asked = {
        "network": Network.EGRESS,
        "egress_allow": [f"127.0.0.1:{sshd.port}"],
        "ssh": {"default": key.read_bytes()},
    }
    with pytest.raises(ContextError, match="its host key is not known here"):
        builder.one(context, **asked)
    image = builder.one(context, secrets={"GIT_KNOWN_HOSTS": sshd.known}, **asked)
    with builder.store.rootfs(image.layers, ids=IDS, bare=True) as rootfs:
        assert (rootfs.path / "app/README").read_text() == "hello\n"
    # ssh runs as the project's own user, whom this machine's passwd does not know.
    assert set(sshd.clients.read_text().split()) == {str(IDS.base)}
    assert not any((builder.store.root / "git").iterdir())
    assert not list(Path("/dev/shm").glob(f"gantry-build-{os.getpid()}.*"))
