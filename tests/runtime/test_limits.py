"""Limits, proved by exceeding them."""

from __future__ import annotations

import os
import re
import resource
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import Queue
from tempfile import TemporaryDirectory

import pytest

from runtime import disk
from runtime.network import open_private
from runtime.sandbox import Piece, Stream, numbered
from runtime.spec import MIB, Limits, Network, Outcome, Parent
from tests.runtime.conftest import (
    IDS,
    PREFIX,
    Sandboxes,
    cgroups_like,
    open_descriptors,
    processes_of,
)
from tests.runtime.test_reach import running

pytestmark = pytest.mark.root


def test_memory_is_named_and_everything_is_killed(sandboxes: Sandboxes) -> None:
    # It waits until it has been seen: of whom the kernel killed at once, nobody knows the pid.
    dd = "echo $$; sleep 0.3; exec dd if=/dev/zero of=/dev/shm/x bs=1M count=200"
    script = f"sleep 60 & sh -c '{dd}'; sleep 60"
    ran = sandboxes.sh(script, limits=Limits(memory=64 * MIB, shm=256 * MIB, timeout=30))
    receipt = ran.receipt
    assert (receipt.outcome, receipt.exit_code) == (Outcome.OOM, 137)
    pid = ran.out.split()[0]
    assert receipt.detail == f"memory limit of 64 MiB reached, dd (pid {pid}) was killed"
    assert receipt.wall < 30  # of the sixty it would sleep
    assert 32 * MIB < receipt.peak_memory <= 65 * MIB


def test_a_growing_process_is_out_of_memory_too(sandboxes: Sandboxes) -> None:
    script = "awk 'BEGIN { s = \"x\"; while (1) s = s s }'"
    ran = sandboxes.sh(script, limits=Limits(memory=32 * MIB, timeout=30))
    assert ran.receipt.outcome is Outcome.OOM


def test_time_is_named(sandboxes: Sandboxes) -> None:
    ran = sandboxes.sh("trap '' TERM INT; sleep 60", limits=Limits(timeout=0.5))
    assert (ran.receipt.outcome, ran.receipt.exit_code) == (Outcome.TIMEOUT, 137)
    assert ran.receipt.detail == "time limit of 0.5 s reached"
    assert ran.receipt.wall < 3


@pytest.mark.parametrize(
    "bomb",
    [
        "bomb() { bomb | bomb & bomb; }; bomb",
        "while :; do sleep 60 & done",
        "while :; do setsid sh -c 'sleep 60 & sleep 60' & done",
        "bomb() { bomb & bomb & wait; }; while :; do bomb 2>/dev/null; done",
    ],
)
def test_a_fork_bomb_is_named(bomb: str, sandboxes: Sandboxes) -> None:
    ran = sandboxes.sh(bomb, limits=Limits(pids=40, memory=256 * MIB, timeout=30))
    assert (ran.receipt.outcome, ran.receipt.exit_code) == (Outcome.PIDS, 137)
    assert ran.receipt.detail == "limit of 40 processes reached"
    assert ran.receipt.wall < 10
    assert ran.receipt.pids_peak <= 40


def test_a_program_that_copes_with_the_process_limit_is_no_bomb(sandboxes: Sandboxes) -> None:
    script = "n=0; while [ $n -lt 30 ]; do sleep 0.2 & n=$((n + 1)); done; true"
    ran = sandboxes.sh(script, limits=Limits(pids=200, timeout=20))
    assert ran.receipt.ok


def test_output_is_cut_at_its_limit(sandboxes: Sandboxes) -> None:
    ran = sandboxes.sh("yes", limits=Limits(output=100_000, timeout=20))
    assert ran.receipt.outcome is Outcome.OUTPUT
    assert ran.receipt.output_bytes == len(ran.out) == 100_000
    assert ran.receipt.detail == "output limit of 100000 bytes reached"


def test_cpu_is_throttled(sandboxes: Sandboxes) -> None:
    start = sandboxes.sh("true").receipt
    script = "while :; do :; done & sleep 1; kill -9 $!"
    spun = sandboxes.sh(script, limits=Limits(cpus=0.2, timeout=20)).receipt
    spent = spun.user + spun.system - start.user - start.system
    assert spent < 0.2 * spun.wall + 0.3


def test_cancelling_ends_it_within_two_seconds(sandboxes: Sandboxes) -> None:
    cancel = threading.Event()
    pressed: list[float] = []

    def press(stream: Stream, data: bytes) -> None:
        pressed.append(time.monotonic())
        cancel.set()

    ran = sandboxes.sh("trap '' TERM; echo up; sleep 60", cancel=cancel, on_output=press)
    assert time.monotonic() - pressed[0] < 2
    assert (ran.receipt.outcome, ran.receipt.exit_code) == (Outcome.CANCELLED, 137)


TIDY = "trap 'echo tidied; exit 0' TERM; echo up; while :; do sleep 0.1; done"


@pytest.mark.parametrize("why", [Outcome.TIMEOUT, Outcome.SILENT, Outcome.CANCELLED])
def test_who_handles_term_may_clear_up_first(why: Outcome, sandboxes: Sandboxes) -> None:
    cancel = threading.Event()
    limits = Limits(
        timeout=1.5 if why is Outcome.TIMEOUT else 20,
        silence=1.5 if why is Outcome.SILENT else None,
        grace=10,
    )
    ran = sandboxes.sh(
        TIDY, limits=limits, cancel=cancel,
        on_output=lambda stream, data: cancel.set() if why is Outcome.CANCELLED else None,
    )  # fmt: skip
    assert ran.out == "up\ntidied\n"
    assert (ran.receipt.outcome, ran.receipt.exit_code) == (why, 137)
    assert ran.receipt.wall < 5


def test_when_its_grace_is_over_everything_is_killed(sandboxes: Sandboxes) -> None:
    script = "trap 'echo no' TERM; sleep 60 & while :; do sleep 0.1; done"
    ran = sandboxes.sh(script, limits=Limits(timeout=1.5, grace=0.7))
    assert (ran.out, ran.receipt.outcome) == ("no\n", Outcome.TIMEOUT)
    assert 2.2 < ran.receipt.wall < 4
    assert processes_of(IDS) == []
    ran = sandboxes.sh(TIDY, limits=Limits(timeout=1.5, grace=0))
    assert ran.out == "up\n"


def test_another_limit_ends_the_grace(sandboxes: Sandboxes) -> None:
    script = "trap 'yes' TERM; while :; do sleep 0.1; done"
    limits = Limits(timeout=1.5, grace=15, output=10_000)
    ran = sandboxes.sh(script, limits=limits)
    assert ran.receipt.outcome is Outcome.TIMEOUT
    assert ran.receipt.wall < 6


def test_cancelled_before_it_began_it_ends_at_once(sandboxes: Sandboxes) -> None:
    cancel = threading.Event()
    cancel.set()
    ran = sandboxes.sh("sleep 60", cancel=cancel)
    assert ran.receipt.outcome is Outcome.CANCELLED
    assert ran.receipt.wall < 2


def test_it_can_be_cancelled_at_any_moment(sandboxes: Sandboxes) -> None:
    """While its network, its cgroup or its container is being made, and later."""
    for number in range(12):
        cancel = threading.Event()
        timer = threading.Timer(number * 0.02, cancel.set)
        timer.start()
        began = time.monotonic()
        ran = sandboxes.sh("sleep 60 & sleep 60", cancel=cancel, network=Network.EGRESS)
        timer.join()
        assert ran.receipt.outcome is Outcome.CANCELLED
        assert time.monotonic() - began < 10
        assert processes_of(IDS) == []


def test_a_slow_reader_slows_the_sandbox_and_loses_nothing(sandboxes: Sandboxes) -> None:
    ran = sandboxes.sh("seq 1 30000", on_output=lambda stream, data: time.sleep(0.01))
    assert ran.out == "".join(f"{n}\n" for n in range(1, 30001))


def test_binary_output_of_both_streams_arrives_whole(sandboxes: Sandboxes) -> None:
    got: list[tuple[Stream, bytes]] = []
    script = r"printf '\000\377\n'; printf '\376' >&2"
    sandboxes.sh(script, on_output=lambda stream, data: got.append((stream, data)))
    assert sorted(got, key=lambda item: item[0].value) == [
        (Stream.STDOUT, b"\x00\xff\n"),
        (Stream.STDERR, b"\xfe"),
    ]


def test_pieces_are_numbered_over_both_streams_without_a_gap(sandboxes: Sandboxes) -> None:
    pieces: list[Piece] = []
    script = "for i in $(seq 50); do echo out $i; echo err $i >&2; done"
    ran = sandboxes.sh(script, on_output=numbered(pieces.append))
    assert [piece.number for piece in pieces] == list(range(1, len(pieces) + 1))
    assert [piece.at for piece in pieces] == sorted(piece.at for piece in pieces)
    for stream, text in ((Stream.STDOUT, ran.out), (Stream.STDERR, ran.err)):
        got = b"".join(piece.data for piece in pieces if piece.stream is stream)
        assert got.decode() == text and text.count("\n") == 50


def test_the_exit_code_is_the_programs_own(sandboxes: Sandboxes) -> None:
    assert sandboxes.sh("exit 42").receipt.exit_code == 42
    assert sandboxes.sh("sh -c 'kill -TERM $$'; exit $?").receipt.exit_code == 143


def test_a_program_that_is_missing_exits_127(sandboxes: Sandboxes) -> None:
    ran = sandboxes.run("frobnicate", "--all")
    assert (ran.receipt.exit_code, ran.receipt.detail) == (127, "frobnicate: not found")
    assert ran.err == ""


def test_a_file_that_is_no_program_exits_126(sandboxes: Sandboxes) -> None:
    assert sandboxes.run("/tmp").receipt.exit_code == 126


def test_an_exception_in_the_callback_leaves_nothing(sandboxes: Sandboxes) -> None:
    def fail(stream: Stream, data: bytes) -> None:
        raise RuntimeError("the reader is gone")

    with pytest.raises(RuntimeError, match="the reader is gone"):
        sandboxes.sh("echo x; sleep 60", on_output=fail)


def test_the_receipt_counts(sandboxes: Sandboxes) -> None:
    script = "dd if=/dev/zero of=/tmp/f bs=1M count=20 2>/dev/null; echo done"
    receipt = sandboxes.sh(script).receipt
    assert receipt.ok and receipt.output_bytes == 5
    assert receipt.wall > 0 and receipt.user + receipt.system > 0
    assert receipt.peak_memory > MIB and receipt.pids_peak >= 2
    assert 20 * MIB <= receipt.written_bytes < 22 * MIB


def test_the_receipt_counts_what_is_read_from_a_disk_and_not_from_memory(
    sandboxes: Sandboxes,
) -> None:
    made = sandboxes.sh("dd if=/dev/zero of=/tmp/f bs=1M count=20 oflag=direct")
    assert made.receipt.ok, made.err
    for flag, least, most in (("iflag=direct", 20 * MIB, 22 * MIB), ("", 20 * MIB, 22 * MIB)):
        receipt = sandboxes.sh(f"dd if=/tmp/f of=/dev/null bs=1M {flag}").receipt
        assert least <= receipt.read_bytes < most
    assert sandboxes.sh("dd if=/tmp/f of=/dev/null bs=1M").receipt.read_bytes < MIB


def test_the_receipt_counts_what_came_over_the_network(sandboxes: Sandboxes) -> None:
    serve = f"exec nc -ll -p 8000 -e head -c {MIB} /dev/zero"
    with open_private(state=sandboxes.state) as network, network.member("db") as db:
        with network.member("test") as test, running(sandboxes, db, serve):
            ran = sandboxes.sh(
                f"count() {{ n=$(nc -w 2 {db.address} 8000 | wc -c); [ $n -gt 0 ]; }};"
                "until count; do sleep 0.1; done; echo $n",
                network=Network.PRIVATE,
                netns=test.netns,
            )
    assert ran.out == f"{MIB}\n"
    assert MIB < ran.receipt.received_bytes < 1.15 * MIB  # with the heads of its packets
    assert 100 < ran.receipt.sent_bytes < 0.1 * MIB


def test_shared_memory_has_its_size(sandboxes: Sandboxes) -> None:
    limits = Limits(shm=4 * MIB, memory=64 * MIB, timeout=20)
    ran = sandboxes.sh(
        "dd if=/dev/zero of=/dev/shm/x bs=1M count=8; stat -c %s /dev/shm/x", limits=limits
    )
    assert "No space left on device" in ran.err and ran.out == f"{4 * MIB}\n"


def test_sandboxes_of_one_pipeline_share_a_parent_that_goes_with_the_last(
    sandboxes: Sandboxes,
) -> None:
    parent = f"{PREFIX}pipeline"
    seen: list[str] = []
    sandboxes.sh(
        "echo x", parent=Parent(parent), on_output=lambda s, d: seen.extend(cgroups_like(PREFIX))
    )
    assert any(f"/{parent}/{PREFIX}" in path for path in seen)
    assert cgroups_like(parent) == []


@pytest.mark.parametrize(
    ("script", "limits", "words"),
    [
        (
            "dd if=/dev/zero of=/tmp/x bs=1M count=200; sleep 60",
            Limits(disk=20 * MIB, timeout=30),
            "disk limit of 20 MiB reached",
        ),
        (
            "i=0; while :; do mkdir /tmp/$i; i=$((i + 1)); done",
            Limits(inodes=500, timeout=30),
            "limit of 500 files reached",
        ),
        (
            "exec 3>/tmp/x; rm /tmp/x; dd if=/dev/zero bs=1M count=60 >&3; sleep 60",
            Limits(disk=20 * MIB, timeout=30),
            "disk limit of 20 MiB reached",
        ),
        (
            "dd if=/dev/zero of=/tmp/x bs=1M count=30",
            Limits(disk=20 * MIB, timeout=30),
            "disk limit of 20 MiB reached",
        ),
    ],
    ids=["bytes", "files", "deleted-but-open", "ended-before-it-was-seen"],
)
def test_what_it_writes_is_limited(
    script: str, limits: Limits, words: str, sandboxes: Sandboxes
) -> None:
    receipt = sandboxes.sh(script, limits=limits).receipt
    assert (receipt.outcome, receipt.exit_code, receipt.detail) == (Outcome.DISK, 137, words)
    assert receipt.wall < 10


def test_holes_and_links_count_once_and_honest_writing_is_left_alone(sandboxes: Sandboxes) -> None:
    script = """
    truncate -s 1G /tmp/hole; dd if=/dev/zero of=/tmp/x bs=1M count=8 2>/dev/null
    ln /tmp/x /tmp/y; ln /tmp/x /tmp/z
    """
    assert sandboxes.sh(script, limits=Limits(disk=20 * MIB, inodes=20, timeout=20)).receipt.ok


def test_directories_cannot_hide_what_they_hold_by_their_depth(sandboxes: Sandboxes) -> None:
    script = "cd /tmp; i=0; while [ $i -lt 450 ]; do mkdir d; cd d; i=$((i + 1)); done"
    receipt = sandboxes.sh(script, limits=Limits(disk=20 * MIB, timeout=20)).receipt
    assert receipt.outcome is Outcome.DISK and "deeper than 400" in receipt.detail


def test_what_cannot_be_counted_is_not_kept(
    sandboxes: Sandboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trees that are counted at the same time may hold all descriptors: nobody hides behind it."""
    monkeypatch.setattr(disk, "BLIND_TRIES", 2)
    script = "cd /tmp; i=0; while [ $i -lt 100 ]; do mkdir d; cd d; i=$((i + 1)); done; echo x > x"
    limits = Limits(disk=20 * MIB, timeout=20)
    upper = sandboxes.rootfs.upper
    assert sandboxes.sh(script, limits=limits).receipt.ok
    assert not disk.count(upper, limits).blind
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_descriptors() + 40, before[1]))
    try:
        assert disk.count(upper, limits).blind
        said = disk.DiskWatch(limits, upper, list, str)
        with said:
            assert "cannot be counted" in said.judge()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_what_is_deleted_but_held_open_counts_whatever_the_file_system_shows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What others give back meanwhile hides its growth from a look at the file system."""
    monkeypatch.setattr(disk, "REGULAR", 0.2)
    said: Queue[str] = Queue()
    # Only what is in the root file system counts, which /tmp need not be.
    with TemporaryDirectory(dir="/var/tmp") as folder, Path(folder, "file").open("wb") as file:
        Path(folder, "file").unlink()
        file.write(bytes(2 * MIB))
        os.fsync(file)
        with disk.DiskWatch(Limits(disk=MIB), Path(folder), lambda: [os.getpid()], said.put):
            assert said.get(timeout=20) == "disk limit of 1 MiB reached"


def test_silence_is_named(sandboxes: Sandboxes) -> None:
    script = "for i in 1 2 3; do echo; sleep 0.3; done; sleep 60"
    receipt = sandboxes.sh(script, limits=Limits(silence=0.7, timeout=30)).receipt
    assert (receipt.outcome, receipt.detail) == (Outcome.SILENT, "no output for 0.7 s")
    assert 0.9 < receipt.wall < 5


def test_a_receipt_tells_how_it_went_over_time_and_how_long_it_was_held_back(
    sandboxes: Sandboxes,
) -> None:
    # So little that it is held back also where others leave it a part of a core only.
    limits = Limits(cpus=0.05, memory=64 * MIB, timeout=20)
    receipt = sandboxes.sh("while :; do :; done & sleep 2.3; kill -9 $!", limits=limits).receipt
    assert receipt.throttled > 0.5
    seconds = int(receipt.wall), int(receipt.wall - 0.3)  # one that is due at the end is not taken
    assert len(receipt.samples) in seconds, "one a second"
    (first, cpu, memory, pids), (second, more, *_) = receipt.samples[:2]
    assert 0.9 < first < 1.6 < second and 0 < cpu < more and memory > 0 and pids >= 2


def test_two_sandboxes_share_one_budget_of_memory(sandboxes: Sandboxes) -> None:
    parent = Parent(f"{PREFIX}budget", Limits(memory=64 * MIB))
    script = "dd if=/dev/zero of=/dev/shm/x bs=1M count=45 2>/dev/null; sleep 2; echo done"
    each = Limits(memory=60 * MIB, shm=60 * MIB, timeout=20)

    def one(_: int) -> Outcome:
        receipt = sandboxes.sh(script, limits=each, parent=parent).receipt
        if receipt.outcome is Outcome.OOM:
            # Which of the two, the kernel says: what fills the budget is a file, of neither.
            words = (
                r"memory limit of 64 MiB for the whole pipeline reached, (dd|sh)( .*)? was killed"
            )
            assert re.fullmatch(words, receipt.detail)
        return receipt.outcome

    with ThreadPoolExecutor(2) as pool:
        assert Outcome.OOM in set(pool.map(one, range(2)))
    assert one(0) is Outcome.EXITED  # alone it fits
    assert cgroups_like(parent.name) == []


def test_the_budget_bounds_processes_and_cores(sandboxes: Sandboxes) -> None:
    parent = Parent(f"{PREFIX}budget", Limits(pids=20, cpus=0.5))
    bomb = sandboxes.sh(
        "while :; do sleep 60 & done", limits=Limits(pids=60, cpus=2, timeout=20), parent=parent
    ).receipt
    assert (bomb.outcome, bomb.detail) == (
        Outcome.PIDS,
        "limit of 20 processes for the whole pipeline reached",
    )


def test_the_bytes_of_its_network_are_counted(sandboxes: Sandboxes) -> None:
    script = "nc -w 1 1.1.1.1 9; true"
    talking = sandboxes.sh(script, network=Network.EGRESS).receipt
    silent = sandboxes.sh(script).receipt
    assert talking.ok and talking.sent_bytes > 40  # a frame that asks for a connection
    assert (silent.sent_bytes, silent.received_bytes) == (0, 0)


@pytest.mark.parametrize(
    ("limits", "flags"),
    [
        (Limits(io_write=4 * MIB, timeout=20), "if=/dev/zero of=/tmp/x oflag=direct"),
        (Limits(io_read=4 * MIB, timeout=20), "if=/tmp/x of=/dev/null iflag=direct"),
    ],
)
def test_io_is_slowed_to_its_rate(limits: Limits, flags: str, sandboxes: Sandboxes) -> None:
    made = sandboxes.sh("dd if=/dev/zero of=/tmp/x bs=1M count=6 oflag=direct")
    assert made.receipt.ok, made.err
    ran = sandboxes.sh(f"dd {flags} bs=1M count=6", limits=limits)
    assert ran.receipt.ok, ran.err
    assert ran.receipt.wall > 1.0, "6 MiB at 4 MiB a second"


def test_a_weight_of_io_is_a_wish_that_harms_nothing(sandboxes: Sandboxes) -> None:
    read: list[str] = []

    def look(stream: Stream, data: bytes) -> None:
        for directory in cgroups_like(PREFIX):
            for name in ("blkio.bfq.weight", "io.weight", "io.bfq.weight"):
                with suppress(FileNotFoundError):
                    read.append((Path(directory) / name).read_text().strip())

    ran = sandboxes.sh("echo up", limits=Limits(io_weight=50, timeout=20), on_output=look)
    assert ran.receipt.ok
    # v2 has two, and one that no disk's scheduler looks at may refuse it.
    assert set(read) - {"default 100"} <= {"50", "default 50"}
    assert not read or {"50", "default 50"} & set(read)
