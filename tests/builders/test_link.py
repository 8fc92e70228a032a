"""COPY --link: a layer of its own, whatever it is put upon."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from builders.build import StepInfo, StepResult
from builders.context import Entry
from builders.context.folder import FolderContext
from builders.errors import BuildError, UserError
from builders.images.config import ImageConfig
from builders.images.reference import Reference
from builders.plan import host_platform
from tests.builders.conftest import IDS, Builder, Recorder

pytestmark = pytest.mark.root
Project = Callable[[Mapping[str, str]], Path]


def test_the_layer_and_its_cache_entry_are_the_same_upon_any_image(
    builder: Builder, project: Project
) -> None:
    """Another base, made at another time, and another instruction before it."""
    text = "COPY --link --chown=5:6 f /deep/er/\n"
    older = ImageConfig(
        architecture=host_platform().partition("/")[2], created="2001-01-01T00:00:00Z"
    )
    base = builder.resolve(Reference.parse("busybox"))
    builder.store.save_image(older, base.layers, names=[Reference.parse("older:1")])
    files = {"f": "same\n"}
    first = builder.one(project({**files, "Dockerfile": f"FROM busybox\n{text}"}))
    context = project({"Dockerfile": f"FROM older:1\nRUN echo x > /y\n{text}"})
    second, seen = builder.all(context)
    assert second[None].layers[-1] == first.layers[-1]
    assert text.strip() in seen.cached()
    third = builder.one(context, no_cache=True)
    assert third.layers[-1] == first.layers[-1]
    fourth = builder.one(project({"Dockerfile": f"FROM scratch\n{text}"}))
    assert fourth.layers == first.layers[-1:]


def test_names_of_owners_are_still_the_stages_own(builder: Builder, project: Project) -> None:
    files = {"f": "x", "Dockerfile": "FROM busybox\nCOPY --link --chown=alice:staff f /f\n"}
    image = builder.one(project(files))
    with builder.store.rootfs(image.layers[-1:], ids=IDS, bare=True) as rootfs:
        status = (rootfs.path / "f").stat()
    assert (status.st_uid - IDS.base, status.st_gid - IDS.base) == (1000, 50)
    with pytest.raises(UserError, match=r"^Dockerfile:2: The image has no user 'bob'"):
        builder.one(project({"Dockerfile": "FROM busybox\nCOPY --link --chown=bob f /f\n"}))


def test_a_link_in_the_destination_is_replaced_and_not_followed(
    builder: Builder, project: Project
) -> None:
    """As BuildKit says of --link: it may not look at what is below."""
    lines = "FROM busybox\nRUN mkdir /real && ln -s /real /to\nCOPY --link f /to/\n"
    image = builder.one(project({"f": "x", "Dockerfile": lines}))
    with builder.store.rootfs(image.layers, ids=IDS, bare=True) as rootfs:
        assert not (rootfs.path / "to").is_symlink()
        assert (rootfs.path / "to/f").read_text() == "x"
        assert list((rootfs.path / "real").iterdir()) == []


class Told(FolderContext):
    """Tells when a file of it is read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.read_from: list[str] = []

    def read(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, Iterator[bytes]]]:
        for entry, chunks in super().read(entries):
            self.read_from.append(entry.path)
            yield entry, chunks


@dataclass
class Watching(Recorder):
    """Remembers what had been read of the context when each step ended, and when each began."""

    context: Told | None = None
    read_by: dict[str, list[str]] = field(default_factory=dict)

    def step_finished(self, step: StepInfo, result: StepResult) -> None:
        super().step_finished(step, result)
        assert self.context is not None
        self.read_by[step.text] = list(self.context.read_from)


def test_it_waits_for_no_step_before_it(builder: Builder, project: Project) -> None:
    lines = (
        "FROM busybox AS slow\nRUN sleep 0.5; echo made > /made\n"
        "FROM busybox\nARG FILE=none\nENV TO=/linked\n"
        "RUN sleep 1; echo bob:x:7:7::/:/bin/sh >> /etc/passwd\n"
        "WORKDIR /work\nCOPY --link $FILE $TO/\nCOPY --link f here\nCOPY plain /plain\n"
        "COPY --link --from=slow /made /made\nCOPY --link --chown=bob f /bobs\n"
    )
    root = project({"f": "f", "g": "g", "plain": "p", "Dockerfile": lines})
    context = Told(root)
    watching = Watching(context=context)
    images, _ = builder.all(
        root, opened=context, listener=watching, build_args={"FILE": "g"}, no_cache=True
    )
    run = "RUN sleep 1; echo bob:x:7:7::/:/bin/sh >> /etc/passwd"
    assert sorted(watching.read_by[run]) == ["Dockerfile", "f", "g"]
    assert [step.text for step in watching.started if step.stage == "1"] == [
        "FROM busybox",
        *lines.splitlines()[3:],
    ]
    with builder.store.rootfs(images[None].layers, ids=IDS, bare=True) as rootfs:
        names = ("linked/g", "work/here", "plain", "made", "bobs")
        assert [(rootfs.path / name).read_text().strip() for name in names] == [
            "g", "f", "p", "made", "f"
        ]  # fmt: skip
    again = builder.one(root, build_args={"FILE": "g"})
    assert again.id == images[None].id


def test_what_is_wrong_with_it_is_told_in_its_turn(builder: Builder, project: Project) -> None:
    lines = "FROM busybox\nRUN echo first\nCOPY --link none /x\nCOPY --link f /f\n"
    root = project({"f": "f", "Dockerfile": lines})
    with pytest.raises(BuildError, match=r"^Dockerfile:3: COPY finds no none") as caught:
        builder.one(root, no_cache=True)
    assert caught.value.place == "Dockerfile:3"
    lines = "FROM busybox\nRUN exit 3\nCOPY --link none /x\n"
    with pytest.raises(BuildError, match=r"Dockerfile:2: `RUN exit 3` ended with exit code 3"):
        builder.one(project({"Dockerfile": lines}), no_cache=True)


def test_many_that_wait_for_one_stage_hold_up_nothing_of_it(
    builder: Builder, project: Project
) -> None:
    """More than are begun at once, and the stage that all wait for has one of its own."""
    waiting = "".join(f"COPY --link --from=slow /f /f{number}\n" for number in range(6))
    lines = (
        "FROM busybox AS slow\nRUN sleep 0.5\nCOPY --link f /f\n"
        f"FROM busybox\nRUN true\n{waiting}RUN cat /f0 /f5\n"
    )
    root = project({"f": "f", "Dockerfile": lines})
    assert len(builder.one(root, no_cache=True).layers) == 7
