"""A connection to a host serves whoever comes next, for a while."""

from __future__ import annotations

import os
import signal
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
from ciserver.releases.targets.connection import Connection, connect
from ciserver.releases.targets.errors import HostAway, TargetError
from ciserver.releases.targets.spec import Place
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
