"""COPY --link and ADD --link while the steps before them still run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from builders.ahead import Ahead
from builders.build import StepInfo, StepResult
from builders.context import Entry
from builders.context.folder import FolderContext
from builders.context.git import GitContext
from builders.dockerfile.instructions import Copy
from builders.errors import BuildCancelled, ContextError, DockerfileError, StepFailed
from builders.images.config import ImageConfig
from builders.images.reference import Reference
from builders.images.store import Image
from builders.plan import host_platform
from builders.steps import act
from builders.steps.add import is_elsewhere
from builders.steps.bench import Bench, Done
from builders.steps.state import StageState
from runtime.sandbox import Stream
from tests.builders.conftest import Builder, Recorder
from tests.builders.test_build import commit

pytestmark = pytest.mark.root
Project = Callable[[Mapping[str, str]], Path]
Read = Iterator[tuple[Entry, Iterator[bytes]]]
FILES = {"d/one": "1", "d/two": "2", "e": "3"}
MANY = {f"many/{number}": str(number) for number in range(400)}


class Watched(FolderContext):
    """Remembers which files are read by what thread and when; each takes ``seconds``.

    ``fifth`` is called once five were read.
    """

    def __init__(
        self, path: Path, seconds: float = 0, fifth: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(path)
        self._seconds = seconds
        self._fifth = fifth
        self.seen: list[tuple[str, str, float]] = []

    def read(self, entries: Iterable[Entry]) -> Read:
        for entry, chunks in super().read(entries):
            self.seen.append((entry.path, threading.current_thread().name, time.monotonic()))
            time.sleep(self._seconds)
            if len(self.seen) == 5:
                self._fifth()
            yield entry, chunks

    def ahead(self) -> list[str]:
        """What was read before its turn."""
        return [path for path, thread, _ in self.seen if thread.startswith("ahead")]


class SlowGit(GitContext):
    """A commit of which each file takes a twentieth of a second."""

    def read(self, entries: Iterable[Entry]) -> Read:
        for item in super().read(entries):
            time.sleep(0.05)
            yield item


class Events(Recorder):
    """Remembers what is told in its order, and when."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, str]] = []
        self.when: dict[tuple[str, str], float] = {}

    def _tell(self, what: str, step: StepInfo) -> None:
        with self.lock:
            self.told.append((what, step.text.split()[0]))
            self.when[self.told[-1]] = time.monotonic()

    def step_started(self, step: StepInfo) -> None:
        super().step_started(step)
        self._tell("started", step)

    def step_output(self, step: StepInfo, stream: Stream, data: bytes) -> None:
        super().step_output(step, stream, data)
        if data:
            self._tell("output", step)

    def step_finished(self, step: StepInfo, result: StepResult) -> None:
        super().step_finished(step, result)
        self._tell("finished", step)


def test_a_copy_is_made_while_the_command_before_it_runs(
    builder: Builder, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else changes: place in the image, digest, order of what is told."""
    text = (
        "FROM busybox\nWORKDIR /w\nRUN sleep 2; echo > /ran\nENV D=deep\n"
        "COPY --link d missing* $D/\nRUN cat deep/one\n"
    )
    root = project({**FILES, "Dockerfile": text})
    events, context = Events(), Watched(root, 0.2)
    image = builder.one(root, opened=context, listener=events, no_cache=True)
    assert context.ahead() == ["d/one", "d/two"]
    ended = events.told.index(("finished", "RUN"))
    assert context.seen[-2][2] < events.when[("started", "ENV")]
    assert events.told[ended + 3 : ended + 6] == [
        ("started", "COPY"), ("output", "COPY"), ("finished", "COPY")
    ]  # fmt: skip
    assert b"matches missing*" in events.output
    result = events.results["COPY --link d missing* $D/"]
    assert not result.cached
    assert result.seconds >= 0.4, "what it took, whenever that was"
    assert result.layer == image.layers[-1]
    monkeypatch.setattr(Ahead, "begin", lambda *_: None)
    after = Watched(root)
    assert builder.one(root, opened=after, no_cache=True).id == image.id
    assert after.ahead() == []


@pytest.mark.parametrize(
    ("lines", "read"),
    [
        ("COPY --link d /x", ["d/one", "d/two"]),
        ("COPY --link --chown=5:6 e /x", ["e"]),
        ("ADD --link e /x", ["e", "e"]),  # once to see whether it is an archive
        ("ARG F=e\nWORKDIR /w\nUSER 5\nCOPY e /y\nCOPY --link $F x", ["e"]),
        ("COPY e /x", []),
        ("COPY --link --chown=alice e /x", []),
    ],
)
def test_only_what_depends_on_no_file_of_the_stage_comes_before_its_turn(
    builder: Builder, project: Project, lines: str, read: list[str]
) -> None:
    root = project({**FILES, "Dockerfile": f"FROM busybox\nRUN sleep 0.3\n{lines}\n"})
    context = Watched(root)
    builder.one(root, opened=context, no_cache=True)
    assert context.ahead() == read


@pytest.mark.parametrize(
    ("source", "elsewhere"),
    [
        ("d/app.tar.gz", False),
        ("https://example.com/app.tar.gz", True),
        ("HTTP://example.com/f", True),
        ("https://example.com/team/app.git#v1", True),
        ("git@example.com:team/app.git", True),
        ("git://example.com/app.git", True),
    ],
)
def test_what_must_be_fetched_waits_for_its_turn(source: str, elsewhere: bool) -> None:
    assert is_elsewhere(source) is elsewhere


@pytest.mark.parametrize(("base", "ahead"), [("scratch AS first", False), ("other:1", True)])
def test_an_image_is_not_pulled_before_its_turn(
    builder: Builder, project: Project, monkeypatch: pytest.MonkeyPatch, base: str, ahead: bool
) -> None:
    """One that the build has used already is read."""
    layers = builder.resolve(Reference.parse("busybox")).layers
    config = ImageConfig(architecture=host_platform().partition("/")[2])
    builder.store.save_image(config, layers, names=[Reference.parse("other:1")])
    asked: dict[str, str] = {}
    begun: list[str | None] = []

    def noting(step: Copy, state: StageState, bench: Bench) -> Done:
        begun.append(step.source)
        return act(step, state, bench)

    class Asked(Builder):
        def resolve(self, ref: Reference) -> Image:
            asked[ref.familiar] = threading.current_thread().name
            return super().resolve(ref)

    text = (
        f"FROM {base}\nCOPY e /e\nFROM busybox\nRUN sleep 0.3\n"
        "COPY --link --from=other:1 /etc/passwd /x\nCOPY --from=0 /e /e\n"
    )
    monkeypatch.setattr("builders.ahead.act", noting)
    root = project({**FILES, "Dockerfile": text})
    Asked(builder.store, builder.state).one(root, no_cache=True)
    assert not asked["other:1"].startswith("ahead")
    assert begun == (["other:1"] if ahead else [])


def test_what_is_cached_is_not_made_again_before_its_turn(
    builder: Builder, project: Project
) -> None:
    line = "COPY --link d /cached-ahead\n"
    builder.one(project({**FILES, "Dockerfile": f"FROM scratch\n{line}"}))
    root = project({"Dockerfile": f"FROM busybox\nRUN echo cached-ahead > /f\n{line}"})
    context = Watched(root)
    _, seen = builder.all(root, opened=context)
    assert [path for path, _, _ in context.seen if path != "Dockerfile"] == []
    assert seen.cached() == [line.strip()]


def test_nothing_is_begun_while_nothing_runs(builder: Builder, project: Project) -> None:
    first = "FROM busybox\nRUN echo not-begun > /f\n"
    builder.one(project({**FILES, "Dockerfile": first}))
    root = project({"Dockerfile": f"{first}COPY --link d /not-begun\n"})
    context = Watched(root)
    builder.one(root, opened=context)
    assert context.ahead() == []
    assert context.seen[-1][0] == "d/two"


def test_a_step_that_waits_for_another_stage_lets_the_next_ones_begin(
    builder: Builder, project: Project
) -> None:
    """And what comes from a stage is made as soon as that is there."""
    text = (
        "FROM busybox AS slow\nRUN sleep 1; echo 1 > /made\n"
        "FROM busybox\nCOPY --from=slow /made /x\n"
        "COPY --link --from=slow /made /y\nCOPY --link d /d\n"
    )
    root = project({**FILES, "Dockerfile": text})
    context = Watched(root)
    image = builder.one(root, opened=context, no_cache=True)
    assert context.ahead() == ["d/one", "d/two"]
    assert [path.name for layer in image.layers[1:] for path in layer.tree.iterdir()] == [*"xyd"]


def test_a_mistake_found_early_is_told_when_its_turn_comes(
    builder: Builder, project: Project
) -> None:
    lines = "COPY --link gone /x\nCOPY --link d /d\n"
    events = Events()
    with pytest.raises(ContextError, match=r"^Dockerfile:3: COPY finds no gone"):
        builder.all(
            project({**FILES, "Dockerfile": f"FROM busybox\nRUN sleep 0.5\n{lines}"}),
            listener=events,
            no_cache=True,
        )
    assert events.told[-2:] == [("started", "COPY"), ("finished", "COPY")]
    assert events.results["RUN sleep 0.5"].error is None
    with pytest.raises(StepFailed, match=r"^Dockerfile:2: .* exit code 3"):
        builder.all(
            project({"Dockerfile": f"FROM busybox\nRUN sleep 0.5; exit 3\n{lines}"}),
            no_cache=True,
        )
    events = Events()
    with pytest.raises(DockerfileError, match=r"^Dockerfile:3: 'x' is no port"):
        builder.all(
            project({"Dockerfile": f"FROM busybox\nRUN sleep 0.1\nEXPOSE x\n{lines}"}),
            listener=events,
            no_cache=True,
        )
    assert events.told[-3:] == [("finished", "RUN"), ("started", "EXPOSE"), ("finished", "EXPOSE")]
    assert events.results["RUN sleep 0.1"].error is None


@pytest.mark.parametrize("command", ["sleep 1; exit 3", "sleep 60"])
@pytest.mark.parametrize("lines", ["COPY --link many /m", "COPY --link many/[1-9]* /m/"])
def test_nothing_is_left_when_the_command_before_it_fails_or_is_cancelled(
    builder: Builder, project: Project, command: str, lines: str
) -> None:
    cancel, events = threading.Event(), Recorder()
    text = f"FROM busybox\nRUN {command}\n{lines}\nCOPY --link many /n\n"
    root = project({**MANY, "Dockerfile": text})
    context = Watched(root, 0.05, cancel.set if command == "sleep 60" else lambda: None)
    with pytest.raises((StepFailed, BuildCancelled), match=r"^Dockerfile:2: "):
        builder.all(root, opened=context, listener=events, cancel=cancel, no_cache=True)
    assert len(context.seen) < len(MANY), "it was stopped in the middle"
    assert [step.text.split()[0] for step in events.started] == ["FROM", "RUN"]
    assert_nothing_is_left(builder)


def test_a_commit_can_be_read_by_others_after_a_copy_of_it_was_stopped(
    builder: Builder, project: Project
) -> None:
    """One at a time reads a commit, and what was stopped must not keep the others from it."""
    text = "FROM busybox\nRUN sleep 1; exit 3\nCOPY --link many /m\n"
    root = project({**MANY, "Dockerfile": text})
    context = SlowGit(root / ".git", commit(root, 1_700_000_000))
    with pytest.raises(StepFailed) as failed:
        builder.all(root, opened=context)
    assert_nothing_is_left(builder)
    reader = threading.Thread(target=lambda: list(context.read([])), daemon=True)
    reader.start()
    reader.join(20)
    assert not reader.is_alive()
    assert failed.value.place == "Dockerfile:2"
    context.close()


def assert_nothing_is_left(builder: Builder) -> None:
    assert [t.name for t in threading.enumerate() if t.name.startswith("ahead")] == []
    root = builder.store.root
    assert [path for kind in ("scratch", "tmp", "mounts") for path in (root / kind).iterdir()] == []
    assert str(root) not in Path("/proc/self/mountinfo").read_text()
