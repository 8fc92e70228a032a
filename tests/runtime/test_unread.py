"""What a sandbox wrote is there to the last byte when whoever reads it is killed with -9."""

from __future__ import annotations

import fcntl
import os
import random
import re
import secrets
import signal
import subprocess
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from runtime import outlets, unread, watcher
from runtime.output import Stream
from runtime.reap import reap
from runtime.sandbox import run
from runtime.snapshots import LowerDir, mount_rootfs
from runtime.spec import MIB, Limits, SandboxSpec
from runtime.state import StateDirectory
from tests.runtime.conftest import (
    IDS,
    PREFIX,
    Sandboxes,
    open_descriptors,
    processes_of,
    wait_until,
)

pytestmark = pytest.mark.root

COUNT = "exec awk 'BEGIN { while (1) print \"number\", ++n }'"
BOTH = (
    "awk 'BEGIN { while (1) print \"number\", ++n }' &"
    ' exec awk \'BEGIN { while (1) print "number", ++n > "/dev/stderr" }\''
)
KILLS = int(os.environ.get("SANDBOX_TEST_KILLS", "10"))


def own(
    state: StateDirectory,
    layer: LowerDir,
    script: str,
    take: Callable[[Stream, bytes], None],
    output: int | None = 1024 * MIB,
) -> int:
    """A process that runs a sandbox, to be killed."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException), state.scratch() as home:
            (home / "layers").mkdir()
            with mount_rootfs(
                [layer], ids=IDS, scratch=home / "layers", target=home / "root"
            ) as root:
                spec = SandboxSpec(
                    id=f"{PREFIX}{secrets.token_hex(4)}",
                    rootfs=root.path,
                    args=("/bin/sh", "-c", script),
                    ids=IDS,
                    limits=Limits(memory=64 * MIB, pids=32, timeout=30, output=output),
                    note="for whom it was",
                )
                run(spec, state=state, on_output=take)
        os._exit(1)  # never back into the test
    return child


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def what_is_unread(state: StateDirectory) -> unread.Unread:
    assert wait_until(lambda: any(state.unread_dir.iterdir()), 60)
    [found] = unread.listed(state)
    return found


def read(found: unread.Unread, stream: Stream = Stream.STDOUT) -> bytes:
    path = found.file(stream)
    return path.read_bytes() if path.exists() else b""


def runs(words: str) -> bool:
    return any(line.startswith(words) for line in processes_of(IDS))


def waiting(state: StateDirectory) -> int:
    """Bytes in the FIFO of the one sandbox that runs."""
    for fifo in state.boxes_dir.glob("*/stdout.fifo"):
        fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        found = fcntl.ioctl(fd, termios.FIONREAD, bytes(4))
        os.close(fd)
        return int.from_bytes(found, "little")
    return 0


def wait_for_full(state: StateDirectory) -> int:
    """How many bytes are in the FIFO when no more go in. How many do depends on how they were
    written, and on how much all pipes of this user have."""
    found = 0
    assert wait_until(lambda: waiting(state) > 1, 60)
    while found != (now := waiting(state)):
        found = now
        time.sleep(0.5)
    return found


def numbers(data: bytes) -> list[int]:
    """Of lines that all are "number N"; the last may be cut anywhere."""
    *lines, cut = data.split(b"\n")
    assert not cut or b"number %d" % (len(lines) + 1) == cut or len(cut) < 16
    assert all(re.fullmatch(rb"number \d+", line) for line in lines)
    return [int(line[7:]) for line in lines]


@pytest.mark.parametrize("script", [COUNT, BOTH], ids=["one stream", "both"])
def test_numbered_lines_are_kept_without_a_gap_when_the_reader_is_killed(
    script: str, state: StateDirectory, busybox: LowerDir, nothing_left: None
) -> None:
    """Whatever the reader had been given is the beginning of it."""
    for _ in range(KILLS // 2):
        got = killed_at_some_moment(state, busybox, script)
        found = what_is_unread(state)
        out = read(found)
        assert found.note == "for whom it was"
        assert out.startswith(got)
        assert numbers(out) == list(range(1, len(numbers(out)) + 1))
        assert len(numbers(out)) > 1000
        if script is BOTH:
            err = read(found, Stream.STDERR)
            assert numbers(err) == list(range(1, len(numbers(err)) + 1))
            assert len(numbers(err)) > 1000
        unread.drop(state, found.id)
        assert wait_until(lambda: not any(state.boxes_dir.iterdir()), 60)


def killed_at_some_moment(state: StateDirectory, layer: LowerDir, script: str) -> bytes:
    """What a reader had been given of stdout when it was killed."""
    got = state.root / "got"
    fd = os.open(got, os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    def take(stream: Stream, data: bytes) -> None:
        if stream is Stream.STDOUT:
            os.write(fd, data)

    child = own(state, layer, script, take)
    os.close(fd)
    assert wait_until(lambda: got.stat().st_size > 0, 60)
    time.sleep(random.random() * 0.3)
    kill(child)
    return got.read_bytes()


def never(stream: Stream, data: bytes) -> None:
    time.sleep(60)


def test_a_line_without_an_end_is_kept_and_so_is_what_nobody_had_read(
    state: StateDirectory, busybox: LowerDir, nothing_left: None, area: Path
) -> None:
    """The reader is stuck in its first piece; the rest is in the FIFO, and in the OCI runtime."""
    script = "printf first; sleep 0.5; seq 1 5000; printf 'no end' >&2; printf 'no end'; sleep 60"
    child = own(state, busybox, script, never)
    assert wait_until(lambda: runs("sleep 60"), 60)
    kill(child)
    found = what_is_unread(state)
    wanted = "first" + "".join(f"{n}\n" for n in range(1, 5001)) + "no end"
    assert read(found).decode() == wanted
    assert read(found, Stream.STDERR) == b"no end"


def test_one_that_ends_by_itself_before_the_reaper_comes_is_kept_as_well(
    state: StateDirectory,
    busybox: LowerDir,
    nothing_left: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pipe is forgotten with its last descriptor: the watcher has one."""
    late = watcher.reap_command(state.root)
    script = "import os, sys, time; time.sleep(3); os.execv(sys.argv[1], sys.argv[1:])"
    args = (late.args[0], "-c", script, *late.args)
    monkeypatch.setattr(watcher, "reap_command", lambda root: watcher.Command(args))
    child = own(state, busybox, "printf first; sleep 0.5; seq 1 3000", never)
    assert wait_until(lambda: runs("sleep 0.5"), 60)
    kill(child)
    assert wait_until(lambda: processes_of(IDS) == [], 60)
    assert not any(state.unread_dir.iterdir())
    found = what_is_unread(state)
    assert read(found).decode() == "first" + "".join(f"{n}\n" for n in range(1, 3001))


def test_a_reaper_that_is_killed_is_followed_by_one_that_finds_all(
    state: StateDirectory,
    busybox: LowerDir,
    nothing_left: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watcher, "reap_command", lambda root: watcher.Command(("/bin/true",)))
    for delay in [random.random() * 0.06 for _ in range(KILLS)]:
        child = own(state, busybox, f"printf x; sleep 0.2; {COUNT}", never)
        full = wait_for_full(state)
        kill(child)
        reaper = os.fork()
        if reaper == 0:
            monkeypatch.undo()
            with suppress(BaseException):
                reap(state)
            os._exit(0)
        time.sleep(delay)
        kill(reaper)
        reap(state)  # there may be one already that follows the killed one
        found = what_is_unread(state)
        assert wait_until(lambda: not any(state.boxes_dir.iterdir()), 60)
        out = read(found)
        assert out.startswith(b"x")
        assert numbers(out[1:]) == list(range(1, len(numbers(out[1:])) + 1))
        assert len(out) > full  # and what runc had read of its own pipe
        unread.drop(state, found.id)
    watcher.dismiss(state.root)


def test_of_what_came_after_the_limit_nothing_is_kept(
    state: StateDirectory, busybox: LowerDir, nothing_left: None
) -> None:
    with outlets.kept(state.root) as ends:
        os.write(ends.writers[0], b"within")
        assert ends.read(ends.readers[0]) == b"within"
        ends.stop_keeping()
        os.write(ends.writers[0], b"beyond")
        assert ends.read(ends.readers[0]) == b"beyond"
        with outlets.rest_of(state.root) as rest:
            assert rest.move()
    assert (state.root / "stdout").read_bytes() == b"within"


def test_an_ordinary_end_leaves_nothing(sandboxes: Sandboxes) -> None:
    sandboxes.sh("true")
    before = open_descriptors()
    ran = sandboxes.sh("echo out; echo err >&2", limits=Limits(output=MIB))
    assert (ran.out, ran.err) == ("out\n", "err\n")
    assert list(sandboxes.state.unread_dir.iterdir()) == []
    assert open_descriptors() == before


def test_the_end_of_both_streams_is_told_while_all_is_still_there(sandboxes: Sandboxes) -> None:
    """Whoever holds back a line without an end can be killed until it knows that it has ended."""
    told: list[bytes] = []

    def look() -> None:
        [box] = sandboxes.state.boxes()
        told.append((box.path / "stdout").read_bytes())

    spec = sandboxes.spec("/bin/sh", "-c", "printf end", limits=Limits(output=MIB))
    run(spec, state=sandboxes.state, on_output=lambda stream, data: look(), on_end=look)
    assert told == [b"end", b"end"]


def test_what_nobody_asks_for_is_forgotten(state: StateDirectory) -> None:
    for number in range(unread.MAXIMUM + 3):
        folder = state.unread_dir / f"x{number:03}"
        folder.mkdir()
        os.utime(folder, (time.time() - 1000 + number,) * 2)
    os.utime(folder, (time.time() - unread.LONGEST - 1,) * 2)
    assert len(unread.prune(state)) == 3
    left = sorted(path.name for path in state.unread_dir.iterdir())
    assert left == [f"x{number:03}" for number in range(2, unread.MAXIMUM + 2)]


def test_pipes_are_kept_open_by_the_watcher_alone_until_they_are_let_go(tmp_path: Path) -> None:
    keeper = watcher.Keeper()
    child = subprocess.Popen(["sleep", "60"], pass_fds=(keeper.queue.fileno(),))
    try:
        pairs = [os.pipe() for _ in range(300)]
        blocks = [keeper.keeping([reader]) for reader, _ in pairs]
        for block in blocks:
            block.__enter__()
        assert keeper._messages <= watcher.MOST_MESSAGES
        for block in blocks[:-1]:
            block.__exit__(None, None, None)
        keeper.close()
        for reader, _ in pairs:
            os.close(reader)
        with pytest.raises(BrokenPipeError):
            os.write(pairs[0][1], b"x")
        os.write(pairs[-1][1], b"x")
    finally:
        child.kill()
        child.wait()
    with pytest.raises(BrokenPipeError):
        os.write(pairs[-1][1], b"x")
    for _, writer in pairs:
        os.close(writer)
    with suppress(OSError):  # as this process is not dead
        blocks[-1].__exit__(None, None, None)
