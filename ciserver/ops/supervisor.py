"""Keeps the children running: start in stages, restart with growing pauses, stop in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from ciserver.config import Config
from ciserver.ops import launch
from ciserver.ops.children import Child, log_of
from ciserver.ops.errors import OpsError
from ciserver.ops.ready import Ready

Say = Callable[[str, str], None]  # (child's name, what happened)

FIRST_PAUSE, LONGEST_PAUSE, STEADY = 0.2, 10.0, 30.0  # seconds
ROTATE_SECONDS = 15.0
BACKLOG = 2048  # connections that wait for a web process; the kernel may allow fewer (somaxconn)
_LOG_KEPT = 8 * 1024 * 1024


class Guard:
    """The process that cleans up after us if we are killed; see ``ciserver.ops.guard``."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(Path(__file__).with_name("guard.py"))],
            stdin=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )

    def add(self, group: int) -> None:
        self._tell(f"+{group}\n")

    def remove(self, group: int) -> None:
        self._tell(f"-{group}\n")

    def close(self) -> None:
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        if self._process.stdin:
            self._process.stdin.write(line)
            self._process.stdin.flush()


class Sockets:
    """What the children listen on. It stays open while they are killed and started again."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], socket.socket] = {}

    def descriptor(self, address: tuple[str, int]) -> int:
        """Of the socket at ``address``, opened when it is first asked for. Raises OpsError."""
        if address not in self._open:
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            try:
                found = socket.create_server(address, family=family, backlog=BACKLOG)
            except OSError as error:
                raise OpsError(
                    f"Nothing can listen at {address[0]} port {address[1]}: {error.strerror}.",
                    next_step="Choose another by GANTRY_BIND and GANTRY_PORT.",
                ) from None
            self._open[address] = found
        return self._open[address].fileno()

    def close(self) -> None:
        for one in self._open.values():
            one.close()


class Keeper:
    """One child: ``start`` returns when it is ready; from then on it is kept running."""

    def __init__(
        self, child: Child, config: Config, guard: Guard, sockets: Sockets, say: Say
    ) -> None:
        self.child, self.config, self.guard, self.say = child, config, guard, say
        self.sockets = sockets
        self.log = log_of(config, child.name)
        self.process: subprocess.Popen[bytes] | None = None
        self._ended: asyncio.Future[None]
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        began = time.monotonic()
        if self.child.outlives_us and _listens(self.child.outlives_us):
            self.say(self.child.name, "runs already")
            self._task = asyncio.create_task(self._keep_found())
            return
        ready = self._spawn()
        while not await ready():
            if self._ended.done():
                raise self._failed(f"ended at its start ({_how(self.process)})")
            if time.monotonic() - began > self.child.ready_seconds:
                raise self._failed(f"was not ready within {self.child.ready_seconds:.0f} s")
            await asyncio.sleep(0.03)
        self.say(self.child.name, f"ready after {time.monotonic() - began:.1f} s")
        self._task = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._task and self.child.at_end:
            await self.child.at_end()
        process = self.process
        if process is None or (self.child.outlives_us and self._task):
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await asyncio.wait({self._ended}, timeout=self.child.stop_seconds)
        self._sweep()

    async def _keep_found(self) -> None:
        """Like ``_keep``, for a child that an earlier service started."""
        socket_of_it = self.child.outlives_us
        while socket_of_it and _listens(socket_of_it):  # noqa: ASYNC110 (no event tells its end)
            await asyncio.sleep(1)
        self.say(self.child.name, f"is gone, starting again; {self.log}")
        self._spawn()
        await self._keep()

    async def _keep(self) -> None:
        pause = FIRST_PAUSE
        while True:
            began = time.monotonic()
            await asyncio.wait({self._ended})
            how = _how(self.process)
            self._sweep()
            if time.monotonic() - began > STEADY:
                pause = FIRST_PAUSE
            self.say(self.child.name, f"ended ({how}), starting again in {pause:.1f} s; {self.log}")
            pause = await self._again(pause)

    async def _again(self, pause: float) -> float:
        """Starts it after ``pause``, as often as it takes; returns the next pause, in seconds."""
        while True:
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
            try:
                self._spawn()
            except OSError as error:  # a full disk, a program that is being upgraded
                self.say(self.child.name, f"cannot be started ({error}); again in {pause:.1f} s")
            else:
                return pause

    def _spawn(self) -> Ready:
        """Starts the process; ``_ended`` is done when it has ended."""
        self.child.before()
        ready = self.child.ready()
        env, pass_fds = self._listening()
        with open_log(self.log) as output:
            process = launch.start(
                self.child.command,
                home=self.config.home,
                as_service_user=self.child.as_service_user,
                output=output,
                env={**self.child.env, **env},
                umask=self.child.umask,
                outlives_us=self.child.outlives_us is not None,
                pass_fds=pass_fds,
            )
        self.process = process
        if not self.child.outlives_us:
            self.guard.add(process.pid)
        self._ended = _end_of(process)
        return ready

    def _listening(self) -> tuple[dict[str, str], tuple[int, ...]]:
        if self.child.listen is None:
            return {}, ()
        number = self.sockets.descriptor(self.child.listen)
        return {"LISTEN_FD": str(number)}, (number,)

    def _sweep(self) -> None:
        """Ends and reaps what is left of the child's process group."""
        process, self.process = self.process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if not self.child.outlives_us:
            self.guard.remove(process.pid)

    def _failed(self, what: str) -> OpsError:
        return OpsError(
            f"{self.child.name} {what}.",
            next_step=f"Its whole log: {self.log}",
            details=end_of_log(self.log),
        )


async def supervise(
    children: Sequence[Child],
    config: Config,
    say: Say,
    *,
    stop: asyncio.Event,
    started: Callable[[], None] = lambda: None,
) -> None:
    """Runs the children until ``stop`` is set. Raises OpsError when one does not come up."""
    guard, sockets = Guard(), Sockets()
    keepers: list[Keeper] = []
    try:
        for _, stage in groupby(children, key=lambda child: child.stage):
            new = [Keeper(child, config, guard, sockets, say) for child in stage]
            keepers += new
            await _unless(stop, asyncio.gather(*(keeper.start() for keeper in new)))
            if stop.is_set():
                return
        started()
        rotation = asyncio.create_task(_rotate([keeper.log for keeper in keepers]))
        try:
            await stop.wait()
        finally:
            rotation.cancel()
    finally:
        for _, group in groupby(reversed(keepers), key=lambda keeper: keeper.child.stage):
            await asyncio.gather(*(keeper.stop() for keeper in group))
        sockets.close()
        guard.close()


def run_side_by_side(commands: Mapping[str, Sequence[str]], config: Config) -> None:
    """Runs ``manage.py`` commands, by their logs' names, as the service user until all ended.

    Raises OpsError with the last words of the first that failed.
    """
    running = {}
    for name, command in commands.items():
        with open_log(log_of(config, name)) as output:
            running[name] = launch.start(
                command, home=config.home, as_service_user=True, output=output
            )
    for process in running.values():
        process.wait()
    for name, process in running.items():
        if process.returncode != 0:
            raise OpsError(
                f"'{' '.join(commands[name])}' failed ({_how(process)}).",
                next_step=f"Its whole log: {log_of(config, name)}",
                details=end_of_log(log_of(config, name)),
            )


def output_of(command: Sequence[str], config: Config, *, what: str) -> str:
    """Runs a command as the service user and returns what it printed. Raises OpsError."""
    with tempfile.TemporaryFile() as output:
        process = launch.start(command, home=config.home, as_service_user=True, output=output)
        process.wait()
        output.seek(0)
        text = output.read().decode(errors="replace")
    if process.returncode != 0:
        raise OpsError(
            f"{what} failed ({_how(process)}).",
            next_step="See the lines above.",
            details="\n".join(text.splitlines()[-15:]),
        )
    return text


def open_log(path: Path) -> BinaryIO:
    """For appending; a log grown too long is set aside once as ``.1``."""
    if path.exists() and path.stat().st_size > _LOG_KEPT:
        path.rename(path.with_name(path.name + ".1"))
    return path.open("ab")


async def _rotate(logs: Sequence[Path]) -> None:
    while True:
        await asyncio.sleep(ROTATE_SECONDS)
        for log in logs:
            with contextlib.suppress(OSError):  # a full disk is told of by what fails next
                rotate(log)


def rotate(log: Path) -> bool:
    """Set a log that has grown too long aside as ``.1`` while its writer goes on.

    The writer keeps its descriptor, so the text is copied and then cut off; since it appends, it
    goes on at the new end. What is written while we copy is copied too; between the last look and
    the cut lie microseconds.
    """
    if not log.exists() or log.stat().st_size <= _LOG_KEPT:
        return False
    with log.open("r+b") as source, log.with_name(log.name + ".1").open("wb") as target:
        os.fchmod(target.fileno(), 0o640)
        while block := source.read(1 << 20):
            target.write(block)
        source.truncate(0)
    return True


def end_of_log(path: Path, lines: int = 15) -> str:
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 16384))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])


async def _unless(stop: asyncio.Event, work: asyncio.Future[list[None]]) -> None:
    """Waits for ``work``, or gives it up when ``stop`` is set."""
    stopped = asyncio.ensure_future(stop.wait())
    stopped.add_done_callback(lambda _: work.cancel())
    try:
        await work
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
    finally:
        stopped.cancel()


def _end_of(process: subprocess.Popen[bytes]) -> asyncio.Future[None]:
    # A pidfd rather than asyncio's child watcher, which starts a thread for each child (3.11):
    # a fork beside threads is not safe.
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    pidfd = os.pidfd_open(process.pid)

    def on_exit() -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        process.poll()
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(pidfd, on_exit)
    return ended


def _listens(path: Path) -> bool:
    """Does a process hold this socket? The file alone is left behind by one that was killed."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _how(process: subprocess.Popen[bytes] | None) -> str:
    code = process.poll() if process else None
    if code is None:
        return "running"
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
