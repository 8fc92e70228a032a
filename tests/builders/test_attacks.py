"""Dockerfiles of an attacker: nothing outside is seen or changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from builders.errors import BuildError
from tests.builders.conftest import Builder
from tests.runtime.conftest import fingerprint, mounts

pytestmark = pytest.mark.root
Project = Callable[[Mapping[str, str]], Path]
RACES = int(os.environ.get("BUILDER_TEST_RACES", "3"))  # 500 for the long form
EVIL = "FROM busybox AS evil\nRUN ln -s / /link; ln -s ../../../../../../.. /up; mkdir /dir\n"


@pytest.fixture(autouse=True)
def sentinel(builder: Builder) -> Iterator[Path]:
    """A file next to the store that no build may touch, and no mount may stay."""
    file = builder.store.root.parent / "sentinel"
    file.write_text("do not touch")
    before = fingerprint(file)
    home = str(builder.store.root.parent)
    there = [line for line in mounts() if home in line]
    yield file
    assert fingerprint(file) == before
    assert [line for line in mounts() if home in line] == there


@pytest.mark.parametrize("source", ["/link", "/up", "/link/link", "/dir/../link"])
@pytest.mark.parametrize("kind", ["type=bind", "type=bind,rw", "type=cache"])
def test_a_mounts_source_behind_a_link_stays_in_its_stage(
    kind: str, source: str, builder: Builder, project: Project
) -> None:
    """CVE-2024-1753 (a link to /), CVE-2024-23651 and CVE-2024-9675 (of a cache)."""
    home = builder.store.root.parent
    text = (
        f"{EVIL}FROM busybox\n"
        f"RUN --mount={kind},from=evil,source={source},target=/m "
        f"ls /m > /seen; ls /m/boot /m{home} 2>/dev/null > /host; echo x > /m/sentinel; true\n"
    )
    try:
        image = builder.one(project({"Dockerfile": text}))
    except BuildError:
        return
    tree = image.layers[-1].tree
    assert (tree / "host").read_text() == ""
    assert "link" in (tree / "seen").read_text().split() or kind == "type=cache"


@pytest.mark.parametrize("id", ["../../../sentinel", "/etc", "..", "a/../../b", "%2e%2e"])
def test_a_caches_name_is_no_path(id: str, builder: Builder, project: Project) -> None:
    """CVE-2024-9675."""
    before = {path.name for path in builder.store.root.parent.iterdir()}
    text = f"FROM busybox\nRUN --mount=type=cache,id={id},target=/c echo x > /c/owned; ls /c > /l\n"
    image = builder.one(project({"Dockerfile": text}), no_cache=True)
    assert (image.layers[-1].tree / "l").read_text() == "owned\n"
    assert {path.name for path in builder.store.root.parent.iterdir()} == before


def test_a_source_that_the_builder_looks_up_while_another_stage_swaps_it_stays_inside(
    builder: Builder, project: Project, sentinel: Path
) -> None:
    """CVE-2024-11218 and -23651: one has the folder writable, and makes it a link by turns, while
    for each step of the other the builder resolves the same folder, as a bind and as a cache."""
    home = sentinel.parent
    mounts = (
        "--mount=type=bind,from=evil,source=/w/d,target=/m "
        "--mount=type=cache,id=swapped-{0},from=evil,source=/w/d,target=/c"
    )
    steps = "".join(
        f"RUN {mounts.format(number)} ls /m{home} /c{home} >> /seen 2>/dev/null;"
        " ls -d /m /c >> /ran\n"
        for number in range(2)
    )
    for number in range(max(1, RACES // 3)):  # each takes seconds
        meet = f"--mount=type=cache,id=swapping-{number},target=/meet"
        text = (
            "FROM busybox AS evil\nRUN mkdir -p /w/d\n"
            f"FROM busybox AS one\nRUN {meet} --mount=type=bind,from=evil,source=/w,target=/w,rw"
            " touch /meet/on; i=0; until test -e /meet/off; do"
            " rm -rf /w/d; ln -s / /w/d; rm /w/d; mkdir /w/d; i=$((i+1)); done; test $i -gt 5\n"
            f"FROM busybox AS two\nRUN {meet} until test -e /meet/on; do sleep 0.01; done\n{steps}"
            f"RUN {meet} touch /meet/off\n"
            "FROM busybox\nCOPY --from=one /bin/true /one\nCOPY --from=two /seen /ran /\n"
        )
        image = builder.one(project({"Dockerfile": text}), no_cache=True, parallel=2)
        assert (image.layers[-1].tree / "seen").read_text() == ""
        assert (image.layers[-1].tree / "ran").read_text() == "/c\n/m\n" * 2


def test_a_step_cannot_swap_what_holds_its_mount_for_a_link(
    builder: Builder, project: Project, sentinel: Path
) -> None:
    """Whatever was made to mount upon is removed after the step, and nothing outside."""
    victim = sentinel.parent / "victim"
    (victim / "empty").mkdir(parents=True)
    swap = f"umount /a/empty; mv /a /b; rmdir /a/empty; rm -rf /a; ln -s {victim} /a"
    text = (
        f"FROM busybox\nRUN --mount=type=tmpfs,target=/a/empty {{ {swap}; }} 2>/dev/null;"
        " grep -c ' /a/empty tmpfs ' /proc/mounts > /there\n"
    )
    try:
        image = builder.one(project({"Dockerfile": text}), no_cache=True)
        assert (victim / "empty").is_dir()
    finally:
        shutil.rmtree(victim)
    tree = image.layers[-1].tree
    assert (tree / "there").read_text() == "1\n"
    assert not (tree / "a").is_symlink() and not (tree / "a/empty").exists()


@pytest.mark.parametrize(
    "line",
    [
        "RUN --security=insecure true",
        "RUN --network=host true",
        "RUN --device=/dev/kmsg true",
        "RUN --privileged true",
        "RUN --mount=type=bind,source=/,target=/m,bind-propagation=shared true",
        "RUN --mount=type=bind,from=evil,target=/proc true",
        "RUN --mount=type=tmpfs,target=/sys true",
        "RUN --mount=type=cache,target=/dev true",
        "RUN --mount=type=npipe,target=/m true",
        "RUN --mount=type=volume,source=/var/run/docker.sock,target=/d true",
    ],
)
def test_what_would_give_a_step_more_rights_is_refused(
    line: str, builder: Builder, project: Project
) -> None:
    with pytest.raises(BuildError):
        builder.one(project({"Dockerfile": f"{EVIL}FROM busybox\n{line}\n"}))


def test_no_working_directory_is_a_descriptor(builder: Builder, project: Project) -> None:
    """CVE-2024-21626, named and behind a link, as root and as another user."""
    for number in range(65):
        for user in ("", "USER alice\n"):
            text = f"FROM busybox\n{user}WORKDIR /proc/self/fd/{number}\nRUN pwd\n"
            with pytest.raises(BuildError):
                builder.one(project({"Dockerfile": text}))


@pytest.mark.parametrize("trap", ["/proc/self/fd/7", "/proc/1/cwd", "/proc/self/root", "/sys", "/"])
def test_a_working_directory_behind_a_link_stays_inside(
    trap: str, builder: Builder, project: Project
) -> None:
    """CVE-2026-55686 too: no folder is made outside."""
    home = builder.store.root.parent
    text = (
        f"FROM busybox\nRUN ln -s {trap} /trap\nWORKDIR /trap{home}/made\n"
        f"RUN ls /boot {home}/sentinel; ls ../../../../../.. > /seen; ls -l /proc/self/fd > /fds\n"
    )
    try:
        image = builder.one(project({"Dockerfile": text}))
    except BuildError:
        image = None
    assert not (home / "made").exists()
    if image is not None:
        assert "boot" not in (image.layers[-1].tree / "seen").read_text().split()


# COPY, forty ways out: each with the context's files and with those of another stage.

OUT = {
    "link to the root": "ln -s / /t",
    "absolute link": "ln -s {home} /t",
    "link of many dots": "ln -s ../../../../../../../..{home} /t",
    "link to a link": "ln -s {home} /u; ln -s u /t",
    "link to the process": "ln -s /proc/self/cwd /t",
    "link to another's root": "ln -s /proc/1/root{home} /t",
    "link to a descriptor": "ln -s /proc/self/fd /t",
    "link in a folder": "mkdir -p /a/b; ln -s ../../../../..{home} /a/b/c; ln -s /a/b/c /t",
    "link that leads nowhere yet": "ln -s /nowhere{home} /t",
    "links in a circle": "ln -s /u /t; ln -s /t /u",
}
WAYS = {
    "destination": "COPY sentinel /t/sentinel",
    "destination folder": "COPY folder /t",
    "destination that is the link": "COPY sentinel /t",
    "source": "COPY --from=evil /t/sentinel /x",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("out", OUT)
def test_no_copy_leads_out_of_the_root(
    out: str, way: str, builder: Builder, project: Project, sentinel: Path
) -> None:
    home = sentinel.parent
    text = (
        f"FROM busybox AS evil\nRUN {OUT[out].format(home=home)}\nFROM evil\n{WAYS[way]}\n"
        "WORKDIR /t/made\nADD sentinel /t/added/\n"
    )
    files = {"Dockerfile": text, "sentinel": "owned", "folder/sentinel": "owned"}
    before = sorted(path.name for path in home.iterdir())
    try:
        image = builder.one(project(files), no_cache=True)
    except BuildError as error:
        assert error.place.startswith("Dockerfile:")
        image = None
    assert sorted(path.name for path in home.iterdir()) == before
    for layer in image.layers[1:] if image else ():
        for path in layer.tree.rglob("*"):
            assert path.is_symlink() or not path.is_file() or path.read_text() != "do not touch"
