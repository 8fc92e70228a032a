"""A connection to a host serves whoever comes next, for a while."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from ciserver.releases.targets import connection, masters
from ciserver.releases.targets.connection import Connection, connect
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
    "why", ["old", "another key", "engine unknown", "it went wrong", "cut", "gone", "hangs"]
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
            monkeypatch.setattr(connection, "QUICK", 0.0)
            with connect(place, tmp_path) as there:
                there._made.append(("-R", "127.0.0.1:0:nobody"))
            monkeypatch.undo()
        case "gone":  # after it was seen
            masters.end(kept.parent)
            kept.symlink_to("nowhere")
    with connect(place, tmp_path) as there:
        assert port_of(there) != first
    assert not kept.exists() or why == "another key"


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
