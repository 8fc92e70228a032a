"""A PostgreSQL cluster of its own, in a folder that is gone afterwards.

    python -m tests.postgresql PYTEST-ARGUMENTS

runs tests on it; ``tests/test_both_databases.py`` does so with those that need it most.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
USER = "postgres"  # Debian's package makes it; the server refuses to run as root


def binaries() -> Path:
    """Where Debian has the newest version's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_version)
    assert found, "postgresql is not installed: './gantry test' installs what tests need"
    return found[-1].parent


def _version(program: Path) -> int:
    return int(program.parts[-3])


@dataclass
class Cluster:
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgres://{USER}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Returns when it answers."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            "fsync": "off",
        }
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [binaries() / "postgres", "-D", self.folder / "data", *words],
                user=USER, group=USER, extra_groups=[], cwd=self.folder, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + 120
        ask = [binaries() / "pg_isready", "--quiet", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ask, check=False).returncode != 0:
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def stop(self) -> None:
        """At once, as when the machine it runs on goes down in order."""
        if self.process:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait()
            self.process = None


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A running one."""
    folder = Path(tempfile.mkdtemp(prefix="gantry-postgresql-", dir="/var/tmp"))
    shutil.chown(folder, USER, USER)
    made = subprocess.run(
        [binaries() / "initdb", "-D", folder / "data", "--auth=trust", "--no-sync", "-E", "UTF8",
         "--locale=C.UTF-8", "-U", USER],
        user=USER, group=USER, extra_groups=[], cwd=folder, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    running = Cluster(folder, port)
    try:
        running.start()
        yield running
    finally:
        running.stop()
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)


def run_on(url: str, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """pytest in a process of its own, on the database at ``url``."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=CHECKOUT,
        env=os.environ | {"TEST_POSTGRESQL_URL": url},
        text=True,
        capture_output=True,
        check=False,
    )


if __name__ == "__main__":
    with cluster() as mine:
        done = run_on(mine.url, sys.argv[1:])
    print(done.stdout, done.stderr)
    sys.exit(done.returncode)
