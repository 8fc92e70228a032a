"""Tar headers: what we write, everybody reads; what everybody writes, we read."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.images import tarformat
from builders.images.extract import read_members
from builders.images.layers import LayerLimits
from builders.images.streams import HashingReader, TarStream
from builders.images.tarformat import BadTar, Member

part = st.binary(min_size=1, max_size=120).filter(
    lambda b: b"/" not in b and b"\0" not in b and b not in (b".", b"..")
)
names = st.lists(part, min_size=1, max_size=6).map(b"/".join)
xattr_names = st.binary(min_size=1, max_size=20).filter(lambda b: b"=" not in b and b"\0" not in b)
members = st.builds(
    Member,
    name=names,
    type=st.sampled_from((tarformat.REGULAR, tarformat.SYMLINK, tarformat.HARD_LINK)),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 2),
    gid=st.integers(0, 2**32 - 2),
    size=st.just(0),
    mtime=st.integers(-(2**40), 2**40).map(lambda s: s * 10**9),
    link=st.one_of(st.just(b""), names),
    xattrs=st.dictionaries(xattr_names, st.binary(max_size=200), max_size=3),
)


def stream(data: bytes) -> TarStream:
    return TarStream(HashingReader(io.BytesIO(data), limit=len(data)), "none", LayerLimits())


@given(st.lists(members, max_size=4))
def test_every_member_reads_back_as_it_was_written(written: list[Member]) -> None:
    data = b"".join(tarformat.encode(member) for member in written) + tarformat.END
    assert list(read_members(stream(data))) == written


@given(members)
def test_pythons_tarfile_reads_what_we_write(member: Member) -> None:
    data = tarformat.encode(member) + tarformat.END
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = archive.next()
    assert found is not None
    name = found.name.encode("utf-8", "surrogateescape")
    assert name == member.name.rstrip(b"/") or not _is_text(member.name)
    assert (found.mode, found.uid, found.gid) == (member.mode, member.uid, member.gid)
    assert found.mtime == member.mtime // 10**9
    assert found.type == member.type


@given(
    st.sampled_from((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)),
    st.text("abc/ä", min_size=1, max_size=240).filter(lambda s: s.strip("/") and "//" not in s),
    st.integers(0, 2**21 - 1),
    st.binary(max_size=2000),
)
def test_we_read_what_pythons_tarfile_writes(
    dialect: int, name: str, uid: int, content: bytes
) -> None:
    buffer = io.BytesIO()
    info = tarfile.TarInfo(name.strip("/"))
    info.size, info.uid = len(content), uid
    try:
        with tarfile.open(fileobj=buffer, mode="w", format=dialect) as archive:
            archive.addfile(info, io.BytesIO(content))
    except ValueError:
        return  # ustar cannot hold the name
    source = stream(buffer.getvalue())
    member = next(read_members(source))
    assert member.name == name.strip("/").encode()
    assert member.uid == uid
    assert source.read(member.size) == content


def test_base_256_numbers_of_gnu_tar_are_read() -> None:
    info = tarfile.TarInfo("big")
    info.uid, info.mtime = 2**31, -5
    block = info.tobuf(tarfile.GNU_FORMAT)
    member = tarformat.decode(block)
    assert (member.uid, member.mtime) == (2**31, -5 * 10**9)


@pytest.mark.parametrize(
    "body",
    [b"x", b"5 a=b", b"6 a=b", b"0 a=b\n", b"99 a=b\n", b"6 a=bc\n", b"5 ab\n", b"5 =b\n",
     b" a=b\n", b"-6 a=b\n", b"6\na=b\n", b"99999999999999999999999 a=b\n"],
)  # fmt: skip
def test_a_malformed_pax_record_is_refused(body: bytes) -> None:
    with pytest.raises(BadTar):
        tarformat.parse_pax(body)


@given(st.binary(max_size=3000))
def test_garbage_is_refused_and_never_crashes(data: bytes) -> None:
    try:
        for member in read_members(stream(data)):
            member.size = 0
    except BadTar:
        pass


@given(st.binary(min_size=512, max_size=512), st.integers(0, 511))
def test_a_damaged_header_is_refused(noise: bytes, position: int) -> None:
    block = bytearray(tarformat.encode(Member(b"file", size=3)))
    if block[position] == noise[position] or 148 <= position < 156:
        return
    block[position] = noise[position]
    with pytest.raises(BadTar, match="checksum"):
        tarformat.decode(bytes(block))


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
