"""Members of a private network from outside: a port, an HTTP status, and a program inside."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from runtime import use
from runtime.errors import SpecError
from runtime.network import NetworkHandle, open_network, open_private, reach
from runtime.spec import Network
from tests.runtime.conftest import Sandboxes

pytestmark = pytest.mark.root


@contextmanager
def running(sandboxes: Sandboxes, member: NetworkHandle, script: str) -> Iterator[str]:
    """The id of a sandbox of ``member`` that runs ``script`` until the block's end."""
    up, over = threading.Event(), threading.Event()
    thread = threading.Thread(
        target=sandboxes.sh,
        args=(f"echo; {script}",),
        kwargs={
            "network": Network.PRIVATE if member.address else Network.EGRESS,
            "netns": member.netns,
            "on_output": lambda stream, data: up.set(),
            "cancel": over,
        },
    )
    thread.start()
    try:
        assert up.wait(10)
        yield use.listed(sandboxes.state)[0].id
    finally:
        over.set()
        thread.join()


def test_a_port_and_a_page_are_reached_by_the_members_address(sandboxes: Sandboxes) -> None:
    with open_private(state=sandboxes.state) as network, network.member("web") as web:
        with pytest.raises(ConnectionRefusedError):
            reach.connect(web, 8080, timeout=1)
        with running(sandboxes, web, "echo x >/tmp/page; exec httpd -f -p 8080 -h /tmp"):
            time.sleep(0.3)
            reach.connect(web, 8080, timeout=1).close()
            assert reach.http_status(web, 8080, "/page", timeout=2) == 200
            assert reach.http_status(web, 8080, "/no", timeout=2) == 404


def test_what_never_answers_is_given_up_after_the_timeout(sandboxes: Sandboxes) -> None:
    dripping = "nc -ll -p 80 -e sh -c 'while :; do printf x; sleep 0.05; done'"
    with open_private(state=sandboxes.state) as network, network.member("web") as web:
        with running(sandboxes, web, f"exec {dripping}"):
            time.sleep(0.3)
            began = time.monotonic()
            with pytest.raises(OSError):
                reach.http_status(web, 80, "/", timeout=1)
            assert time.monotonic() - began < 3


def test_a_network_without_an_address_of_its_own_is_not_reached(sandboxes: Sandboxes) -> None:
    with open_network(Network.EGRESS, state=sandboxes.state) as handle:
        assert handle is not None
        with pytest.raises(SpecError):
            reach.connect(handle, 80, timeout=1)


@pytest.mark.parametrize("kind", ["private", "egress"])
def test_a_program_is_run_in_a_sandbox_whose_network_was_there_before(
    sandboxes: Sandboxes, kind: str
) -> None:
    with open_private(state=sandboxes.state) as network, network.member("web") as web:
        with open_network(Network.EGRESS, state=sandboxes.state) as egress:
            member = web if kind == "private" else egress
            assert member is not None
            with running(sandboxes, member, "ip addr show eth0; exec sleep 60") as id:
                said: list[bytes] = []
                receipt = use.execute(
                    sandboxes.state,
                    id,
                    ("sh", "-c", "ip addr show eth0 | grep -c inet; id -u; ls /proc/1/ns | wc -l"),
                    on_output=lambda stream, data: said.append(data),
                    timeout=10,
                )
    assert receipt.ok, receipt
    assert b"".join(said).split()[1] == b"0"
