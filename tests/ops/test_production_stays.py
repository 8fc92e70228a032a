"""The proxy before production goes on when the service ends, and is found again."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from ciserver.config import Config
from ciserver.ops.children import Child, children_of
from ciserver.ops.launch import CHECKOUT
from ciserver.releases.targets.proxy import Proxy
from tests.e2e.service import stop_caddy
from tests.ops.test_supervisor import Stage, alive, until

pytestmark = pytest.mark.root


@pytest.fixture
def proxy(prepared: Config) -> Iterator[Proxy]:
    yield Proxy(prepared.run / "caddy.sock")
    stop_caddy(prepared.home)


def caddy(config: Config) -> Child:
    return next(child for child in children_of(config) if child.name == "caddy")


def pid_of(proxy: Proxy) -> int:
    with socket.socket(socket.AF_UNIX) as connected:
        connected.connect(str(proxy.socket))
        peer = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int(struct.unpack("3i", peer)[0])


def test_the_proxy_serves_on_after_a_stop_and_the_next_start_finds_it(
    prepared: Config, proxy: Proxy
) -> None:
    stage = Stage(prepared)
    with socket.create_server(("127.0.0.1", 0)) as upstream, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        address = f"127.0.0.1:{upstream.getsockname()[1]}"
        stage.run([caddy(prepared)], lambda: proxy.serve("gantry-1", port=port, upstream=address))
        first = pid_of(proxy)
        socket.create_connection(("127.0.0.1", port), 5).close()
        stage.run([caddy(prepared)], lambda: stage.said.append(f"same {pid_of(proxy) == first}"))
        assert stage.said[-1] == "same True"
        assert "caddy runs already" in stage.said
        socket.create_connection(("127.0.0.1", port), 5).close()
    assert alive(first)


def test_a_found_proxy_that_dies_is_started_again_with_its_routes(
    prepared: Config, proxy: Proxy
) -> None:
    stage = Stage(prepared)
    stage.run(
        [caddy(prepared)],
        lambda: proxy.serve("gantry-1", port=18766, upstream="127.0.0.1:1"),
    )
    first = pid_of(proxy)

    def play() -> None:
        os.kill(first, signal.SIGKILL)
        until(lambda: any("is gone" in line for line in stage.said))
        until(lambda: _answers(proxy))

    stage.run([caddy(prepared)], play)
    assert pid_of(proxy) != first
    assert proxy.routes() == {"gantry-1": "127.0.0.1:1"}


def test_a_proxy_that_serves_nothing_ends_with_the_service(prepared: Config, proxy: Proxy) -> None:
    stage = Stage(prepared)
    pids: list[int] = []

    def play() -> None:
        pids.append(pid_of(proxy))
        proxy.serve("gantry-1", port=18767, upstream="127.0.0.1:1")
        proxy.forget("gantry-1")

    stage.run([caddy(prepared)], play)
    until(lambda: not alive(pids[0]))


def _answers(proxy: Proxy) -> bool:
    transport = httpx.HTTPTransport(uds=str(proxy.socket))
    with httpx.Client(transport=transport) as client:
        try:
            return client.get("http://localhost/config/").is_success
        except httpx.HTTPError:
            return False


SUPERVISOR = """
import asyncio
from tests.ops.test_production_stays import caddy
from ciserver.config import Config
from ciserver.ops.supervisor import supervise

async def main():
    config = Config.from_env()
    up = lambda: print("up", flush=True)
    said = lambda *_: None
    await supervise([caddy(config)], config, said, stop=asyncio.Event(), started=up)

asyncio.run(main())
"""


def test_kill_9_of_the_supervisor_leaves_the_proxy_serving(prepared: Config, proxy: Proxy) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR],
        cwd=CHECKOUT,
        env={"GANTRY_HOME": str(prepared.home), "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline().strip() == "up"
    pid = pid_of(proxy)
    process.kill()
    process.wait()
    assert alive(pid)
    assert _answers(proxy)
