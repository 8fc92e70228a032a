"""PRIVATE: the containers of one pipeline see one another by name, and nobody else."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from runtime.errors import SpecError
from runtime.network import NetworkHandle, open_network, open_private, private
from runtime.reap import reap
from runtime.spec import Network
from runtime.state import StateDirectory
from tests.runtime.conftest import Sandboxes, mounts
from tests.runtime.test_network import PRIVATE, PUBLIC, TRY, internet, sh
from tests.runtime.test_reach import running

pytestmark = pytest.mark.root
__all__ = ["internet"]

# As in every distribution's image: without this file glibc asks the name servers only.
FILES_FIRST = "echo 'hosts: files dns' > /etc/nsswitch.conf;"


@contextmanager
def serving(sandboxes: Sandboxes, member: NetworkHandle) -> Iterator[None]:
    """A server on port 8000 of ``member`` that says hello, until the block's end."""
    with running(sandboxes, member, "exec nc -ll -p 8000 -e echo hello"):
        yield


def ask(sandboxes: Sandboxes, member: NetworkHandle, *targets: str) -> str:
    tries = "; ".join(f"try {target} 8000" for target in targets)
    ran = sandboxes.sh(
        f"{FILES_FIRST} sleep 0.2; {TRY} {tries}", network=Network.PRIVATE, netns=member.netns
    )
    return ran.out


def test_members_see_one_another_by_name_and_alias_whoever_came_first(
    sandboxes: Sandboxes,
) -> None:
    with open_private(state=sandboxes.state) as network, network.member("test") as test:
        waiting = "until grep -q '\\<db\\>' /etc/hosts; do sleep 0.05; done;"
        early: list[str] = []
        asked = threading.Thread(
            target=lambda: early.append(
                sandboxes.sh(
                    f"{waiting} {TRY} until try db 8000; do sleep 0.1; done",
                    network=Network.PRIVATE,
                    netns=test.netns,
                ).out
            )
        )
        asked.start()
        with network.member("db", aliases=["postgres", "db.internal"]) as db:
            with serving(sandboxes, db):
                said = ask(sandboxes, test, "db", "postgres", "db.internal")
                asked.join()
    assert said == "db reached\npostgres reached\ndb.internal reached\n"
    assert early == ["db reached\n"]


def test_members_reach_one_another_over_ipv6(sandboxes: Sandboxes) -> None:
    with open_private(state=sandboxes.state) as network:
        with network.member("test") as test, network.member("db") as db:
            with serving(sandboxes, db):
                assert ask(sandboxes, test, "ip6-db") == "ip6-db reached\n"


def test_two_private_networks_do_not_meet_though_their_addresses_are_the_same(
    sandboxes: Sandboxes,
) -> None:
    with open_private(state=sandboxes.state) as one, open_private(state=sandboxes.state) as two:
        with one.member("db") as db, two.member("test") as test:
            with serving(sandboxes, db):
                assert ask(sandboxes, test, "db", private.addresses(1)[0]) == ""
                with two.member("other") as other:
                    assert ask(sandboxes, other, "db", private.addresses(0)[0]) == ""


def test_without_egress_there_is_no_way_out(sandboxes: Sandboxes, internet: None) -> None:
    with open_private(state=sandboxes.state) as network, network.member("test") as test:
        ran = sandboxes.sh(
            f"{TRY} try {PUBLIC} 8000; try {PRIVATE} 8000; ip route; cat /etc/resolv.conf",
            network=Network.PRIVATE,
            netns=test.netns,
        )
    assert ran.out == "10.212.0.0/24 dev eth0 scope link  src 10.212.0.2 \n"


def test_with_egress_members_reach_what_egress_does_and_one_another(
    sandboxes: Sandboxes, internet: None
) -> None:
    with open_private(state=sandboxes.state, with_egress=True) as network:
        with network.member("test") as test, network.member("db") as db:
            with serving(sandboxes, db):
                said = ask(sandboxes, test, PUBLIC, "db", PRIVATE, "172.31.254.2", "10.211.0.1")
                sent = test.traffic()
    assert said == f"{PUBLIC} reached\ndb reached\n"
    assert sent.sent > 100 and sent.received > 100


def test_an_egress_network_cannot_reach_into_a_private_one(sandboxes: Sandboxes) -> None:
    with open_private(state=sandboxes.state, with_egress=True) as network:
        with network.member("db") as db, open_network(Network.EGRESS, state=sandboxes.state) as out:
            assert out is not None
            hub = sh(f"nsenter --net={network.hub.path}/netns ip -4 -o addr show eth0")
            address = hub.split()[3].partition("/")[0]
            with serving(sandboxes, db):
                assert ask(sandboxes, out, private.addresses(1)[0], address) == ""


def test_a_member_can_forge_nothing_on_the_wire(sandboxes: Sandboxes) -> None:
    """No raw or packet socket, no address or neighbour of its own making (ARP, NDP)."""
    with open_private(state=sandboxes.state) as network, network.member("test") as test:
        ran = sandboxes.sh(
            "arping -c 1 -I eth0 10.212.0.9; ping -c 1 -W 1 10.212.0.1; "
            "ip addr add 10.212.0.9/24 dev eth0; ip link set eth0 address 02:00:00:00:00:09; "
            "ip -6 addr show scope link; httpd -f -p 10.212.0.9:9",
            network=Network.PRIVATE,
            netns=test.netns,
        )
    assert "fe80" not in ran.out
    assert ran.err.count("Operation not permitted") == 3
    assert "ping: permission denied" in ran.err
    assert (
        "Cannot assign" in ran.err or "not available" in ran.err
    )  # nor an address that is another's


def test_a_name_that_comes_again_keeps_its_address(state: StateDirectory) -> None:
    with open_private(state=state) as network:
        with network.member("db") as db:
            assert db.hosts is not None
            first = db.hosts.read_text()
        with network.member("web"):
            pass
        for _ in range(5):
            with network.member("db"):
                pass
        with network.member("db") as db:
            assert db.hosts is not None
            again = db.hosts.read_text()
        assert again.startswith(first) and again.count("\tdb\n") == 1


@pytest.mark.parametrize(
    "name", ["", "UPPER", "a b", "x\ny", "-x", "localhost", "ip6-db", "x" * 64]
)
def test_a_name_that_is_none_is_refused(name: str, state: StateDirectory) -> None:
    with open_private(state=state) as network:
        with pytest.raises(SpecError, match="is no name for a member"):
            with network.member(name):
                pass


def test_a_taken_name_is_refused_and_a_closed_network_leaves_nothing(
    state: StateDirectory,
) -> None:
    with open_private(state=state) as network, network.member("db"):
        with pytest.raises(SpecError, match="db is taken"):
            with network.member("web", aliases=["db"]):
                pass
    assert list(state.networks_dir.iterdir()) == []
    assert not [line for line in mounts() if str(state.root) in line]


def gateways() -> set[str]:
    return {line.split()[1] for line in sh("ip -o link").splitlines() if "gtw" in line}


def test_a_killed_owner_leaves_no_namespace_member_or_mount(state: StateDirectory) -> None:
    program = f"""
import pathlib, time
from runtime.network import open_private
from runtime.state import StateDirectory
state = StateDirectory(pathlib.Path({str(state.root)!r}))
with open_private(state=state, with_egress=True) as net, net.member("a"), net.member("b"):
    print("up", flush=True)
    time.sleep(60)
"""
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert owner.stdout is not None and owner.stdout.readline() == b"up\n"
    before = gateways()
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert len([line for line in mounts() if str(state.root) in line]) == 6
    removed = reap(state)
    assert removed and all(line.startswith("removed network ") for line in removed)
    assert not [line for line in mounts() if str(state.root) in line]
    assert list(state.networks_dir.iterdir()) == []
    assert before - gateways(), "others may come meanwhile, from other tests"
