"""Failed sandboxes that are kept: what one can look at, and what is withheld."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from runtime import kept
from runtime.errors import SpecError
from runtime.output import Stream
from runtime.reap import reap
from runtime.snapshots import LowerDir, RootFs, mount_rootfs
from runtime.spec import MIB, BindMount, Limits, Network, Outcome, Receipt, SandboxSpec, TmpfsMount
from runtime.state import StateDirectory
from tests.runtime.conftest import IDS, PREFIX, Sandboxes, mounts, processes_of
from tests.runtime.test_command_line import ROOT

pytestmark = pytest.mark.root
SAME = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")


def fail(sandboxes: Sandboxes, script: str, seconds: float = 60, **fields: object) -> Receipt:
    spec = sandboxes.spec("/bin/sh", "-c", script, **fields)
    return kept.run_and_keep(spec, sandboxes.rootfs, seconds, state=sandboxes.state)


def look(state: StateDirectory, id: str, script: str, **how: object) -> tuple[Receipt, str]:
    got: list[bytes] = []
    receipt = kept.execute(
        state, id, ["/bin/sh", "-c", script],
        on_output=lambda stream, data: got.append(data), **how,  # type: ignore[arg-type] # any
    )  # fmt: skip
    return receipt, b"".join(got).decode()


def test_what_a_failed_one_left_is_seen_with_its_limits_mounts_and_user(
    sandboxes: Sandboxes, area: Path
) -> None:
    source = area / "given"
    source.mkdir()
    (source / "file").write_text("mounted")
    receipt = fail(
        sandboxes,
        "echo broken > /tmp/trace; exit 3",
        env={"COLOUR": "blue"},
        cwd="/tmp",
        mounts=(
            BindMount(source=source, target="/given"),
            TmpfsMount(target="/quick", size=MIB),
        ),
        limits=Limits(memory=48 * MIB, pids=17, timeout=20),
    )
    assert receipt.exit_code == 3 and receipt.kept
    limits = (
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null;"
        "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null"
    )
    for _ in range(2):
        seen, text = look(
            sandboxes.state, receipt.kept,
            f"cat trace /given/file; echo; pwd; echo $COLOUR; df /quick | grep -c quick; {limits};"
            f"cat /proc/self/uid_map; for n in {' '.join(SAME)}; do readlink /proc/self/ns/$n; done"
            " 2>/dev/null",
        )  # fmt: skip
        assert seen.ok
        words = text.split()
        assert words[:5] == ["broken", "mounted", "/tmp", "blue", "1"]
        assert str(48 * MIB) in words and "17" in words and str(IDS.base) in words
        own = {str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in SAME}
        assert len([word for word in words if ":[" in word]) == len(SAME)
        assert not own & set(words)
    look(sandboxes.state, receipt.kept, "echo more >> trace")
    assert look(sandboxes.state, receipt.kept, "cat trace")[1] == "broken\nmore\n"
    kept.drop(sandboxes.state, receipt.kept)
    assert kept.listed(sandboxes.state) == []


def test_secrets_are_withheld(sandboxes: Sandboxes, area: Path) -> None:
    secret = area / "secret"
    secret.write_text("hunter2")
    secret.chmod(0o644)
    receipt = fail(
        sandboxes,
        "cat /run/secret; exit 1",
        env={"TOKEN": "hunter2", "PLAIN": "x"},
        mounts=(BindMount(source=secret, target="/run/secret"),),
        secrets=("TOKEN", "/run/secret"),
    )
    box = sandboxes.state.kept_dir / receipt.kept
    assert "hunter2" not in (box / "record.json").read_text()
    assert (box / "record.json").stat().st_mode & 0o77 == 0
    _, text = look(sandboxes.state, receipt.kept, "echo $PLAIN$TOKEN; cat /run/secret")
    assert "x" in text.splitlines() and "hunter2" not in text


@pytest.mark.parametrize(
    ("script", "limits", "outcome"),
    [
        ("exit 0", Limits(memory=64 * MIB), None),
        ("exit 9", Limits(memory=64 * MIB), Outcome.EXITED),
        ("sleep 9", Limits(timeout=0.3), Outcome.TIMEOUT),
    ],
)
def test_only_what_failed_is_kept(
    script: str, limits: Limits, outcome: Outcome | None, sandboxes: Sandboxes
) -> None:
    receipt = fail(sandboxes, script, limits=limits)
    found = kept.listed(sandboxes.state)
    assert [each.outcome for each in found] == ([outcome] if outcome else [])
    assert bool(receipt.kept) is bool(outcome)
    assert processes_of(IDS) == []


def test_a_failure_to_keep_does_not_hide_how_it_ended(
    sandboxes: Sandboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(upper: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept, "_move", full)
    receipt = fail(sandboxes, "exit 9")
    assert (receipt.exit_code, receipt.kept) == (9, "")
    assert list(sandboxes.state.kept_dir.iterdir()) == []


@pytest.fixture
def another_disk(sandboxes: Sandboxes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The upper directory cannot be moved to the kept ones."""
    plain = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self == sandboxes.rootfs.upper:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return plain(self, target)

    monkeypatch.setattr(Path, "rename", rename)


@pytest.mark.usefixtures("another_disk")
def test_a_layer_on_another_disk_is_copied(sandboxes: Sandboxes) -> None:
    receipt = fail(sandboxes, "echo x > /tmp/trace; rm /bin/ls; exit 1")
    seen, text = look(sandboxes.state, receipt.kept, "cat /tmp/trace; [ -e /bin/ls ] || echo gone")
    assert (seen.ok, text) == (True, "x\ngone\n")


@pytest.mark.usefixtures("another_disk")
def test_a_layer_too_deep_to_be_copied_is_not_kept(sandboxes: Sandboxes) -> None:
    deep = "cd /tmp; i=0; while [ $i -lt 1200 ]; do mkdir d && cd d; i=$((i + 1)); done; exit 9"
    receipt = fail(sandboxes, deep)
    assert (receipt.exit_code, receipt.kept) == (9, "")
    assert list(sandboxes.state.kept_dir.iterdir()) == []


def test_without_a_wish_nothing_is_kept(sandboxes: Sandboxes) -> None:
    assert fail(sandboxes, "exit 1", seconds=0).kept == ""
    assert kept.listed(sandboxes.state) == []


def test_time_and_number_are_bounded(
    sandboxes: Sandboxes, busybox: LowerDir, area: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "MAXIMUM", 2)
    ids = []
    for number in range(3):
        scratch = area / f"scratch{number}"
        scratch.mkdir()
        with mount_rootfs([busybox], ids=IDS, scratch=scratch, target=area / f"r{number}") as root:
            one = Sandboxes(sandboxes.state, root)
            ids.append(fail(one, "exit 1", seconds=0.5 if number == 1 else 1e9).kept)
    assert {each.id for each in kept.listed(sandboxes.state)} == set(ids[1:])
    [longest] = [each for each in kept.listed(sandboxes.state) if each.id == ids[2]]
    assert longest.until - time.time() <= 24 * 3600
    time.sleep(0.6)
    assert f"removed the kept sandbox {ids[1]}" in reap(sandboxes.state)
    assert [each.id for each in kept.listed(sandboxes.state)] == [ids[2]]


def test_one_looks_at_a_time_and_a_reaper_waits(sandboxes: Sandboxes) -> None:
    receipt = fail(sandboxes, "exit 1")
    refused: list[str] = []

    def meanwhile(stream: Stream, data: bytes) -> None:
        for verb in (
            lambda: look(sandboxes.state, receipt.kept, "true"),
            lambda: kept.drop(sandboxes.state, receipt.kept),
        ):
            with pytest.raises(SpecError) as error:
                verb()
            refused.append(str(error.value))

    kept.execute(sandboxes.state, receipt.kept, ["/bin/echo"], on_output=meanwhile)
    assert len(refused) == 2 and all("running a program" in words for words in refused)


@pytest.mark.parametrize("when", ["before it is opened", "before it is locked"])
def test_one_that_goes_while_somebody_comes_is_no_longer_kept(
    when: str, sandboxes: Sandboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    receipt = fail(sandboxes, "exit 1")
    place = (kept, "is_kept") if when == "before it is opened" else (kept.fcntl, "flock")
    real = getattr(*place)

    def late(*args: object) -> object:
        monkeypatch.undo()
        if place[0] is kept:
            found = real(*args)
            kept.drop(sandboxes.state, receipt.kept)
            return found
        kept.drop(sandboxes.state, receipt.kept)
        return real(*args)

    monkeypatch.setattr(*place, late)
    with pytest.raises(SpecError, match=r"No failed sandbox called .* is kept"):
        look(sandboxes.state, receipt.kept, "true")
    assert list(sandboxes.state.kept_dir.iterdir()) == []


def test_it_is_reached_over_the_same_kind_of_network(sandboxes: Sandboxes) -> None:
    receipt = fail(sandboxes, "exit 1", network=Network.EGRESS)
    assert "eth0" in look(sandboxes.state, receipt.kept, "ip addr")[1]


def test_layers_that_are_gone_are_one_sentence(
    sandboxes: Sandboxes, area: Path, busybox: LowerDir
) -> None:
    spec = sandboxes.spec("/bin/false")
    gone = RootFs(
        sandboxes.rootfs.path, sandboxes.rootfs.upper, IDS, (busybox, LowerDir(area / "gone"))
    )
    receipt = kept.run_and_keep(spec, gone, 60, state=sandboxes.state)
    with pytest.raises(SpecError, match="have been pruned"):
        look(sandboxes.state, receipt.kept, "true")
    with pytest.raises(SpecError, match="No failed sandbox called nobody is kept"):
        look(sandboxes.state, "nobody", "true")
    with pytest.raises(SpecError, match="No failed sandbox called"):
        kept.drop(sandboxes.state, "../boxes")


def test_a_limit_of_the_disk_holds_for_all_that_is_written(sandboxes: Sandboxes) -> None:
    receipt = fail(
        sandboxes,
        "dd if=/dev/zero of=/tmp/a bs=1k count=700 2>/dev/null; exit 1",
        limits=Limits(disk=MIB, timeout=20),
    )
    seen, _ = look(sandboxes.state, receipt.kept, "dd if=/dev/zero of=/tmp/b bs=1k count=700")
    assert seen.outcome is Outcome.DISK
    seen, _ = look(sandboxes.state, receipt.kept, "sleep 9", timeout=0.3)
    assert seen.outcome in (Outcome.TIMEOUT, Outcome.DISK)


def test_a_killed_looker_leaves_it_usable(sandboxes: Sandboxes) -> None:
    receipt = fail(sandboxes, "echo x > /tmp/trace; exit 1")
    child = os.fork()
    if child == 0:
        try:
            look(sandboxes.state, receipt.kept, "sleep 60")
        finally:
            os._exit(1)
    time.sleep(0.5)
    os.kill(child, 9)
    os.waitpid(child, 0)
    reap(sandboxes.state)
    assert processes_of(IDS) == []
    assert look(sandboxes.state, receipt.kept, "cat /tmp/trace")[1] == "x\n"
    assert not [line for line in mounts() if "/scratch/" in line and str(sandboxes.state) in line]


def test_the_command_line_keeps_lists_looks_and_drops(
    area: Path, busybox: LowerDir, nothing_left: None
) -> None:
    def runtime(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "runtime", words[0], "--state", str(area / "state"), *words[1:]],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    name = f"{PREFIX}kept"
    ran = runtime(
        *("run", "--rootfs", str(busybox.path), "--name", name, "--keep", "60", "--"),
        *("/bin/sh", "-c", "echo x > /tmp/trace; exit 7"),
    )
    assert ran.returncode == 7
    assert f"exec {name}" in ran.stderr
    [row] = json.loads(runtime("list", "--json").stdout)
    assert (row["id"], row["state"], row["exit_code"]) == (name, "kept", 7)
    assert f"{name}\tkept for " in runtime("list").stdout
    assert runtime("exec", name, "--", "/bin/cat", "/tmp/trace").stdout == "x\n"
    assert runtime("drop", name).returncode == 0
    assert runtime("drop", name).returncode == 125
    assert runtime("list", "--json").stdout == "[]\n"
    refused = runtime("run", "--keep", "60", "--", "true")
    assert (refused.returncode, "Give --rootfs" in refused.stderr) == (125, True)


def test_a_spec_survives_being_written_down(area: Path, busybox: LowerDir) -> None:
    spec = SandboxSpec(id="x", rootfs=area, args=("a",), ids=IDS, upper=area)
    words = json.loads(json.dumps(kept._as_json(spec)))
    again = kept._spec("x", words, spec.args, area)
    assert replace(again, id="x", limits=spec.limits) == replace(spec, env=again.env)
