"""Hosts that say what no engine and no Caddy says: each lie is named, and each has an end."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from ciserver.releases.targets import admin_socket, engine, proxy
from ciserver.releases.targets.base import EngineTarget
from ciserver.releases.targets.commands import Result
from ciserver.releases.targets.engine import Engine
from ciserver.releases.targets.errors import NotUnderstood, TargetError, TrafficError
from ciserver.releases.targets.machine import Machine
from ciserver.releases.targets.proxy import Proxy
from ciserver.releases.targets.spec import Check, Container, ImageFacts, Wanted

DEEP = "[" * 200_000
LIES = ["not json", "[]", "[{}]", "[null]", "null", "7", '"x"', '{"a": 1}', DEEP, "\0\ufffd"]
IMAGE = ImageFacts(digest="sha256:aa", config_digest="sha256:bb", layers=(), port=1, check=Check())
THERE = Container(
    id="c1", name="one", image_id="", labels={}, running=True, oom_killed=False, restarts=0,
    address="",
)  # fmt: skip
WANTED = Wanted(name="one", reference="r/n@sha256:aa", port=None, memory=1, cpus=1, pids=1)


@dataclass
class Liar:
    """A machine that answers everything with the same, and well."""

    says: str

    def attempt(self, argv: Sequence[str], **_: Any) -> Result:
        return Result(0, self.says, "")

    run = attempt

    def free_port(self) -> int:
        return 20000


Ask = Callable[[EngineTarget], object]
ASKS: dict[str, Ask] = {
    "find": lambda target: target.find("one"),
    "containers": lambda target: target.containers({}),
    "resume": lambda target: target.engine.program and target._inspect(["one"]),
    "images": lambda target: target.images(["sha256:bb"]),
    "layers": lambda target: target._layers(["sha256:bb"]),
    "is it here": lambda target: target._is_here(IMAGE, "r/n@sha256:aa"),
    "start": lambda target: target.start(WANTED),
    "exit code": lambda target: target.exit_code(THERE),
    "networks": lambda target: engine.parse_networks(target.machine.run([], timeout=1).out),
    "running": lambda target: target.checked([THERE]),
}


@pytest.mark.parametrize("asked", ASKS)
def test_what_is_no_answer_is_named_or_means_nothing(asked: str) -> None:
    for lie in LIES:
        target = EngineTarget(cast(Machine, Liar(lie)), Engine(program="podman"))
        with suppress(TargetError):
            ASKS[asked](target)


@pytest.mark.parametrize("asked", ["find", "containers", "images", "is it here", "start"])
def test_it_says_what_was_asked_and_what_to_do(asked: str) -> None:
    target = EngineTarget(cast(Machine, Liar("not json")), Engine(program="podman"))
    with pytest.raises(NotUnderstood, match=r"is no answer that podman, .* Look at what") as error:
        ASKS[asked](target)
    assert "answered to '" in str(error.value)


def test_a_port_is_a_number_whatever_the_host_says_it_is() -> None:
    raw = {
        "Id": "c", "Name": "n", "Image": "i", "State": {"Running": True}, "Config": {},
        "NetworkSettings": {"Ports": {"1/tcp": [{"HostIp": "127.0.0.1", "HostPort": "1:/etc"}]}},
    }  # fmt: skip
    with pytest.raises(NotUnderstood):
        engine.parse_containers(json.dumps([raw]))


def test_a_pull_that_names_an_option_instead_of_an_image_is_refused() -> None:
    """Podman tells the ID of what it pulled, and that becomes a word of the next command."""
    podman, asked = Engine(program="podman"), "r/n@sha256:aa"
    assert podman.name_of(f"Trying\n{'a' * 64}\n", asked) == "a" * 64
    assert podman.name_of("", asked) == asked
    with pytest.raises(NotUnderstood, match="'pull'"):
        podman.name_of("--privileged", asked)


@contextmanager
def caddy(path: Path, answer: Callable[[socket.socket], None]) -> Iterator[Proxy]:
    """Somebody who listens where Caddy should."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                with suppress(OSError):
                    client, _ = server.accept()
                    with client:
                        client.recv(65536)
                        answer(client)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Proxy(path, host="qa-1")
        stop.set()
        with suppress(OSError), socket.socket(socket.AF_UNIX) as last:
            last.connect(str(path))
        thread.join(10)


@pytest.mark.parametrize("lie", LIES)
def test_a_caddy_that_says_something_else_is_named(lie: str, tmp_path: Path) -> None:
    said = lie.encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(said)}\r\n\r\n".encode()
    asks = [
        lambda there: there.routes(),
        lambda there: there.domains(),
        lambda there: there.serve("a", port=1, upstream="127.0.0.1:2"),
        lambda there: there.close("a", seconds=0.1),
    ]
    with caddy(tmp_path / "s", lambda client: client.sendall(head + said)) as there:
        for ask in asks:
            with suppress(TargetError):
                ask(there)


def endless(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    with suppress(OSError):
        while True:
            client.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")


def dribbling(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    with suppress(OSError):
        while True:
            client.sendall(b"x")
            time.sleep(0.05)


def hanging_up(client: socket.socket) -> None:
    pass


@pytest.mark.parametrize("answer", [endless, dribbling, hanging_up])
def test_a_caddy_whose_answer_has_no_end_is_ended(
    answer: Callable[[socket.socket], None], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(proxy, "TIMEOUT", 1.0)
    began = time.monotonic()
    with caddy(tmp_path / "s", answer) as there:
        with pytest.raises(TrafficError, match="Caddy on qa-1 does not answer") as error:
            there.routes()
        assert time.monotonic() - began < 4
        assert "gantry hosts check qa-1" in str(error.value)
        if answer is endless:
            assert f"longer than {admin_socket.MOST >> 20} MiB" in str(error.value)
