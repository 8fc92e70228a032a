"""What a layer holds is read from its bytes, whoever made them."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
import zstandard

from ciserver.dashboard import listing
from ciserver.dashboard.listing import BadLayer, Listing

DPKG = "Package: bash\nStatus: install ok installed\nVersion: 5.2\n\nPackage: gone\n" + (
    "Status: deinstall ok not-installed\nVersion: 1\n"
)
APK = "C:Q1\nP:musl\nV:1.2.5-r0\n\nP:busybox\nV:1.36.1-r29\n"


def tar(*entries: tuple[str, bytes | None], **fields: Any) -> bytes:
    """Files by name; None makes a folder."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", **fields) as archive:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            info.size = len(data or b"")
            archive.addfile(info, io.BytesIO(data or b""))
    return made.getvalue()


def in_pieces(data: bytes, size: int = 700) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


ENTRIES = (
    ("etc", None),
    ("./etc/motd", b"hello\n"),
    ("usr/.wh.doc", b""),
    ("var/cache/.wh..wh..opq", b""),
    ("var/lib/dpkg/status", DPKG.encode()),
    ("lib/apk/db/installed", APK.encode()),
)


@pytest.mark.parametrize(
    "pack",
    [bytes, gzip.compress, zstandard.compress, lambda b: gzip.compress(b) + gzip.compress(b"")],
)
def test_files_deletions_and_packages_are_read_in_one_pass(pack: Any) -> None:
    found = listing.read(in_pieces(pack(tar(*ENTRIES))))
    assert set(found.files) == {"etc/motd", "var/lib/dpkg/status", "lib/apk/db/installed"}
    assert found.files["etc/motd"][0] == 6
    assert found.gone == ["usr/doc"]
    assert found.opaque == ["var/cache"]
    assert found.packages == {
        "dpkg": {"bash": "5.2"},
        "apk": {"musl": "1.2.5-r0", "busybox": "1.36.1-r29"},
    }


def test_the_same_size_with_other_bytes_is_another_file() -> None:
    one, other = (listing.read([tar(("a", data))]).files["a"] for data in (b"one", b"two"))
    assert one[0] == other[0]
    assert one != other


def test_a_listing_is_packed_and_unpacked_as_it_was() -> None:
    found = listing.read([tar(*ENTRIES)])
    again = listing.unpacked(listing.packed(found))
    assert (again.files, again.gone, again.opaque) == (found.files, found.gone, found.opaque)
    assert listing.unpacked(b"") == Listing()


def test_what_later_layers_replace_or_delete_is_wasted() -> None:
    layers = [
        Listing({"a": (10, "1"), "d/x": (20, "1"), "d/e/y": (40, "1"), "dd": (80, "1")}),
        Listing({"a": (5, "2")}, gone=["d/x"]),
        Listing({"d/z": (1, "3")}, opaque=["d"]),
    ]
    files, wasted = listing.flatten(layers)
    assert files == {"a": (5, "2"), "dd": (80, "1"), "d/z": (1, "3")}
    assert wasted == [70, 0, 0]
    assert listing.flatten([layers[0], Listing(opaque=[""])]) == ({}, [150, 0])


def long_header() -> bytes:
    """A pax header that says it is 3 GiB long."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 3 * 1024**3
    return info.tobuf() + bytes(1024)


def nested_headers() -> bytes:
    """Headers for headers: each is read by a call within the one before."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1
    return (info.tobuf() + b"a" + bytes(511)) * 3000


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"no tar at all" * 100, "cannot be read"),
        (gzip.compress(tar(*ENTRIES))[:-40], "cannot be read"),
        (b"\x28\xb5\x2f\xfd" + b"x" * 100, "cannot be read"),
        (b"\x1f\x8b" + b"x" * 100, "cannot be read"),
        (long_header(), "too long"),
        (nested_headers(), "cannot be read"),
        (tar(("a" * 1001, b"")), "more than 1000 characters"),
    ],
)
def test_hostile_bytes_are_no_layer(data: bytes, why: str) -> None:
    with pytest.raises(BadLayer, match=why):
        listing.read(in_pieces(data, 64 * 1024))


def test_what_inflates_to_too_much_is_not_read_to_its_end(monkeypatch: Any) -> None:
    monkeypatch.setattr(listing, "MOST_UNPACKED", 1024 * 1024)
    bomb = gzip.compress(tar(("zeros", bytes(4 * 1024 * 1024))))
    with pytest.raises(BadLayer, match="inflates to too much"):
        listing.read([bomb])
    monkeypatch.setattr(listing, "MOST_NAMES", 3)
    with pytest.raises(BadLayer, match="too long names"):
        listing.read([tar(("name", b""))])
    monkeypatch.undo()
    monkeypatch.setattr(listing, "MOST_ENTRIES", 3)
    with pytest.raises(BadLayer, match="more than 3 entries"):
        listing.read([tar(*((str(number), b"") for number in range(5)))])
