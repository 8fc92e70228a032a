"""Images of other platforms: what runs by emulation, and what is said where nothing can run it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from builders.emulation import BINFMT, elf_header, why_not
from builders.errors import DockerfileError, ImageNotFound
from builders.images.config import ImageConfig
from builders.images.digests import OCI_INDEX, OCI_MANIFEST
from builders.images.reference import Reference
from builders.images.store import Image, Store
from builders.plan import host_platform
from builders.registry import Registry
from builders.resolve import Resolver
from tests.builders.conftest import BUSYBOX, Builder
from tests.builders.images.test_store import a_layer
from tests.builders.registry.conftest import RegistryProcess

Project = Callable[[Mapping[str, str]], Path]
FOREIGN = "linux/s390x"  # no test machine's own, and nobody else's test runs its programs
# As /usr/lib/binfmt.d/qemu-aarch64.conf of qemu-user-static registers it.
MAGIC = "7f454c460201010000000000000000000200b700"
MASK = "ffffffffffffff00fffffffffffffffffeffffff"


def entry(flags: str = "OCF", state: str = "enabled", magic: str = MAGIC) -> str:
    return (
        f"{state}\ninterpreter /usr/bin/qemu-aarch64-static\nflags: {flags}\n"
        f"offset 0\nmagic {magic}\nmask {MASK}\n"
    )


def file_in(image: Image, name: str) -> bytes:
    """From the last layer that has it."""
    found = [layer.tree / name for layer in image.layers if (layer.tree / name).exists()]
    return found[-1].read_bytes()


@pytest.fixture
def binfmt(tmp_path: Path) -> Path:
    (tmp_path / "status").write_text("enabled\n")
    (tmp_path / "register").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (entry(), None),
        (entry("F"), None),
        (entry("OC"), "without the flag F"),
        (entry(state="disabled"), "apt-get install qemu-user-static"),
        (entry(magic=MAGIC[:-4] + "f300"), "apt-get install qemu-user-static"),  # riscv64's
        ("enabled\ninterpreter /x\nflags: F\nextension .jar\n", "apt-get install"),
    ],
)
def test_an_emulator_counts_where_the_kernel_would_take_it(
    binfmt: Path, text: str, word: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builders.emulation.host_platform", lambda: "linux/amd64")
    (binfmt / "qemu-aarch64").write_text(text)
    found = why_not("linux/arm64", binfmt)
    assert found is None if word is None else word in (found or "")


def test_emulators_that_are_switched_off_or_not_mounted_do_not_count(
    binfmt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builders.emulation.host_platform", lambda: "linux/amd64")
    (binfmt / "qemu-aarch64").write_text(entry())
    (binfmt / "status").write_text("disabled\n")
    assert why_not("linux/arm64", binfmt)
    assert why_not("linux/arm64", binfmt / "nowhere")
    assert why_not("linux/vax", binfmt) == "No emulator of it is known."
    assert why_not("linux/386", binfmt) is None
    assert why_not("linux/amd64", binfmt) is None


@pytest.fixture
def emulator(home: Path) -> Iterator[None]:
    """Has the kernel start a program of its own for those of FOREIGN, until the end.

    It is busybox as ``cp``, called as an emulator is: with the program and its arguments.
    """
    shutil.copy2(BUSYBOX, home / "cp")
    mounted = (BINFMT / "register").exists()
    if not mounted:
        subprocess.run(["mount", "-t", "binfmt_misc", "none", BINFMT], check=True)
    header = elf_header(FOREIGN.split("/")[1]) or b""
    magic = "".join(f"\\x{byte:02x}" for byte in header)
    name = f"gantry-test-{os.getpid()}"
    (BINFMT / "register").write_text(f":{name}:M::{magic}::{home / 'cp'}:F")
    yield
    (BINFMT / name).write_text("-1")
    if not mounted:
        subprocess.run(["umount", BINFMT], check=True)


def test_a_step_of_another_platform_runs_through_the_registered_emulator(
    builder: Builder, project: Project, emulator: None
) -> None:
    program = (elf_header(FOREIGN.split("/")[1]) or b"") + bytes(100)
    root = project({"Dockerfile": 'FROM scratch\nCOPY --chmod=755 p /p\nRUN ["/p", "/copied"]\n'})
    (root / "p").write_bytes(program)
    image = builder.one(root, platform=FOREIGN)
    assert image.config.architecture == "s390x"
    assert file_in(image, "copied") == program


def test_a_step_that_nothing_here_can_run_is_refused_before_anything_is_built(
    builder: Builder, project: Project
) -> None:
    root = project({"Dockerfile": "FROM --platform=linux/vax busybox AS a\nRUN true\n"})
    with pytest.raises(DockerfileError, match=f"linux/vax.*{host_platform()}, cannot run") as told:
        builder.one(root)
    assert told.value.place == "Dockerfile:2"


def test_what_runs_nothing_can_be_of_any_platform(builder: Builder, project: Project) -> None:
    """The way of cross compilers: the first stage runs here, for TARGETARCH."""
    text = """
        FROM --platform=$BUILDPLATFORM busybox AS made
        ARG TARGETPLATFORM TARGETARCH TARGETVARIANT BUILDPLATFORM
        RUN echo $TARGETPLATFORM $TARGETARCH $TARGETVARIANT $BUILDPLATFORM > /told
        FROM scratch
        COPY --from=made /told /told
    """
    image = builder.one(project({"Dockerfile": text}), platform="linux/arm/v6")
    assert (image.config.architecture, image.config.variant) == ("arm", "v6")
    assert file_in(image, "told") == f"linux/arm/v6 arm v6 {host_platform()}\n".encode()


@pytest.mark.parametrize("platform", ["windows/amd64", "linux/a b", "linux/arm/v6/x"])
def test_what_is_no_linux_is_refused(builder: Builder, project: Project, platform: str) -> None:
    root = project({"Dockerfile": "FROM scratch\nCOPY . /\n"})
    with pytest.raises(DockerfileError, match="cannot be built on this machine"):
        builder.one(root, platform=platform)


def test_a_registry_gives_the_image_of_the_platform_that_is_asked_for(tmp_path: Path) -> None:
    process = RegistryProcess(tmp_path)
    try:
        index = _two_platforms(process.host, Store(tmp_path / "first"))
        store = Store(tmp_path / "second")
        resolver = Resolver(store)
        name = Reference.parse(f"{process.host}/team/both:v1")
        for platform, architecture in (("linux/s390x", "s390x"), ("linux/arm/v6", "arm")):
            image = resolver(replace(name, platform=platform))
            assert image.config.architecture == architecture
            assert store.find_image(replace(name, platform=platform)) == image
        assert store.find_image(name) is None
        assert store.names() == sorted({str(name), *(n for n in store.names() if "@" in n)})
        with pytest.raises(ImageNotFound, match="not made for linux/riscv64, only for linux/arm"):
            resolver(replace(name, platform="linux/riscv64"))
        single = Reference.parse(f"{process.host}/team/both@{index[0]}")
        with pytest.raises(ImageNotFound, match="not made for linux/arm64, only for linux/s390x"):
            resolver(replace(single, platform="linux/arm64"))
    finally:
        process.close()


def test_an_image_built_here_for_another_platform_is_found_under_its_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    name = Reference.parse("team/app:v1")
    image = store.save_image(ImageConfig(architecture="s390x"), [a_layer(store, "x")], names=[name])
    resolver = Resolver(store, upstream=False)
    assert resolver(replace(name, platform=FOREIGN)) == image
    with pytest.raises(ImageNotFound):
        resolver(replace(name, platform="linux/riscv64"))


def _two_platforms(host: str, store: Store) -> list[str]:
    """Push an index of two images as ``team/both:v1``; the digests of their manifests."""
    digests, entries = [], []
    with Registry(host) as client:
        for architecture, variant in (("s390x", ""), ("arm", "v6")):
            config = ImageConfig(architecture=architecture, variant=variant)
            image = store.save_image(config, [a_layer(store, architecture)])
            pushed = client.push(image, Reference.parse(f"{host}/team/both:{architecture}"), store)
            size = len(store.manifest(image).data)
            where = {"os": "linux", "architecture": architecture, "variant": variant}
            entries.append(
                {
                    "mediaType": OCI_MANIFEST,
                    "digest": pushed.digest,
                    "size": size,
                    "platform": where,
                }
            )
            digests.append(pushed.digest)
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    httpx.put(
        f"http://{host}/v2/team/both/manifests/v1",
        content=json.dumps(document),
        headers={"Content-Type": OCI_INDEX},
    ).raise_for_status()
    return digests
