"""Builds as a whole: cache, determinism, stages side by side, limits, secrets, leftovers."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from builders.build import StepInfo, StepResult
from builders.context.git import GitContext, find_commit
from builders.errors import BuildCancelled, BuildError, DockerfileError, StepFailed
from builders.images.store import Image, Store
from builders.memory import KINDS, memory_folder
from builders.steps.caches import Lane
from runtime import kept, owner
from runtime.network import later
from runtime.sandbox import Stream
from runtime.spec import Limits, Network, Outcome
from runtime.state import StateDirectory
from tests.builders.conftest import IDS, PARENT, Builder, Recorder, make_busybox

pytestmark = pytest.mark.root
Project = Callable[[Mapping[str, str]], Path]


def traces(builder: Builder) -> dict[str, object]:
    """What a build must not leave: mounts, cgroups, network namespaces, folders, secrets."""
    later.settle()
    home = builder.store.root.parent
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return {
        "mounts": [line for line in mounts if str(home) in line],
        "cgroups": sorted(
            str(path) for path in Path("/sys/fs/cgroup").glob(f"*/gantry/{PARENT.name}*")
        ),
        "memory": sorted(
            path.name for path in Path("/dev/shm").glob(f"gantry-build-{os.getpid()}.*")
        ),
        "processes": processes_of_builds(),
        **{
            str(folder): names(folder)
            for folder in (
                builder.state.root / "boxes",
                builder.state.root / "networks",
                builder.store.root / "scratch",
                builder.store.root / "mounts",
                builder.store.root / "tmp",
            )
        },
    }


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def processes_of_builds() -> list[str]:
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        uid = int(text.partition("Uid:")[2].split()[0])
        if IDS.base <= uid < IDS.base + IDS.size:
            found.append(text.splitlines()[0])
    return found


@pytest.fixture(autouse=True)
def nothing_is_left(builder: Builder) -> Iterator[None]:
    before = traces(builder)
    yield
    assert traces(builder) == before


def digest(image: Image) -> str:
    return image.manifest().digest


# Cache


def test_a_second_build_runs_nothing_and_gives_the_same_image(
    builder: Builder, project: Project
) -> None:
    root = project({"Dockerfile": f"FROM busybox\nWORKDIR /{os.getpid()}\nCOPY a a\nRUN cat a\n",
                    "a": "1"})  # fmt: skip
    first, _ = builder.all(root)
    second, recorder = builder.all(root)
    assert first[None].id == second[None].id
    assert recorder.cached() == list(recorder.results)[1:]
    assert len(recorder.results) == 4
    assert not any(result.receipt for result in recorder.results.values())


def test_a_changed_file_builds_again_only_what_comes_after_it(
    builder: Builder, project: Project
) -> None:
    root = project({
        "Dockerfile": "FROM busybox\nRUN echo early\nCOPY a /a\nRUN cat /a\nCOPY b /b\n",
        "a": f"one {time.time()}", "b": "1",
    })  # fmt: skip
    builder.all(root)
    (root / "a").write_text(f"two {time.time()}")
    _, recorder = builder.all(root)
    assert "RUN echo early" in recorder.cached()
    assert "COPY a /a" not in recorder.cached()
    assert "RUN cat /a" not in recorder.cached()


def test_a_changed_label_builds_nothing_again(builder: Builder, project: Project) -> None:
    text = "FROM busybox\nLABEL v={}\nRUN echo once > /once\n"
    builder.all(project({"Dockerfile": text.format(1)}))
    _, recorder = builder.all(project({"Dockerfile": text.format(2)}))
    assert "RUN echo once > /once" in recorder.cached()


@pytest.mark.parametrize(
    "line", ["ENV A=2", "ARG A=2", "USER alice", "WORKDIR /tmp", 'SHELL ["/bin/sh", "-xc"]']
)
def test_whatever_shapes_a_step_is_part_of_its_key(
    builder: Builder, project: Project, line: str
) -> None:
    run = f"RUN echo {abs(hash(line))}"
    builder.all(project({"Dockerfile": f"FROM busybox\n{run}\n"}))
    _, recorder = builder.all(project({"Dockerfile": f"FROM busybox\n{line}\n{run}\n"}))
    assert run not in recorder.cached()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("type=secret,id=s,mode=0400", "type=secret,id=s,mode=0444"),
        ("type=secret,id=s,uid=0", "type=secret,id=s,uid=1000"),
        ("type=secret,id=s,gid=0", "type=secret,id=s,gid=50"),
        ("type=cache,target=/c", "type=cache,target=/c,ro"),
        ("type=cache,target=/c", "type=cache,target=/c,mode=0700"),
        ("type=bind,target=/c", "type=bind,target=/c,rw"),
        ("type=cache,target=/c", "type=cache,from=busybox,target=/c"),
        ("type=tmpfs,target=/c", "type=tmpfs,target=/c,size=1m"),
    ],
)
def test_whatever_a_mount_says_is_part_of_the_key(
    builder: Builder, project: Project, one: str, other: str
) -> None:
    def runs(mount: str) -> bool:
        text = f"FROM busybox\nRUN --mount={mount} ls -ln /c /run > /x; echo {one} {other}\n"
        _, recorder = builder.all(project({"Dockerfile": text}), secrets={"s": b"secret"})
        return not any(step.startswith("RUN") for step in recorder.cached())

    assert runs(one) and runs(other)
    assert not runs(one)


def test_a_build_without_network_leaves_nothing_for_one_that_has_it(
    builder: Builder, project: Project
) -> None:
    root = project({"Dockerfile": "FROM busybox\nRUN ip route > /routes\n"})
    builder.all(root)
    _, recorder = builder.all(root, network=Network.EGRESS)
    assert recorder.cached() == []
    same = project({"Dockerfile": "FROM busybox\nRUN --network=none ip route > /routes\n"})
    _, recorder = builder.all(same, network=Network.EGRESS)
    assert len(recorder.cached()) == 1


def test_no_cache_runs_all_and_gives_the_same_image(builder: Builder, project: Project) -> None:
    root = project({"Dockerfile": "FROM busybox\nCOPY a /a\nRUN echo x > /x; mkdir /y\n", "a": "1"})
    first = builder.one(root)
    images, recorder = builder.all(root, no_cache=True)
    assert recorder.cached() == []
    assert digest(images[None]) == digest(first)


def test_a_fork_cannot_change_what_the_trusted_lane_builds(
    builder: Builder, project: Project
) -> None:
    root = project({"Dockerfile": "FROM busybox\nRUN echo lane > /x\n"})
    lanes = {"scope": "p/fork", "also_read": ("p/trusted",)}
    builder.all(root, **lanes)
    _, trusted = builder.all(root, scope="p/trusted")
    assert "RUN echo lane > /x" not in trusted.cached()
    more = project({"Dockerfile": "FROM busybox\nRUN echo lane > /x\nRUN echo more\n"})
    builder.all(more, scope="p/trusted")
    _, fork = builder.all(more, scope="p/other-fork", also_read=("p/trusted",))
    assert "RUN echo more" in fork.cached()


# Determinism


def test_another_store_and_a_filled_cache_give_the_same_digest(
    builder: Builder, project: Project, home: Path
) -> None:
    text = "FROM busybox\nCOPY d /d\nRUN echo built > /f; mkdir -p /g/h; ln -s f /l; ln /f /hard\n"
    root = project({"Dockerfile": text, "d/a": "1", "d/b": "2"})
    image = builder.one(root)
    here = digest(image)
    elsewhere = Builder(Store(home / "store-2"), StateDirectory(home / "sandboxes-2"))
    make_busybox(elsewhere.store, home / "busybox-2")
    earlier = project({"Dockerfile": text, "d/a": "0"})
    elsewhere.all(earlier)
    project({"d/a": "1"})
    time.sleep(1.1)  # files get other times
    other = elsewhere.one(root)
    assert other.config == image.config
    assert digest(other) == here


def test_a_commit_gives_the_same_image_whatever_was_built_before(
    builder: Builder, project: Project, home: Path
) -> None:
    root = project({"Dockerfile": "FROM busybox\nRUN date > /dev/null; echo 1 > /f\nCOPY a /a\n"})
    commits = []
    for number in (1, 2):
        (root / "a").write_text(f"{number}")
        commits.append(commit(root, 1_700_000_000 + number * 1000))
    fresh = Builder(Store(home / "store-3"), StateDirectory(home / "sandboxes-3"))
    make_busybox(fresh.store, home / "busybox-3")
    for sha in commits:
        last = builder.one(root, opened=GitContext(root / ".git", sha))
    alone = fresh.one(root, opened=GitContext(root / ".git", commits[-1]))
    assert digest(last) == digest(alone)


def commit(root: Path, seconds: int) -> str:
    env = {
        **os.environ,
        "GIT_AUTHOR_DATE": f"@{seconds} +0000",
        "GIT_COMMITTER_DATE": f"@{seconds} +0000",
    }
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "x"]):
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(root), *words]
        subprocess.run(command, env=env, check=True)
    return find_commit(root, "HEAD")[1]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of a commit that were read, as they are read."""
    paths: list[str] = []
    read = GitContext.read

    def spying(self: GitContext, entries: Any) -> Any:
        wanted = list(entries)
        paths.extend(entry.path for entry in wanted)
        return read(self, wanted)

    monkeypatch.setattr(GitContext, "read", spying)
    return paths


def test_a_warm_build_of_a_commit_reads_only_the_dockerfile(
    builder: Builder, project: Project, asked: list[str]
) -> None:
    root = project({"Dockerfile": "FROM busybox\nCOPY . /all\n", "big": "x" * 1000, "d/e": "1"})
    sha = commit(root, 1_700_000_000)
    builder.one(root, opened=GitContext(root / ".git", sha))
    asked.clear()
    builder.one(root, opened=GitContext(root / ".git", sha))
    assert asked == ["Dockerfile"]


def test_a_change_reads_only_the_files_of_the_step_that_copies_it(
    builder: Builder, project: Project, asked: list[str]
) -> None:
    text = "FROM busybox\nCOPY one /one\nCOPY two /two\n"
    root = project({"Dockerfile": text, "one/a": "1", "one/b": "2", "two/c": "3", "not": "4"})
    builder.one(root, opened=GitContext(root / ".git", commit(root, 1_700_000_000)))
    (root / "two/c").write_text("changed")
    sha = commit(root, 1_700_000_001)
    asked.clear()
    builder.one(root, opened=GitContext(root / ".git", sha))
    assert asked == ["Dockerfile", "two/c"]


# Stages

MEET = (
    "RUN --mount=type=cache,id=meet-{2},target=/meet{3} touch /meet/{0}{4} && i=0 &&"
    " until test -e /meet/{1}; do sleep 0.05; i=$((i+1)); test $i -lt 600 || exit 1; done"
)


def test_independent_stages_run_side_by_side(builder: Builder, project: Project) -> None:
    """Each goes on only once the other has begun, however busy the machine is."""
    stages = "".join(
        f"FROM busybox AS s{one}\n{MEET.format(one, other, 'stages', '', '')} && echo > /{one}\n"
        for one, other in ((0, 1), (1, 0))
    )
    text = f"{stages}FROM busybox\nCOPY --from=s0 /0 /\nCOPY --from=s1 /1 /\n"
    image = builder.one(project({"Dockerfile": text}), no_cache=True, parallel=2)
    assert [path.name for layer in image.layers[1:] for path in layer.tree.iterdir()] == ["0", "1"]


def test_private_caches_of_two_stages_at_once_are_apart(builder: Builder, project: Project) -> None:
    cache = " --mount=type=cache,id=private,sharing=private,target=/own"
    stages = "".join(
        f"FROM busybox AS s{one}\n"
        + MEET.format(one, other, "private", cache, f" /own/{one}")
        + f" && ls /own > /{one}\n"
        for one, other in ((0, 1), (1, 0))
    )
    text = f"{stages}FROM busybox\nCOPY --from=s0 /0 /\nCOPY --from=s1 /1 /\n"
    image = builder.one(project({"Dockerfile": text}), no_cache=True, parallel=2)
    seen = [
        (layer.tree / name).read_text() for layer, name in zip(image.layers[1:], "01", strict=True)
    ]
    assert seen == ["0\n", "1\n"]


def test_a_locked_cache_is_one_stages_at_a_time(builder: Builder, project: Project) -> None:
    lock = "RUN --mount=type=cache,id=locked,sharing=locked,target=/own"
    alone = "mkdir /own/busy && sleep 0.5 && rmdir /own/busy"
    stages = "".join(
        f"FROM busybox AS s{one}\n"
        + MEET.format(one, other, "locked", "", "")
        + f"\n{lock} {alone} && echo {one} >> /own/all && cat /own/all > /{one}\n"
        for one, other in ((0, 1), (1, 0))
    )
    text = f"{stages}FROM busybox\nCOPY --from=s0 /0 /\nCOPY --from=s1 /1 /\n"
    image = builder.one(project({"Dockerfile": text}), no_cache=True, parallel=2)
    seen = [
        (layer.tree / name).read_text() for layer, name in zip(image.layers[1:], "01", strict=True)
    ]
    assert sorted(map(len, seen)) == [2, 4], "the second one has what the first one left"


def test_parallel_bounds_how_many_sandboxes_run_at_once(builder: Builder, project: Project) -> None:
    stages = "".join(f"FROM busybox AS s{n}\nRUN sleep 0.4; echo {n} > /{n}\n" for n in range(2))
    text = f"{stages}FROM busybox\nCOPY --from=s0 /0 /\nCOPY --from=s1 /1 /\n"
    started = time.monotonic()
    builder.all(project({"Dockerfile": text}), no_cache=True, parallel=1)
    assert time.monotonic() - started > 0.8


def test_several_targets_come_from_one_build(builder: Builder, project: Project) -> None:
    text = (
        "FROM busybox AS app\nRUN echo app > /app\nFROM app AS test\nCMD test\nFROM app\nCMD go\n"
    )
    images, recorder = builder.all(project({"Dockerfile": text}), targets=(None, "test"))
    assert images[None].layers == images["test"].layers
    assert images["test"].config.cmd == ("/bin/sh", "-c", "test")
    assert [step.index for step in sorted(recorder.started, key=lambda s: s.index)] == list(
        range(1, 7)
    )


def test_the_first_failure_stops_the_other_stages(builder: Builder, project: Project) -> None:
    text = (
        "FROM busybox AS slow\nRUN sleep 60\n"
        "FROM busybox AS bad\nRUN sleep 0.3; exit 4\n"
        "FROM busybox\nCOPY --from=slow / /a\nCOPY --from=bad / /b\n"
    )
    started = time.monotonic()
    with pytest.raises(StepFailed, match=r"Dockerfile:4: .* exit code 4"):
        builder.all(project({"Dockerfile": text}), no_cache=True, parallel=2)
    assert time.monotonic() - started < 10


def test_onbuild_of_a_base_image_runs_in_the_stage_made_from_it(
    builder: Builder, project: Project
) -> None:
    from builders.images.reference import Reference

    base = builder.one(project({"Dockerfile": "FROM busybox\nONBUILD COPY a /a\n"}))
    builder.store.tag(base, Reference.parse("trigger:1"))
    image, recorder = builder.all(project({"Dockerfile": "FROM trigger:1\n", "a": "1"}))
    assert "COPY a /a" in recorder.results
    assert image[None].config.on_build == ()


def test_notices_are_part_of_the_output(builder: Builder, project: Project) -> None:
    text = "# syntax=some/front:1\nFROM busybox\n"
    root = project({"Dockerfile": text})
    os.mkfifo(root / "pipe")
    seen = output(builder, root, build_args={"UNUSED": "1"})
    assert "Notice: The build argument UNUSED is not used by any ARG." in seen
    assert "some/front:1" in seen


# Failures


def test_a_failing_step_shows_its_place_last_lines_and_receipt(
    builder: Builder, project: Project
) -> None:
    text = "FROM busybox\nRUN for i in $(seq 50); do echo line $i; done; exit 3\n"
    recorder = Recorder()
    with pytest.raises(StepFailed) as caught:
        builder.all(project({"Dockerfile": text}), listener=recorder)
    error = caught.value
    assert error.place == "Dockerfile:2"
    assert error.tail.splitlines() == [f"line {number}" for number in range(31, 51)]
    assert error.receipt.exit_code == 3
    result = recorder.results[error.message.split("`")[1]]
    assert result.error is error and result.receipt is error.receipt


@pytest.mark.parametrize(
    ("command", "limits", "outcome", "words"),
    [
        ("head -c 300m /dev/zero | tail", {"memory": 64 << 20}, Outcome.OOM, "ran out of memory"),
        (
            "head -c 60m /dev/zero > /x",
            {"disk": 20 << 20},
            Outcome.DISK,
            "wrote too much to the disk",
        ),
        ("sleep 30", {"silence": 0.5}, Outcome.SILENT, "was silent for too long"),
        ("while :; do sleep 60 & done", {"pids": 20}, Outcome.PIDS, "too many processes"),
        ("sleep 60", {"timeout": 1.0}, Outcome.TIMEOUT, "took too long"),
        ("yes", {"output": 1 << 20}, Outcome.OUTPUT, "too much output"),
    ],
)
def test_a_step_over_its_limit_is_ended_and_the_limit_named(
    builder: Builder,
    project: Project,
    command: str,
    limits: dict[str, Any],
    outcome: Outcome,
    words: str,
) -> None:
    root = project({"Dockerfile": f"FROM busybox\nRUN {command}\n"})
    asked = Limits(**{"memory": 128 << 20, "pids": 64, "timeout": 20, **limits})
    with pytest.raises(StepFailed, match=words) as caught:
        builder.all(root, limits=asked)
    assert caught.value.receipt.outcome is outcome
    assert caught.value.place == "Dockerfile:2"


def test_a_failed_step_is_not_cached(builder: Builder, project: Project) -> None:
    root = project({"Dockerfile": "FROM busybox\nRUN echo kept > /f; exit 1\n"})
    for _ in range(2):
        with pytest.raises(StepFailed):
            builder.all(root)


@pytest.mark.parametrize(
    ("command", "delay"), [("echo go; sleep 60", 0), ("truncate -s 30G /much; echo go", 0.3)]
)
def test_a_cancelled_build_ends_within_seconds(
    builder: Builder, project: Project, command: str, delay: float
) -> None:
    """While a command runs, and while what it left becomes a layer."""
    cancel = threading.Event()

    class Canceller(Recorder):
        def step_output(self, step: StepInfo, stream: Stream, data: bytes) -> None:
            threading.Timer(delay, cancel.set).start()

    started = time.monotonic()
    with pytest.raises(BuildCancelled):
        builder.all(
            project({"Dockerfile": f"FROM busybox\nRUN {command}\n"}),
            listener=Canceller(),
            cancel=cancel,
        )
    assert time.monotonic() - started < 5


def test_who_waits_for_a_locked_cache_says_so_and_can_be_cancelled(
    builder: Builder, project: Project
) -> None:
    cancel = threading.Event()

    class Canceller(Recorder):
        def step_output(self, step: StepInfo, stream: Stream, data: bytes) -> None:
            super().step_output(step, stream, data)
            cancel.set()

    mine = Lane(builder.store, "default", IDS.base, 1 << 30)
    text = "FROM busybox\nRUN --mount=type=cache,id=mine,sharing=locked,target=/c true\n"
    listener = Canceller()
    with ExitStack() as stack:
        mine.open(
            stack, "mine", sharing="locked", owner=(0, 0), mode=0o755,
            say=lambda _: None, check=lambda: None,
        )  # fmt: skip
        with pytest.raises(BuildCancelled):
            builder.all(project({"Dockerfile": text}), listener=listener, cancel=cancel)
    assert b"another step has the cache mount mine to itself; this one waits" in listener.output


def test_a_listener_that_raises_leaves_nothing_behind(builder: Builder, project: Project) -> None:
    class Broken(Recorder):
        def step_output(self, step: StepInfo, stream: Stream, data: bytes) -> None:
            raise RuntimeError("no disk")

    with pytest.raises(RuntimeError, match="no disk"):
        builder.all(
            project({"Dockerfile": "FROM busybox\nRUN echo go; sleep 60\n"}), listener=Broken()
        )


# What a step sees


def output(builder: Builder, root: Path, **asked: Any) -> str:
    _, recorder = builder.all(root, no_cache=True, **asked)
    return recorder.output.decode()


def test_a_step_is_root_in_a_user_namespace_and_nobody_on_the_host(
    builder: Builder, project: Project
) -> None:
    seen = output(
        builder, project({"Dockerfile": "FROM busybox\nRUN id -u; cat /proc/self/uid_map\n"})
    )
    assert seen.split() == ["0", "0", str(IDS.base), str(IDS.size)]


def test_a_step_has_only_its_three_descriptors(builder: Builder, project: Project) -> None:
    text = "FROM busybox\nRUN for f in /proc/self/fd/*; do echo ${f##*/}; done\n"
    seen = output(builder, project({"Dockerfile": text}))
    assert set(seen.split()) <= {"0", "1", "2", "3"}  # 3 is the shell's own, on the folder


def test_certificates_of_the_machine_are_shown_and_not_kept(
    builder: Builder, project: Project, home: Path
) -> None:
    bundle = home / "ca.pem"
    bundle.write_text("CERTIFICATE-OF-THE-MACHINE\n")
    bundle.chmod(0o644)
    text = "FROM busybox\nRUN cat $SSL_CERT_FILE && echo x > /x && ls -d /run; env\n"
    root = project({"Dockerfile": text})
    images, recorder = builder.all(root, extra_ca=bundle, no_cache=True)
    assert b"CERTIFICATE-OF-THE-MACHINE" in recorder.output
    for name in (b"PIP_CERT=", b"NODE_EXTRA_CA_CERTS=", b"GIT_SSL_CAINFO="):
        assert name in recorder.output
    assert_nowhere(images[None], b"CERTIFICATE-OF-THE-MACHINE")
    assert b"PIP_CERT" not in images[None].config.to_json()
    assert names(images[None].layers[-1].tree) == ["x"]
    again, recorder = builder.all(root)
    assert again[None].id == images[None].id


def test_a_secret_is_seen_by_its_step_and_nowhere_else(builder: Builder, project: Project) -> None:
    secret = b"s3cret-%d" % os.getpid()
    text = (
        "FROM busybox\n"
        "RUN --mount=type=secret,id=t test $(wc -c < /run/secrets/t) -gt 5 && echo ok > /ok\n"
        "RUN --mount=type=secret,id=t,env=T test ${#T} -gt 5\n"
        "RUN ls -A /run/secrets /run 2>/dev/null; echo done\n"
    )
    recorder = Recorder()
    images, _ = builder.all(
        project({"Dockerfile": text}), secrets={"t": secret}, listener=recorder, no_cache=True
    )
    assert recorder.output.strip() == b"done"
    assert_nowhere(images[None], secret)
    for path in (builder.store.root / "steps").rglob("*"):
        assert path.is_dir() or secret not in path.read_bytes()


def test_secrets_of_a_killed_build_are_removed_by_the_next(
    builder: Builder, project: Project
) -> None:
    _, started, boot = owner.token().split(".")
    # The second has this process's number: it was given out again.
    numbers = [f"{2**22 + 1}.{started}.{boot}", f"{os.getpid()}.{int(started) - 1}.{boot}"]
    left = [Path(f"/dev/shm/gantry-{kind}-{n}-x") for kind in KINDS for n in numbers]
    for folder in left:
        folder.mkdir(mode=0o700)
        (folder / "file").write_text("secret")
    text = "FROM busybox\nRUN --mount=type=secret,id=t true\n"
    with memory_folder("secrets") as used:
        builder.all(project({"Dockerfile": text}), secrets={"t": b"x"}, no_cache=True)
        assert used.exists()
    assert not any(folder.exists() for folder in [*left, used])


def assert_nowhere(image: Image, secret: bytes) -> None:
    assert secret not in image.config.to_json()
    for layer in image.layers[1:]:
        for path in layer.tree.rglob("*"):
            assert not path.is_file() or path.is_symlink() or secret not in path.read_bytes()


def test_a_cache_mount_keeps_its_files_between_builds_and_lanes_apart(
    builder: Builder, project: Project
) -> None:
    name = f"c{os.getpid()}"
    text = f"FROM busybox\nRUN --mount=type=cache,target=/c,id={name} cat /c/n; echo x >> /c/n\n"
    root = project({"Dockerfile": text})
    output(builder, root, scope="one")
    assert output(builder, root, scope="one").strip() == "x"
    assert "No such file" in output(builder, root, scope="two")


def test_steps_of_a_build_share_one_network_and_reach_no_host(
    builder: Builder, project: Project
) -> None:
    text = (
        "FROM busybox\nRUN readlink /proc/self/ns/net; nc -w 1 127.0.0.1 22 || echo refused\n"
        "RUN readlink /proc/self/ns/net\n"
    )
    seen = output(builder, project({"Dockerfile": text}), network=Network.EGRESS).splitlines()
    spaces = [line for line in seen if line.startswith("net:")]
    assert len(spaces) == 2 and len(set(spaces)) == 1
    assert spaces[0] != str(Path("/proc/self/ns/net").readlink())
    assert any("refused" in line for line in seen)


# Hostile Dockerfiles


@pytest.mark.parametrize("number", [0, 7, 13, 64])
def test_a_working_directory_behind_a_descriptor_is_refused(
    builder: Builder, project: Project, number: int
) -> None:
    for text in (
        f"FROM busybox\nWORKDIR /proc/self/fd/{number}\nRUN pwd\n",
        f"FROM busybox\nRUN ln -s /proc/self/fd/{number} /w\nWORKDIR /w/..\nWORKDIR /w\n",
        f"FROM busybox\nRUN ln -s proc /p\nWORKDIR /p/self/fd/{number}/x\n",
    ):
        with pytest.raises(DockerfileError, match="belongs to the kernel"):
            builder.all(project({"Dockerfile": text}))


@pytest.mark.parametrize(
    "line",
    [
        "COPY --from=evil /out /x",
        "COPY --from=evil /out/passwd /x",
        "COPY --from=evil /abs/../../../../etc/shadow /x",
        "RUN --mount=type=bind,from=evil,source=/out,target=/m cat /m/shadow",
        "RUN --mount=type=bind,from=evil,source=/up/up,target=/m cat /m/shadow",
    ],
)
def test_a_link_in_another_stage_never_leads_out_of_it(
    builder: Builder, project: Project, line: str
) -> None:
    text = (
        "FROM busybox AS evil\nRUN ln -s /../../../../../../etc /out; ln -s / /abs; "
        f"ln -s ../../.. /up\nFROM busybox\n{line}\n"
    )
    try:
        image = builder.one(project({"Dockerfile": text}))
    except BuildError:
        return
    host = Path("/etc/hostname").read_bytes().strip()
    made = {path.name for layer in image.layers[1:] for path in layer.tree.rglob("*")}
    assert "shadow" not in made
    assert_nowhere(image, host)


def test_a_destination_behind_a_link_stays_in_the_image(
    builder: Builder, project: Project, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    text = (
        f"FROM busybox\nRUN ln -s {outside} /l; ln -s ../../../../../..{outside} /m\n"
        "COPY a /l/a\nCOPY a /m/b\nWORKDIR /l/w\n"
    )
    builder.all(project({"Dockerfile": text, "a": "1"}))
    assert names(outside) == []


def test_an_ignored_dockerfile_still_builds(builder: Builder, project: Project) -> None:
    root = project({"Dockerfile": "FROM busybox\nCOPY . /n\n", ".dockerignore": "Dockerfile\n.d*"})
    _, recorder = builder.all(root)
    assert isinstance(recorder.results["COPY . /n"], StepResult)


def test_a_continued_line_is_told_without_the_blanks_of_its_continuation(
    builder: Builder, project: Project
) -> None:
    root = project({"Dockerfile": "FROM busybox\nRUN true && \\\n      true\n"})
    _, heard = builder.all(root)
    assert "RUN true && true" in heard.results


def test_a_dockerfile_may_be_a_symbolic_link_inside_the_context(
    builder: Builder, project: Project
) -> None:
    root = project({"docker/real": "FROM busybox\nRUN echo linked > /linked\n"})
    (root / "Dockerfile").symlink_to("docker/real")
    assert builder.one(root).layers[-1].files == 1


def test_su_and_setuid_programs_work_in_a_step(builder: Builder, project: Project) -> None:
    """Down from root by ``su``, and up from another user by a program with the setuid bit."""
    text = (
        "FROM busybox\nRUN su alice -c 'id -u' > /down\n"
        "RUN cp /bin/busybox /busybox-up && chmod 4755 /busybox-up\n"
        "RUN sed -i s/^root:x:/root::/ /etc/passwd && mkdir -m 777 /open\nUSER alice\n"
        "RUN [ $(id -u) = 1000 ] && /busybox-up su -c 'id -u > /open/up'\n"
    )
    layers = builder.one(project({"Dockerfile": text})).layers
    downs = [layer.tree / "down" for layer in layers]
    assert [down.read_text() for down in downs if down.exists()] == ["1000\n"]
    assert (layers[-1].tree / "open/up").read_text() == "0\n"


def test_what_a_failed_step_left_can_be_looked_at(builder: Builder, project: Project) -> None:
    folder = project({"Dockerfile": "FROM busybox\nRUN echo x > /before\nRUN echo y > /now; false"})
    with pytest.raises(StepFailed) as failed:
        builder.one(folder, keep_failed=60)
    id = failed.value.receipt.kept
    got: list[bytes] = []
    kept.execute(
        builder.state, id, ["cat", "/before", "/now"],
        on_output=lambda stream, data: got.append(data),
    )  # fmt: skip
    kept.drop(builder.state, id)
    assert b"".join(got) == b"x\ny\n"
