"""A private network that processes share by its name: ``--network private:NAME``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from runtime.errors import SpecError
from runtime.network import NetworkHandle, join_private
from runtime.snapshots import LowerDir
from runtime.spec import Network
from runtime.state import StateDirectory
from tests.runtime.conftest import IDS, Sandboxes, mounts, processes_of, reap_here, wait_until
from tests.runtime.test_network import PRIVATE, PUBLIC, TRY, internet
from tests.runtime.test_private_network import FILES_FIRST, ask, serving
from tests.together import together

pytestmark = pytest.mark.root
__all__ = ["internet"]
ROOT = Path(__file__).parents[2]


def names_in(handle: NetworkHandle) -> list[str]:
    """Names that a member knows, with the last number of their addresses."""
    assert handle.hosts is not None
    rows = [line.split() for line in handle.hosts.read_text().splitlines()[2:]]
    return [
        f"{name} {address.rpartition('.')[2]}"
        for address, *names in rows
        for name in names
        if ":" not in address
    ]


def test_two_command_lines_meet_by_name_and_alias_and_leave_nothing(
    area: Path, busybox: LowerDir, state: StateDirectory, nothing_left: None
) -> None:
    def start(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "runtime", "run", "--state", str(state.root)),
                *("--rootfs", str(busybox.path), "--ids", str(IDS.base)),
                *("--network", "private:ci", *words),
            ],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    server = "echo up; exec nc -ll -p 8000 -e echo hello"
    db = start("--name", "db", "--network-alias", "postgres", "--", "/bin/sh", "-c", server)
    assert db.stdout is not None and db.stdout.readline() == "up\n"
    script = f"{FILES_FIRST} {TRY} until try db 8000; do sleep 0.1; done; try postgres 8000"
    test = start("--", "/bin/sh", "-c", script)
    assert test.communicate(timeout=60)[0] == "db reached\npostgres reached\n"
    assert wait_until(lambda: len(list(state.networks_dir.glob("*/member-*"))) == 1)
    db.send_signal(signal.SIGTERM)
    assert db.wait(20) == 137
    db.stdout.close()


def test_it_is_there_for_as_long_as_somebody_is_in_it(state: StateDirectory) -> None:
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(join_private("ci", "a", state=state, aliases=["aa"]))
        b = second.enter_context(join_private("ci", "b", state=state))
        [network] = state.networks_dir.iterdir()
        with pytest.raises(SpecError, match="The name aa is taken"):
            with join_private("ci", "aa", state=state):
                pass
        first.close()
        assert network.exists()
        with join_private("ci", "c", state=state):
            assert names_in(b) == ["a 2", "aa 2", "b 3", "c 4"]
            with join_private("other", "a", state=state) as stranger:
                assert names_in(stranger) == ["a 2"]
        with join_private("ci", "a", state=state) as a:
            assert (names_in(a), a.address) == (["a 2", "aa 2", "b 3", "c 4"], "10.212.0.2")
        second.close()
        assert list(state.networks_dir.iterdir()) == []
    assert not [line for line in mounts() if str(state.root) in line]


def test_those_who_come_at_the_same_moment_come_to_the_same_one(state: StateDirectory) -> None:
    with ExitStack() as stack:

        def join(number: int) -> NetworkHandle:
            return stack.enter_context(join_private("ci", f"m{number}", state=state))

        handles = together(join, range(6))
        assert len({handle.address for handle in handles}) == 6
        assert len(list(state.networks_dir.iterdir())) == 1
    assert list(state.networks_dir.iterdir()) == []


def fork(work: Callable[[Callable[[], None]], None]) -> int:
    """A process that does ``work``, which says when it is ready; to be killed."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work(lambda: os.write(write_end, b"x") and None)
        finally:
            os._exit(1)
    os.close(write_end)
    assert os.read(read_end, 1) == b"x"
    os.close(read_end)
    return child


def stay(state: StateDirectory, name: str, ready: Callable[[], None]) -> None:
    with join_private("ci", name, state=state):
        ready()
        signal.pause()


def kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_member_that_was_killed_is_out_and_its_place_can_be_taken(
    sandboxes: Sandboxes,
) -> None:
    """Also the one that made the network, without a reaper in between and with one."""
    state = sandboxes.state
    first = fork(lambda ready: stay(state, "db", ready))
    with join_private("ci", "test", state=state) as test:
        kill(first)
        with join_private("ci", "db", state=state) as db, serving(sandboxes, db):
            assert ask(sandboxes, test, "db") == "db reached\n"
        kill(fork(lambda ready: stay(state, "db", ready)))
        [network] = state.networks_dir.iterdir()
        assert reap_here(state) == [f"removed member-1 of network {network.name}"]
        with join_private("ci", "db", state=state) as db, serving(sandboxes, db):
            assert ask(sandboxes, test, "db") == "db reached\n"


def test_when_all_were_killed_the_reaper_removes_it(state: StateDirectory) -> None:
    children = [fork(lambda ready, n=n: stay(state, n, ready)) for n in ("a", "b")]  # type: ignore[misc]
    [network] = state.networks_dir.iterdir()
    for child in children:
        kill(child)
    assert reap_here(state) == [f"removed network {network.name}"]
    assert not [line for line in mounts() if str(state.root) in line]


def test_with_egress_it_has_a_way_out_and_all_say_so(sandboxes: Sandboxes, internet: None) -> None:
    state = sandboxes.state
    with join_private("ci", "test", state=state, with_egress=True) as test:
        ran = sandboxes.sh(
            f"{TRY} try {PUBLIC} 8000; try {PRIVATE} 8000",
            network=Network.PRIVATE,
            netns=test.netns,
        )
        assert ran.out == f"{PUBLIC} reached\n"
        with pytest.raises(SpecError, match="The private network ci is there with egress"):
            with join_private("ci", "db", state=state):
                pass
    assert processes_of(IDS) == []
