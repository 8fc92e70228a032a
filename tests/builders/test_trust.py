"""What one build may not do to another: leave a secret behind, or a layer under somebody's key."""

from __future__ import annotations

import base64
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import pytest

from builders.errors import BuildError, ContextError
from builders.images.store import Image
from tests.builders.conftest import Builder, Recorder

pytestmark = pytest.mark.root
Project = Callable[[Mapping[str, str]], Path]


# Secrets


def spellings(secret: bytes) -> Iterator[bytes]:
    yield secret
    yield base64.b64encode(secret).rstrip(b"=")
    yield secret.hex().encode()
    yield quote(secret).encode()


def every_byte_kept(builder: Builder, image: Image) -> Iterator[bytes]:
    """All that a build leaves: config, manifest, layers, cache entries, notes and locks."""
    yield image.config.to_json()
    yield image.manifest().data
    for folder, _, names in os.walk(builder.store.root):
        yield folder.encode()
        for name in names:
            path = Path(folder) / name
            yield os.fsencode(path)
            if not path.is_symlink() and path.is_file():  # others' layers have links to anywhere
                yield path.read_bytes()


def test_of_two_hundred_secrets_nothing_is_kept_anywhere(
    builder: Builder, project: Project
) -> None:
    """As files, as variables, with names and targets of their own, and echoed by what failed."""
    given = {f"secret{n}": secrets.token_urlsafe(18).encode() + b"/+ %" for n in range(200)}
    runs = []
    for start in range(0, 200, 20):
        mounts = [
            f"--mount=type=secret,id=secret{n}"
            + (f",env=V{n}" if n % 3 == 0 else f",target=/s/{n}" if n % 3 == 1 else ",mode=0444")
            for n in range(start, start + 20)
        ]
        check = (
            f"cat /run/secrets/* /s/* 2>/dev/null | wc -c > /size{start};"
            f" env | grep -c ^V > /count{start}"
        )
        runs.append(f"RUN {' '.join(mounts)} {check}\n")
    recorder = Recorder()
    images, _ = builder.all(
        project({"Dockerfile": "FROM busybox\n" + "".join(runs)}),
        secrets=given,
        listener=recorder,
        no_cache=True,
    )
    image = images[None]
    counts = [int((layer.tree / f"count{n * 20}").read_text()) for n, layer in
              enumerate(image.layers[1:])]  # fmt: skip
    sizes = [int((layer.tree / f"size{n * 20}").read_text()) for n, layer in
             enumerate(image.layers[1:])]  # fmt: skip
    assert sum(counts) == 67 and all(size >= 13 * 28 for size in sizes)  # they were there
    builder.store.blob(image.layers[-1])
    kept = b"\n".join(every_byte_kept(builder, image)) + recorder.output
    for text in recorder.results:
        kept += text.encode()
    assert b"count180" in kept
    for secret in given.values():
        for spelled in spellings(secret):
            assert spelled not in kept


def test_another_secret_is_no_other_key(builder: Builder, project: Project) -> None:
    text = f"FROM busybox\nRUN --mount=type=secret,id=t echo {secrets.token_hex(4)} > /x\n"
    root = project({"Dockerfile": text})
    builder.all(root, secrets={"t": b"one"})
    _, recorder = builder.all(root, secrets={"t": b"two"})
    assert any(step.startswith("RUN") for step in recorder.cached())


# The cache (CVE-2022-1423, CVE-2024-24557)


TRUSTED = "FROM busybox\nCOPY a /a\nRUN cat /a > /b; id -u > /u; pwd > /w; echo ${X-none} > /x\n"
# What a fork builds first, to have the trusted build take it for its own.
POISON: dict[str, Mapping[str, str]] = {
    "the same steps, another file": {"a": "evil"},
    "another variable": {"Dockerfile": TRUSTED.replace("COPY", "ENV X=evil\nCOPY")},
    "an argument": {"Dockerfile": TRUSTED.replace("COPY", "ARG X=evil\nCOPY")},
    "another user": {"Dockerfile": TRUSTED.replace("RUN", "USER 0:50\nRUN")},
    "another folder": {"Dockerfile": TRUSTED.replace("RUN", "WORKDIR /tmp\nRUN")},
    "another shell": {
        "Dockerfile": TRUSTED.replace("RUN", 'SHELL ["/bin/sh", "-c", "echo evil > /b"]\nRUN')
    },
    "a check of health": {"Dockerfile": TRUSTED.replace("COPY", "HEALTHCHECK CMD evil\nCOPY")},
    "a trigger": {"Dockerfile": TRUSTED.replace("COPY", "ONBUILD RUN evil\nCOPY")},
    "scratch below": {"Dockerfile": "FROM scratch\nCOPY a /a\n"},
    "a layer below": {"Dockerfile": TRUSTED.replace("COPY", "RUN echo evil > /etc/x\nCOPY")},
    "a link for the file": {"a": "-> b", "b": "evil"},
    "a cache mount over what is read": {
        "Dockerfile": TRUSTED.replace("RUN", "RUN --mount=type=cache,target=/root")
    },
    "words that join to the same": {"Dockerfile": TRUSTED.replace("/a > /b", "/a >/b")},
}


@pytest.mark.parametrize("same_lane", [False, True], ids=["fork", "same lane"])
@pytest.mark.parametrize("name", POISON)
def test_what_somebody_else_built_before_changes_nothing(
    name: str, same_lane: bool, builder: Builder, project: Project
) -> None:
    """The image with and without the cache is the same to the bit."""
    honest = {"Dockerfile": TRUSTED, "a": "honest"}
    scope = f"poison/{name}/{same_lane}"
    root = project(honest)
    clean = builder.one(root, no_cache=True, scope=f"{scope}/clean")
    for path, text in {**honest, **POISON[name]}.items():
        (root / path).unlink(missing_ok=True)
        if text.startswith("-> "):
            (root / path).symlink_to(text.removeprefix("-> "))
        else:
            (root / path).write_text(text)
    evil = builder.one(
        root, scope=scope if same_lane else f"{scope}/fork", also_read=() if same_lane else (scope,)
    )
    for path in POISON[name]:
        (root / path).unlink()
    after = builder.one(project(honest), scope=scope)
    assert after.id == clean.id
    assert evil.id != clean.id


def test_a_step_cannot_reach_the_cache_it_will_be_kept_in(
    builder: Builder, project: Project
) -> None:
    store = builder.store.root
    text = (
        f"FROM busybox\nRUN ls -d {store} {store}/steps 2>/dev/null; mkdir -p {store}/steps/x &&"
        f" echo evil > {store}/steps/x/y\n"
    )
    before = sorted(path.name for path in (store / "steps").iterdir())
    _, recorder = builder.all(project({"Dockerfile": text}), no_cache=True, scope="default")
    assert recorder.output == b""
    assert not (store / "steps/x").exists()
    assert set(before) <= {path.name for path in (store / "steps").iterdir()}


# The context while it is read


FLIPS = int(os.environ.get("BUILDER_TEST_FLIPS", "20"))  # 100 for the long form


def test_a_context_that_is_swapped_all_the_time_gives_honest_content_or_none(
    builder: Builder, project: Project, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_text("stolen")
    root = project({"Dockerfile": "FROM busybox\nCOPY d /d\nCOPY e* /e/\n", "d/f": "1", "e": "1"})
    stop = threading.Event()

    def flip() -> None:
        """About a thousand times a second: folder and link, file and link, one file and another."""
        while not stop.wait(0.0003):
            (root / "d").rename(root / "d-away")
            (root / "d").symlink_to(outside)
            (root / "e").unlink()
            (root / "e").symlink_to(outside / "f")
            stop.wait(0.0003)
            (root / "d").unlink()
            (root / "d-away").rename(root / "d")
            (root / "e").unlink()
            (root / "e").write_text("1")

    thread = threading.Thread(target=flip)
    thread.start()
    built = 0
    try:
        for _ in range(FLIPS):
            try:
                image = builder.one(root, no_cache=True)
            except ContextError:
                continue
            except BuildError as error:
                raise AssertionError(f"not one of ours to say: {error!r}") from error
            built += 1
            for layer in image.layers[1:]:
                for path in layer.tree.rglob("*"):
                    assert not path.is_file() or path.is_symlink() or path.read_text() in ("1", "")
    finally:
        stop.set()
        thread.join()
    assert builder.one(root, no_cache=True).layers
