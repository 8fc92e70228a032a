"""Images that come as files: what a stranger packed is a sentence or an image, and reads nothing
else of this machine."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from builders.errors import BuildError
from builders.images.reference import Reference
from builders.images.store import Store
from builders.layouts import export_archive, export_layout, import_image
from tests.builders.conftest import Builder

pytestmark = pytest.mark.root
NAME = Reference.parse("stranger")


@pytest.fixture
def other(tmp_path: Path) -> Store:
    return Store(tmp_path / "other")


@pytest.fixture
def layout(builder: Builder, tmp_path: Path) -> Path:
    image = builder.store.find_image(Reference.parse("busybox"))
    assert image is not None
    export_layout(image, tmp_path / "layout")
    return tmp_path / "layout"


def test_a_layout_whose_files_are_links_to_this_machine_reads_none_of_it(
    layout: Path, other: Store, tmp_path: Path
) -> None:
    index = json.loads((layout / "index.json").read_text())
    secret = tmp_path / "secret"
    secret.write_bytes((layout / "index.json").read_bytes())
    (layout / "index.json").unlink()
    for target in (str(secret), f"../../..{secret}", "/proc/self/environ"):
        (layout / "index.json").symlink_to(target)
        with pytest.raises(BuildError, match=r"no file|no valid image"):
            import_image(layout, NAME, other)
        (layout / "index.json").unlink()
    (layout / "real.json").write_text(json.dumps(index))
    (layout / "index.json").symlink_to("/real.json")  # inside, that is where it leads
    assert import_image(layout, NAME, other).layers


def test_a_layout_with_a_pipe_in_it_does_not_hang(layout: Path, other: Store) -> None:
    (layout / "index.json").unlink()
    os.mkfifo(layout / "index.json")
    with pytest.raises(BuildError, match="no file"):
        import_image(layout, NAME, other)


def test_a_saved_image_in_a_folder_names_files_of_that_folder_only(
    tmp_path: Path, other: Store
) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    for name in ("/etc/passwd", "../../../../etc/passwd", "a\0b"):
        entry = [{"Config": name, "Layers": [name]}]
        (folder / "manifest.json").write_text(json.dumps(entry))
        with pytest.raises(BuildError, match="has no file"):
            import_image(folder, NAME, other)


def archive(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name.replace("_", "."))
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def linked(name: str, target: str, kind: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        tar.addfile(member)
    return buffer.getvalue()


CONFIG = b'{"Config": "c", "Layers": ["l"]}'
HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda good: b"",
    "no archive": lambda good: b"x" * 4096,
    "cut off": lambda good: good[:-2000],
    "cut off in its first header": lambda good: good[:300],
    "cut off and compressed": lambda good: gzip.compress(good)[:-40],
    "compressed and broken": lambda good: gzip.compress(good)[:2000] + b"\0" * 2000,
    "no JSON": lambda good: archive(manifest_json=b"{"),
    "an endless number": lambda good: archive(manifest_json=b"[" + b"1" * 5000 + b"]"),
    "nested for ever": lambda good: archive(manifest_json=b"[" * 100_000),
    "no image in it": lambda good: archive(manifest_json=b"[]"),
    "an object for a list": lambda good: archive(manifest_json=b"{}"),
    "a number for an image": lambda good: archive(manifest_json=b"[3]"),
    "no config": lambda good: archive(manifest_json=b"[" + CONFIG + b"]"),
    "a config that is none": lambda good: archive(manifest_json=b"[" + CONFIG + b"]", c=b"[]"),
    "a layer that is missing": lambda good: archive(
        manifest_json=b"[" + CONFIG + b"]",
        c=json.dumps({"rootfs": {"diff_ids": ["sha256:" + "0" * 64]}}).encode(),
    ),
    "another layer": lambda good: archive(
        manifest_json=b"[" + CONFIG + b"]",
        c=json.dumps({"rootfs": {"diff_ids": ["sha256:" + "0" * 64]}}).encode(),
        l=archive(x=b"1"),
    ),
    "links in a circle": lambda good: linked("manifest.json", "manifest.json", tarfile.SYMTYPE),
    "a hard link to itself": lambda good: linked("manifest.json", "manifest.json", tarfile.LNKTYPE),
    "a link out": lambda good: linked("manifest.json", "/etc/passwd", tarfile.SYMTYPE),
    "a device": lambda good: linked("manifest.json", "", tarfile.CHRTYPE),
    "an empty index": lambda good: archive(oci_layout=b"{}", **{"oci-layout": b"{}"}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_archive_of_a_stranger_is_refused_in_a_sentence(
    name: str, builder: Builder, other: Store, tmp_path: Path
) -> None:
    image = builder.store.find_image(Reference.parse("busybox"))
    assert image is not None
    export_archive(image, tmp_path / "good.tar")
    path = tmp_path / "bad.tar"
    path.write_bytes(HOSTILE[name]((tmp_path / "good.tar").read_bytes()))
    with pytest.raises(BuildError) as caught:
        import_image(path, NAME, other)
    assert "\n" not in str(caught.value)
    assert other.names() == []
    assert list((other.root / "tmp").iterdir()) == []
