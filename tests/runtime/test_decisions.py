"""The decisions that need no sandbox: which runtime, which verdict, whose fault."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from runtime import failures, host, oci, oomlog, owner, process
from runtime.asking import Process, first_of, look
from runtime.cgroups import CgroupName, directories, disks, v1, v2
from runtime.cgroups.usage import Usage
from runtime.disk import words
from runtime.errors import HostError, SpecError
from runtime.fakes import Answer, FakeSandboxes
from runtime.host import CgroupVersion, OciRuntime
from runtime.outlets import Outlets, pipes
from runtime.output import Pump, Stream
from runtime.process import Command
from runtime.snapshots.overlay import dead_targets
from runtime.spec import MIB, IdRange, Limits, Outcome, SandboxSpec
from runtime.state import StateDirectory
from runtime.watchdog import SAMPLES_MAXIMUM, BombDetector, Series, Watchdog


def installed(*names: str):  # type: ignore[no-untyped-def]
    return lambda name: f"/usr/bin/{name}" if name in names else None


def test_crun_is_preferred_with_cgroups_v2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GANTRY_OCI_RUNTIME", raising=False)
    assert host.choose_runtime(CgroupVersion.V2, installed("crun", "runc")).name == "crun"
    assert host.choose_runtime(CgroupVersion.V2, installed("runc")).name == "runc"


def test_runc_is_taken_with_cgroups_v1_which_crun_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GANTRY_OCI_RUNTIME", raising=False)
    assert host.choose_runtime(CgroupVersion.V1, installed("crun", "runc")).name == "runc"
    with pytest.raises(HostError, match="apt-get install runc"):
        host.choose_runtime(CgroupVersion.V1, installed("crun"))


def test_an_administrator_can_name_the_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANTRY_OCI_RUNTIME", "runc")
    assert host.choose_runtime(CgroupVersion.V2, installed("crun", "runc")).name == "runc"


def test_a_runtime_that_is_neither_is_asked_for_nothing_of_runcs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GANTRY_OCI_RUNTIME", "runsc")
    found = host.choose_runtime(CgroupVersion.V2, installed("runsc"))
    assert found.name == "runsc"
    command = oci.run_command(found, id="x", bundle=Path("/b"), root=Path("/r"), log=Path("/l"))
    assert "--keep" not in command.args


def test_the_kernels_version_is_read_from_its_release() -> None:
    assert host.kernel_version("6.1.0-18-amd64") == (6, 1)
    assert host.kernel_version("5.19") == (5, 19)


def test_missing_programs_are_named_with_their_packages() -> None:
    assert host._check_programs(installed("unshare", "nft")) == (
        "Missing programs: ip. Install them: apt-get install iproute2"
    )
    assert host._check_programs(installed("unshare", "nft", "ip")) == ""


def test_an_old_runc_is_worth_a_note() -> None:
    [note] = host.runtime_notes("runc version 1.1.5+ds1\ncommit: x\n")
    assert "runc 1.1.5 may lack" in note
    assert host.runtime_notes("runc version 1.3.4\n") == []
    assert host.runtime_notes("crun version 1.8.1\n") == []


def test_only_runc_is_asked_to_keep_the_container() -> None:
    places = {"id": "x", "bundle": Path("/b"), "root": Path("/r"), "log": Path("/l")}
    runc = oci.run_command(OciRuntime("runc", Path("/usr/sbin/runc")), **places)  # type: ignore[arg-type]
    crun = oci.run_command(OciRuntime("crun", Path("/usr/bin/crun")), **places)  # type: ignore[arg-type]
    assert runc.args[-5:] == ("run", "--keep", "--bundle", "/b", "x")
    assert crun.args[-4:] == ("run", "--bundle", "/b", "x")


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        (
            "runc run failed: unable to start container process: exec: "
            '"nope": executable file not found in $PATH',
            127,
            "not found",
        ),
        ("executable file `nope` not found in $PATH: No such file or directory", 127, "not found"),
        ("exec: No such file or directory", 127, "not found"),  # crun, of what its loader lacks
        (
            "runc run failed: unable to start container process: exec: "
            '"/nope": stat /nope: no such file or directory',
            127,
            "not found",
        ),
        (
            'runc run failed: unable to start container process: exec: "/tmp": permission denied',
            126,
            "cannot be executed",
        ),
        (
            'runc run failed: unable to start container process: exec: "/tmp": is a directory',
            126,
            "cannot be executed",
        ),
        ("the path `/tmp` is not a regular file: Not permitted", 126, "cannot be executed"),
        ("open executable: Permission denied", 126, "cannot be executed"),
        ("open executable: Operation not permitted", 126, "cannot be executed"),
        ("exec /x: exec format error", 126, "wrong format"),
        (
            'exec failed: unable to start container process: chdir to cwd ("/x") set in '
            "config.json failed: no such file or directory",
            126,
            "its working directory cannot be entered",
        ),
        ("chdir: No such file or directory", 126, "its working directory cannot be entered"),
        ("chdir `/x`: No such file or directory", 126, "its working directory cannot be entered"),
        ('exec: "chdir": executable file not found in $PATH', 127, "not found"),
        (
            "runc run failed: unable to start container process: error during container init: "
            'error mounting "proc": permission denied',
            None,
            'error during container init: error mounting "proc": permission denied',
        ),
    ],
)
def test_the_runtimes_words_tell_whose_fault_it_is(
    message: str, code: int | None, words: str
) -> None:
    assert failures.explain(message) == failures.Failure(words, code)


def test_a_log_without_an_error_means_that_the_program_ran(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert failures.read(log) is None
    log.write_text('{"level":"warning","msg":"old kernel"}\nnot json\n')
    assert failures.read(log) is None
    log.write_text('{"level":"error","msg":"no space left"}\n')
    assert failures.read(log) == failures.Failure("no space left", None)


class FakeGroup:
    """A cgroup whose counters a test sets."""

    def __init__(self) -> None:
        self.oom = self.refused = self.above = self.current = self.kills = 0

    def oom_kills(self) -> int:
        return self.oom

    def pids_refused(self) -> int:
        return self.refused

    def pids_refused_above(self) -> int:
        return self.above

    def pids_current(self) -> int:
        return self.current

    def memory_current(self) -> int:
        return 7

    def usage(self) -> Usage:
        return Usage(user=1.5, system=0.5)

    def kill(self) -> None:
        self.kills += 1


def watch(limits: Limits, group: FakeGroup) -> Watchdog:
    return Watchdog(limits, group, group, None)


def test_a_refusal_for_the_whole_pipeline_is_told_of_those_alone_that_failed() -> None:
    group = FakeGroup()
    group.above = 500
    for exit_code, outcome in ((2, Outcome.PIDS), (0, Outcome.EXITED)):
        with Watchdog(Limits(), group, group, None, Limits(pids=20)) as dog:
            assert dog.verdict(exit_code)[0] is outcome


def test_a_clean_end_has_no_detail() -> None:
    with watch(Limits(), FakeGroup()) as dog:
        assert dog.verdict(3) == (Outcome.EXITED, "")


def test_memory_is_the_verdict_whatever_the_exit_code() -> None:
    group = FakeGroup()
    with watch(Limits(memory=64 * MIB), group) as dog:
        group.oom = 1
        assert dog.verdict(0) == (
            Outcome.OOM,
            "memory limit of 64 MiB reached, by which process is unknown",
        )


def test_refused_processes_count_only_when_the_program_failed() -> None:
    group = FakeGroup()
    group.refused = 1
    with watch(Limits(pids=10), group) as dog:
        assert dog.verdict(0) == (Outcome.EXITED, "")
    with watch(Limits(pids=10), group) as dog:
        assert dog.verdict(2) == (Outcome.PIDS, "limit of 10 processes reached")


def test_many_refused_processes_count_even_when_the_program_ended_well() -> None:
    group = FakeGroup()
    group.refused = 9
    with watch(Limits(pids=10), group) as dog:
        assert dog.verdict(0) == (Outcome.PIDS, "limit of 10 processes reached")


def test_a_flood_of_refusals_is_a_bomb_though_it_dips_below_the_limit() -> None:
    bomb = BombDetector(40)
    assert not bomb.look(0, 900, 3)
    assert bomb.look(0.1, 1000, 3)


def test_silence_is_named_and_output_ends_it() -> None:
    with watch(Limits(silence=0.3), FakeGroup()) as dog:
        time.sleep(0.2)
        dog.heard()
        time.sleep(0.2)
        assert dog.verdict(0) == (Outcome.EXITED, "")
    with watch(Limits(silence=0.1), FakeGroup()) as dog:
        time.sleep(0.4)
        assert dog.verdict(137) == (Outcome.SILENT, "no output for 0.1 s")


def test_a_series_stays_small_and_covers_the_whole_time() -> None:
    series = Series(FakeGroup())
    for second in range(3601):
        series.look(second)
    assert len(series.samples) <= SAMPLES_MAXIMUM
    assert series.samples[0][0] < 120 and series.samples[-1][0] > 3500
    assert series.samples[-1][1:] == (2.0, 7, 0)


def test_the_first_reason_counts() -> None:
    group = FakeGroup()
    with watch(Limits(), group) as dog:
        dog.end(Outcome.OUTPUT, "too much")
        dog.end(Outcome.TIMEOUT, "too long")
        assert dog.verdict(137) == (Outcome.OUTPUT, "too much")
    assert group.kills >= 2


def test_killing_is_repeated_until_the_end() -> None:
    group = FakeGroup()
    with watch(Limits(timeout=0.05), group) as dog:
        deadline = time.monotonic() + 5
        while group.kills < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert dog.verdict(137)[0] is Outcome.TIMEOUT
    assert group.kills >= 3


def test_a_cancelled_one_is_killed_at_the_next_look() -> None:
    group, cancel = FakeGroup(), threading.Event()
    with Watchdog(Limits(), group, group, cancel) as dog:
        cancel.set()
        time.sleep(0.25)
        assert dog.verdict(137) == (Outcome.CANCELLED, "cancelled")


def test_one_that_was_killed_before_the_next_look_was_cancelled_as_well() -> None:
    group, cancel = FakeGroup(), threading.Event()
    cancel.set()
    for code, outcome in ((137, Outcome.CANCELLED), (1, Outcome.CANCELLED), (0, Outcome.EXITED)):
        with Watchdog(Limits(), group, group, cancel) as dog:
            assert dog.verdict(code)[0] is outcome


def one(pid: int, inside: int, parent: int, age: int = 0) -> Process:
    return Process(pid, inside, parent, age, listens=True)


def test_of_a_sandbox_process_one_is_asked_and_of_a_part_whom_none_of_it_started() -> None:
    entered, orphan = one(30, 7, parent=3, age=5), one(31, 8, parent=20, age=9)
    assert first_of([entered, one(21, 2, parent=20), one(20, 1, parent=2, age=6)]) == one(
        20, 1, 2, 6
    )
    assert first_of([one(32, 9, parent=30), orphan, entered]) == entered
    assert first_of([]) is None


@pytest.mark.parametrize(
    ("handler", "listens"),
    [(signal.SIG_DFL, True), (signal.SIG_IGN, False), (lambda *_: None, True)],
)
def test_who_ignores_a_wish_need_not_be_asked(handler: object, listens: bool) -> None:
    before = signal.signal(signal.SIGTERM, handler)  # type: ignore[arg-type] # parametrized
    try:
        me = look(os.getpid())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert me is not None and (me.listens, me.parent) == (listens, os.getppid())


def test_a_bomb_stays_at_the_limit_and_asks_again() -> None:
    bomb = BombDetector(40)
    refused = [0, 38, 38, *[38] * 9, 77, *[77] * 20, 79]
    seen = [bomb.look(tick / 10, count, 40) for tick, count in enumerate(refused)]
    assert seen.index(True) == 31  # three seconds after it was full, and it had asked again


def test_a_program_that_is_full_but_content_is_no_bomb() -> None:
    bomb = BombDetector(40)
    assert not any(bomb.look(tick / 10, 1, 40) for tick in range(200))


def test_a_program_that_recovers_is_no_bomb() -> None:
    bomb = BombDetector(40)
    assert not any(bomb.look(t / 10, t, 40 if t % 20 else 10) for t in range(200))


@dataclass
class Pipes:
    """Both streams of a program that a test plays, with the pump that reads them."""

    failed: bool = False
    limit: int | None = None
    got: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ends = {stream: os.pipe() for stream in Stream}
        self.outlets = Outlets([read_end for read_end, _ in self.ends.values()], [])
        self.pump = Pump(
            self.limit, lambda stream, data: self.got.append(data), lambda: self.failed
        )

    def copy(self, *writes: tuple[Stream, bytes], pause: float = 0) -> bool:
        """Whether the pump read all that is written, ``pause`` seconds before the end."""

        def write() -> None:
            for stream, data in writes:
                os.write(self.ends[stream][1], data)
                time.sleep(0.1)  # or the order of the two streams is nobody's
            time.sleep(pause)
            for _, write_end in self.ends.values():
                os.close(write_end)

        writer = threading.Thread(target=write)
        writer.start()
        whole = self.pump.copy(self.outlets)
        writer.join()
        for read_end, _ in self.ends.values():
            os.close(read_end)
        return whole


WORDS = (Stream.STDERR, b"runc run failed: no such file")


def test_what_the_runtime_says_when_it_fails_is_held_back() -> None:
    pipes = Pipes(failed=True)
    assert pipes.copy(WORDS, pause=0.2) and pipes.got == []
    pipes.pump.flush()
    assert pipes.got == [WORDS[1]]


def test_what_a_program_says_first_on_stderr_arrives_after_a_moment() -> None:
    pipes = Pipes()
    seen: list[list[bytes]] = []
    looker = threading.Timer(0.4, lambda: seen.append(list(pipes.got)))
    looker.start()
    assert pipes.copy(WORDS, pause=0.8)
    assert seen == [[WORDS[1]]]


def test_the_order_of_pieces_is_kept() -> None:
    for writes in ((WORDS, (Stream.STDOUT, b"x")), ((Stream.STDOUT, b"x"), WORDS)):
        pipes = Pipes()
        pipes.copy(*writes)
        pipes.pump.flush()
        assert pipes.got == [data for _, data in writes]


def test_output_beyond_the_limit_is_cut() -> None:
    pipes = Pipes(limit=5)
    assert not pipes.copy((Stream.STDOUT, b"123"), (Stream.STDERR, b"4567"))
    assert (pipes.got, pipes.pump.count) == ([b"123", b"45"], 5)
    assert Pipes(limit=7).copy((Stream.STDOUT, b"1234567"))


def test_sizes_are_written_for_people() -> None:
    assert [words(n) for n in (100, 1024, 64 * MIB, 2048 * MIB, 1500)] == [
        "100 bytes",
        "1 KiB",
        "64 MiB",
        "2 GiB",
        "1500 bytes",
    ]


def test_a_process_is_known_by_its_start_time_too() -> None:
    mine = owner.token()
    pid, start, boot = mine.split(".")
    assert owner.is_alive(mine)
    for token in (f"{pid}.{int(start) + 1}.{boot}", f"{pid}.{start}.other", "", "x", "1.2"):
        assert not owner.is_alive(token)


def test_only_dead_makers_mounts_are_found_newest_first() -> None:
    living, dead = f"gantry:{owner.token()}", "gantry:1.1.boot"
    table = f"""\
1 0 8:1 / / rw - ext4 /dev/vda rw
2 1 0:40 / /a\\040b rw - overlay {dead} rw
3 1 0:41 / /c rw - overlay {living} rw
4 1 0:42 / /d rw - overlay overlay rw
5 1 8:1 /x /e/view/{dead} rw,idmapped - ext4 /dev/vda rw
"""
    assert dead_targets(table) == [Path(f"/e/view/{dead}"), Path("/a b")]


def test_a_cgroups_place_is_below_its_parent() -> None:
    assert CgroupName("box", "pipe").path == "/gantry/pipe/box"
    assert CgroupName("box").path == "/gantry/box"


def fill(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)


def test_v2_counters_are_read(tmp_path: Path) -> None:
    fill(
        tmp_path / "gantry/x",
        {
            "box/cpu.stat": "nr_throttled 3\nthrottled_usec 250000\n",
            "memory.current": "900\n",
            "cpu.stat": "usage_usec 30\nuser_usec 2000000\nsystem_usec 500000\n",
            "memory.peak": "1000\n",
            "pids.peak": "7\n",
            "pids.current": "3\n",
            "memory.events": "low 0\nmax 3\noom 1\noom_kill 2\noom_group_kill 1\n",
            "pids.events": "max 4\n",
            "box/pids.events": "max 9\n",
            "box/cgroup.procs": "12\n13\n",
            "cgroup.procs": "",
            "cgroup.kill": "",
        },
    )
    group = v2.Cgroup(tmp_path, "/gantry/x")
    assert group.usage() == Usage(
        user=2.0, system=0.5, peak_memory=1000, pids_peak=7, throttled=0.25
    )
    assert group.memory_current() == 900
    assert (group.oom_kills(), group.pids_refused(), group.pids_current()) == (2, 9, 3)
    assert (group.box, group.processes()) == ("/gantry/x/box", [12, 13])
    group.kill()
    assert (tmp_path / "gantry/x/cgroup.kill").read_text() == "1"
    (tmp_path / "gantry/x/box/cpu.stat").unlink()
    assert group.usage().throttled == 0.25, "as last seen: crun removes the box"


def test_v2_tells_the_budgets_refusals_from_those_of_a_neighbours_own_limit(tmp_path: Path) -> None:
    """``pids.events`` counts what was refused below as well (Linux 6.11)."""
    budget = tmp_path / "gantry/p"
    for directory in (tmp_path, tmp_path / "gantry", budget, budget / "x"):
        fill(directory, {"cgroup.subtree_control": "cpu memory pids io\n"})
    fill(budget, {"pids.events": "max 40\n", "pids.events.local": "max 3\n"})
    group = v2.Cgroup(tmp_path, "/gantry/p/x")
    group.create()
    (budget / "pids.events").write_text("max 90\n")
    assert group.pids_refused_above() == 0, "a bomb beside it, at its own limit"
    (budget / "pids.events.local").write_text("max 5\n")
    assert group.pids_refused_above() == 2


def test_v2_without_a_kill_file_is_frozen_while_its_processes_are_killed(tmp_path: Path) -> None:
    child = subprocess.Popen(["sleep", "60"])
    directory = tmp_path / "gantry/x"
    fill(directory, {"cgroup.procs": f"{child.pid}\n", "cgroup.freeze": "0"})
    v2.Cgroup(tmp_path, "/gantry/x").kill()
    assert child.wait(10) == -signal.SIGKILL
    assert (directory / "cgroup.freeze").read_text() == "0", "let go again"


def test_a_program_that_ends_while_it_is_being_killed_is_still_waited_for() -> None:
    """As a watchdog does on a busy machine: the kill comes when it has ended by itself."""
    with pipes() as outlets:
        running = process.start(Command(("/bin/sh", "-c", "exit 3")), outlets)
        os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)
        running.kill()
        assert running.wait_and_count().exit_code == 3
        running.kill()


def test_directories_are_made_while_others_remove_empty_parents(tmp_path: Path) -> None:
    """Tests of one pipeline end while others begin; the last one out takes the parent away."""
    over = threading.Event()

    def take_away() -> None:
        while not over.is_set():
            with suppress(OSError):
                (tmp_path / "p").rmdir()

    remover = threading.Thread(target=take_away)
    remover.start()
    try:
        for number in range(300):
            directories.make(tmp_path / f"p/{number}")
            (tmp_path / f"p/{number}").rmdir()
    finally:
        over.set()
        remover.join()


def test_v1_counters_are_read(tmp_path: Path) -> None:
    fill(
        tmp_path,
        {
            "cpu/gantry/x/cpu.stat": "nr_throttled 3\nthrottled_time 250000000\n",
            "memory/gantry/x/memory.usage_in_bytes": "900\n",
            "cpuacct/gantry/x/cpuacct.usage_user": "2000000000\n",
            "cpuacct/gantry/x/cpuacct.usage_sys": "500000000\n",
            "memory/gantry/x/memory.max_usage_in_bytes": "1000\n",
            "memory/gantry/x/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
            "pids/gantry/x/pids.events": "max 9\n",
            "pids/gantry/x/pids.peak": "7\n",
            "pids/gantry/x/pids.current": "3\n",
            "freezer/gantry/x/cgroup.procs": "12\n13\n",
        },
    )
    group = v1.Cgroup(tmp_path, "/gantry/x")
    assert group.usage() == Usage(
        user=2.0, system=0.5, peak_memory=1000, pids_peak=7, throttled=0.25
    )
    assert group.memory_current() == 900
    assert (group.oom_kills(), group.pids_refused(), group.pids_current()) == (2, 9, 3)
    assert (group.box, group.processes()) == ("/gantry/x", [12, 13])


@pytest.mark.parametrize("version", [v1, v2])
def test_a_cgroup_that_is_gone_counts_nothing(version, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    group = version.Cgroup(tmp_path, "/gantry/x")
    assert group.usage() == Usage()
    assert (group.oom_kills(), group.pids_refused(), group.processes()) == (0, 0, [])
    assert group.remove() is True
    group.kill()


def test_v2_hands_the_controllers_down(tmp_path: Path) -> None:
    for directory in ("", "gantry", "gantry/p"):
        fill(tmp_path / directory, {"cgroup.subtree_control": "memory\n"})
    (tmp_path / "gantry/p/x").mkdir()
    v2.Cgroup(tmp_path, "/gantry/p/x").create()
    for directory in ("", "gantry", "gantry/p", "gantry/p/x"):
        assert (tmp_path / directory / "cgroup.subtree_control").read_text() == "+pids"


def test_the_fake_keeps_the_promises_of_the_real_one(tmp_path: Path) -> None:
    fake = FakeSandboxes(lambda spec: Answer(output=[(Stream.STDOUT, b"hi")], exit_code=4))
    state = StateDirectory(tmp_path / "state")
    spec = SandboxSpec(id="x", rootfs=tmp_path, args=("true",), ids=IdRange(200_000))
    got: list[bytes] = []
    receipt = fake.run(spec, state=state, on_output=lambda stream, data: got.append(data))
    assert (receipt.exit_code, receipt.output_bytes, got, fake.specs) == (4, 2, [b"hi"], [spec])
    cancel = threading.Event()
    cancel.set()
    assert fake.run(spec, state=state, cancel=cancel).outcome is Outcome.CANCELLED
    with pytest.raises(SpecError):
        fake.run(SandboxSpec(id="x", rootfs=tmp_path, args=(), ids=spec.ids), state=state)


def test_v2_limits_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "gantry/p", {"memory.swap.max": "max\n", "cgroup.procs": ""})
    group = v2.Cgroup(tmp_path, "/gantry/p")
    monkeypatch.setattr(v2, "whole_disks", lambda: ["8:0"])
    group.set_limits(Limits(memory=64 * MIB, cpus=0.5, pids=9, io_weight=50, io_write=MIB))
    written = {name: (tmp_path / "gantry/p" / name).read_text() for name in (
        "memory.max", "memory.swap.max", "cpu.max", "pids.max", "io.weight", "io.max",
        "io.bfq.weight",
    )}  # fmt: skip
    assert written == {
        "memory.max": str(64 * MIB),
        "memory.swap.max": "0",
        "cpu.max": "50000 100000",
        "pids.max": "9",
        "io.weight": "default 50",
        "io.bfq.weight": "default 50",
        "io.max": f"8:0 wbps={MIB}",
    }


def test_bandwidth_is_bounded_on_whole_disks_only(tmp_path: Path) -> None:
    for name, number in (("sda", "8:0"), ("nvme0n1", "259:0"), ("loop0", "7:0"), ("zram0", "9:0")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "dev").write_text(f"{number}\n")
    assert disks.whole_disks(tmp_path) == ["259:0", "8:0"]
    assert disks.whole_disks(tmp_path / "nothing") == []


OOM = (
    "6,1,22,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=x,mems_allowed=0,"
    "oom_memcg=/gantry/p,task_memcg=/gantry/p/box-1/box,task={},pid=7,uid=-104\n SUBSYSTEM=x\n"
)


@pytest.mark.parametrize(
    ("name", "cgroup", "found"),
    [
        ("dd", "/gantry/p/box-1", "dd"),
        ("dd", "/gantry/p/box-1/box", "dd"),
        ("dd", "/gantry/p/box", ""),
        ("a,pid=1,uid=0", "/gantry/p/box-1", "a,pid=1,uid=0"),
        ("\x1b[31m", "/gantry/p/box-1", "?[31m"),
    ],
)
def test_the_kernels_log_names_whom_it_killed(name: str, cgroup: str, found: str) -> None:
    victim = oomlog.victim_in(OOM.format(name), cgroup)
    assert victim == (oomlog.Victim(found, 7) if found else None)


def test_a_log_that_cannot_be_read_names_nobody(tmp_path: Path) -> None:
    victims = oomlog.Victims("/gantry/p", list, tmp_path / "none")
    victims.look()
    assert victims.last() == ""


def test_whom_the_kernel_killed_is_named_by_its_pid_inside_if_it_was_seen(tmp_path: Path) -> None:
    log = tmp_path / "kmsg"
    log.write_text(OOM.format("dd").replace("pid=7", f"pid={os.getpid()}"))
    victims = oomlog.Victims("/gantry/p", lambda: [os.getpid()], log)
    victims.look()
    assert victims.last() == "dd"  # of no namespace of its own
