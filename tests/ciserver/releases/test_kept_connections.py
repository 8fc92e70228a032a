"""A connection to a host serves whoever comes next, for a while."""

from __future__ import annotations

import os
import resource
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from ciserver.releases.targets import masters, mux
from ciserver.releases.targets.base import EngineTarget
from ciserver.releases.targets.connection import Connection, connect
from ciserver.releases.targets.engine import Engine
from ciserver.releases.targets.errors import CommandTimedOut, HostAway, TargetError
from ciserver.releases.targets.spec import Check, Container, Place
from tests.machines import Machine, machine


@pytest.fixture(scope="module")
def ship() -> Iterator[Machine]:
    with machine() as made:
        yield made


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Short enough for sockets in it (unix(7)), as the service's is."""
    with tempfile.TemporaryDirectory(prefix="gantry-kept-") as folder:
        yield Path(folder)


@pytest.fixture
def place(ship: Machine, tmp_path: Path) -> Iterator[Place]:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", key], check=True)
    ship.allow(key.with_suffix(".pub").read_text().strip())
    host_key = ship.sh("cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub").strip()
    yield Place(
        name="edge",
        kind="ssh",
        address=f"root@{ship.ip}",
        host_key=host_key,
        private_key=key.read_text,
        public_key="",
        expected="",
        engine="podman",
        pin=lambda key: None,
    )
    masters.end_kept(tmp_path)


def port_of(there: Connection) -> str:
    """Which TCP connection a command came by."""
    return there.run(["sh", "-c", "echo $SSH_CONNECTION"], timeout=10).out.split()[1]


def listening(ship: Machine) -> set[str]:
    return set(ship.sh("ss -Hltn 'sport != 22' | awk '{print $4}'").split())


def test_the_next_one_takes_it_and_nothing_that_was_forwarded(
    ship: Machine, place: Place, tmp_path: Path
) -> None:
    before = listening(ship)
    with connect(place, tmp_path) as there:
        first = port_of(there)
        there.exposed(tmp_path / "nobody.sock")
        there.forwarded("127.0.0.1:22")
        assert len(listening(ship) - before) == 1
    assert listening(ship) == before
    with connect(place, tmp_path) as there:
        assert port_of(there) == first
        assert there.facts.engine == "podman"
        assert there.forwarded("127.0.0.1:22").exists()
    assert not [one for one in (tmp_path / "ssh").iterdir() if "-" in one.name]


def test_two_at_once_have_one_each_and_the_second_ends_with_its_user(
    place: Place, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(connect(place, tmp_path))
        with connect(place, tmp_path) as second:
            assert port_of(second) != port_of(first)
        kept = port_of(first)
    with connect(place, tmp_path) as again:
        assert port_of(again) == kept


@pytest.mark.parametrize(
    "why",
    [
        "old",
        "another key",
        "engine unknown",
        "it went wrong",
        "cut",
        "gone",
        "hangs",
        "other forwardings",
    ],
)
def test_one_is_made_anew(
    ship: Machine, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    with connect(place, tmp_path) as there:
        first = port_of(there)
    (kept,) = (tmp_path / "ssh").glob("k*/m-*")
    match why:
        case "old":
            os.utime(kept, (time.time() - masters.OLD,) * 2)
        case "another key":
            place = replace(place, public_key="another")
        case "engine unknown":
            place = replace(place, engine="")
        case "it went wrong":
            with pytest.raises(ZeroDivisionError), connect(place, tmp_path):
                raise ZeroDivisionError
        case "cut":
            ship.restart_sshd()
        case "hangs":
            with connect(place, tmp_path) as there:
                there.exposed(tmp_path / "nobody.sock")
                found = subprocess.run(["pgrep", "-f", kept], capture_output=True, check=True)
                os.kill(int(found.stdout), signal.SIGSTOP)
                monkeypatch.setattr(mux, "QUICK", 0.2)
            monkeypatch.undo()
            os.kill(int(found.stdout), signal.SIGKILL)
        case "other forwardings":
            with connect(place, tmp_path) as there:
                there._made.append((mux.REMOTE, ("127.0.0.1", 0), ("nobody", mux.PATH)))
        case "gone":  # after it was seen
            masters.end(kept.parent)
            kept.symlink_to("nowhere")
    with connect(place, tmp_path) as there:
        assert port_of(there) != first
    assert not kept.exists() or why == "another key"


def test_a_command_has_streams_and_an_exit_code(place: Place, tmp_path: Path) -> None:
    script = "head -c 1000000; echo no >&2; exit 3"
    with connect(place, tmp_path) as there:
        told = there.attempt(["sh", "-c", script], timeout=20, stdin=b"x" * 1_500_000)
        assert (told.code, told.out, told.err) == (3, "x" * 1_000_000, "no\n")
        assert there.run(["wc", "-c"], timeout=20).out == "0\n", "it has nothing to read"


def test_a_command_that_is_not_wanted_any_more_finds_its_streams_closed(
    ship: Machine, place: Place, tmp_path: Path
) -> None:
    script = "trap 'touch /tmp/told; exit' PIPE; while echo; do sleep 0.1; done"

    def pulse() -> None:
        raise ZeroDivisionError

    with connect(place, tmp_path) as there:
        with pytest.raises(ZeroDivisionError):
            there.run(["sh", "-c", script], timeout=20, pulse=pulse)
        deadline = time.monotonic() + 10
        while "told" not in ship.sh("ls /tmp"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert there.run(["echo", "still there"], timeout=20).out == "still there\n"


def test_a_command_without_an_exit_code_does_not_end_the_connection(
    place: Place, tmp_path: Path
) -> None:
    """The user's shell is killed, so that sshd tells of a signal."""
    with connect(place, tmp_path) as there:
        assert there.attempt(["sh", "-c", "kill -9 $PPID $$"], timeout=20).code == mux.LOST
        assert there.run(["echo", "still there"], timeout=20).out == "still there\n"


def test_more_commands_than_sshd_allows_at_once_are_told_so(place: Place, tmp_path: Path) -> None:
    with connect(place, tmp_path) as there, ThreadPoolExecutor(12) as pool:
        some = [pool.submit(there.attempt, ["sleep", "2"], timeout=20) for _ in range(12)]
        said = [str(one.exception()) for one in some if one.exception()]
    assert said and all("sshd on edge: Session open refused by peer. See" in one for one in said)


def test_healthchecks_that_hang_do_not_take_up_all_that_sshd_allows(
    ship: Machine, place: Place, tmp_path: Path
) -> None:
    ship.sh("printf '#!/bin/sh\\nsleep 60\\n' > /tmp/engine && chmod +x /tmp/engine")
    container = Container(
        id="c1",
        name="one",
        image_id="",
        labels={},
        running=True,
        oom_killed=False,
        restarts=0,
        address="",
    )
    with connect(place, tmp_path) as there:
        target = EngineTarget(there, Engine(program="/tmp/engine"))
        check = Check(command=("check",), timeout=0.2)
        for _ in range(4):
            assert target.probe(container, check) == "the HEALTHCHECK did not end within 0.2 s"
        deadline = time.monotonic() + 20
        while ship.sh("pgrep -f '^[^ ]*sh /tmp/engine'", check=False):
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.parametrize("when", ["before it is begun", "while it runs"])
def test_a_command_whose_connection_is_lost_says_so_at_once(
    place: Place, tmp_path: Path, when: str
) -> None:
    with pytest.raises(HostAway, match="The connection to edge was lost"):
        with connect(place, tmp_path) as there, ThreadPoolExecutor(1) as pool:
            if when == "before it is begun":
                there._reached.master.end()
                there._reached.session.wait(10)
            running = pool.submit(there.run, ["sleep", "30"], timeout=20)
            time.sleep(0.5)
            there._reached.master.end()
            running.result(timeout=5)


OPENED = struct.pack(">4I", 12, mux.SESSION_OPENED, 0, 1)
ENDED = struct.pack(">4I", 12, mux.EXIT, 1, 3)
DENIED = struct.pack(">4I", 18, mux.FAILURE, 0, 6) + b"no, no"


@pytest.fixture
def told() -> Iterator[tuple[mux.Session, socket.socket]]:
    """A session, and where a master speaks to it."""
    ours, theirs = socket.socketpair()
    null = [os.open(os.devnull, os.O_RDWR) for _ in range(3)]
    with theirs, mux.Session(ours, null) as session:
        yield session, theirs


@pytest.mark.parametrize("ending", [ENDED, DENIED], ids=["exit", "refused"])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 17, 1000])
def test_what_the_master_says_may_come_in_any_pieces(
    told: tuple[mux.Session, socket.socket], ending: bytes, size: int
) -> None:
    session, master = told
    said = OPENED + ending
    for first in range(0, len(said), size):
        assert session.poll() is None
        master.sendall(said[first : first + size])
    assert session.wait(5) == (3 if ending == ENDED else mux.LOST)
    assert session.refused == ("" if ending == ENDED else "no, no")


def test_a_master_that_goes_away_within_a_message_has_told_nothing(
    told: tuple[mux.Session, socket.socket],
) -> None:
    session, master = told
    master.sendall(OPENED + ENDED[:-1])
    assert session.poll() is None
    master.close()
    assert session.wait(5) == mux.LOST


def test_a_worker_without_descriptors_loses_none_when_it_cannot_begin(
    place: Place, tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with connect(place, tmp_path) as there:
        before = descriptors()
        failures = 0
        for more in range(9):
            resource.setrlimit(resource.RLIMIT_NOFILE, (_beyond(more), hard))
            try:
                there.run(["true"], timeout=20)
            except (HostAway, OSError):
                failures += 1
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert 5 < failures < 9
        assert descriptors() == before


def descriptors() -> set[int]:
    return {int(one.name) for one in Path("/proc/self/fd").iterdir()}


def _beyond(free: int) -> int:
    """A limit below which ``free`` numbers are not taken."""
    number, taken = 0, descriptors()
    while free >= 0:
        free -= number not in taken
        number += 1
    return number - 1


def test_a_master_that_does_not_answer_takes_no_longer_than_the_command_may(
    place: Place, tmp_path: Path
) -> None:
    with connect(place, tmp_path):
        (kept,) = (tmp_path / "ssh").glob("k*/m-*")
    with connect(place, tmp_path) as there:
        found = subprocess.run(["pgrep", "-f", kept], capture_output=True, check=True)
        os.kill(pid := int(found.stdout), signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(CommandTimedOut, match=r"'true' did not end within 0\.5 s"):
                there.run(["true"], timeout=0.5)
            assert time.monotonic() - began < mux.QUICK / 2
        finally:
            os.kill(pid, signal.SIGCONT)
        assert there.run(["echo", "still there"], timeout=20).out == "still there\n"


def test_what_may_be_forwarded_yet_is_not_left_to_the_next_one(
    ship: Machine, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = listening(ship)
    with connect(place, tmp_path) as there:
        first = port_of(there)
        monkeypatch.setattr(mux, "QUICK", 0.5)
        ship.unplug()
        try:
            with pytest.raises(HostAway):
                there.exposed(tmp_path / "nobody.sock")
        finally:
            ship.plug_in()
        monkeypatch.undo()
        deadline = time.monotonic() + 20
        while listening(ship) == before:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    with connect(place, tmp_path) as there:
        assert port_of(there) != first


def test_what_listens_on_the_host_is_seen(ship: Machine, place: Place, tmp_path: Path) -> None:
    with connect(place, tmp_path) as there:
        assert there.connects("127.0.0.1:22", 5)
        assert not there.connects("127.0.0.1:23", 5)


def test_a_host_that_forwards_nothing_is_told_how_to(
    ship: Machine, place: Place, tmp_path: Path
) -> None:
    line = "AllowTcpForwarding no"
    ship.sh(f"echo '{line}' >> /etc/ssh/gantry_sshd")
    ship.restart_sshd()
    try:
        with pytest.raises(TargetError, match=r"sshd on edge forwards nothing .* Allow it there"):
            with connect(place, tmp_path) as there:
                there.exposed(tmp_path / "nobody.sock")
    finally:
        ship.sh(f"sed -i '/{line}/d' /etc/ssh/gantry_sshd")
        ship.restart_sshd()


def test_what_a_killed_one_had_forwarded_ends_with_its_connection(
    ship: Machine, place: Place, tmp_path: Path
) -> None:
    before = listening(ship)
    with connect(place, tmp_path) as there:
        first = port_of(there)
    pid = os.fork()
    if not pid:
        with connect(place, tmp_path) as there:
            there.exposed(tmp_path / "nobody.sock")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert len(listening(ship) - before) == 1
    with connect(place, tmp_path) as there:
        assert port_of(there) != first
    assert listening(ship) == before


def test_a_worker_that_stops_ends_those_that_nobody_uses(place: Place, tmp_path: Path) -> None:
    with connect(place, tmp_path) as there:
        masters.end_kept(tmp_path)
        first = port_of(there)
    (kept,) = (tmp_path / "ssh").glob("k*/m-*")
    masters.end_kept(tmp_path)
    assert not kept.parent.exists()
    with connect(place, tmp_path) as there:
        assert port_of(there) != first
