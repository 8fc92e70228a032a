"""Compressed streams: any engine's gzip and zstd inflate, bombs and lies do not."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import random
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from builders.images.layers import LayerLimits, LayerTooBig
from builders.images.streams import GzipSink, HashingReader, HashingSink, TarStream
from builders.images.tarformat import BadTar

LIMITS = LayerLimits()


def inflate(blob: bytes, kind: str, limits: LayerLimits = LIMITS) -> tuple[bytes, str]:
    stream = TarStream(HashingReader(io.BytesIO(blob), limit=len(blob)), kind, limits)
    parts = []
    while part := stream.read_some(1 << 16):
        parts.append(bytes(part))
    stream.drain()
    return b"".join(parts), stream.digest


@given(st.binary(max_size=50_000), st.integers(1, 3))
def test_what_others_compress_inflates_to_the_same(data: bytes, times: int) -> None:
    digest = "sha256:" + hashlib.sha256(data * times).hexdigest()
    gzipped = gzip.compress(data) * times  # several members, as pigz and estargz write them
    assert inflate(gzipped, "gzip") == (data * times, digest)
    assert inflate(gzipped + bytes(100), "gzip") == (data * times, digest)
    zstd = zstandard.compress(data) * times
    assert inflate(zstd, "zstd") == (data * times, digest)
    assert inflate(data * times, "none") == (data * times, digest)


@given(st.binary(max_size=200_000))
def test_what_we_compress_anyone_inflates(data: bytes) -> None:
    packed = io.BytesIO()
    sink = GzipSink(packed)
    sink.write(data)
    sink.close()
    assert gzip.decompress(packed.getvalue()) == data
    assert packed.getvalue()[4:8] == bytes(4)  # no time in the header


def test_large_data_inflates_in_bounded_pieces() -> None:
    blob = gzip.compress(bytes(64 << 20))
    stream = TarStream(HashingReader(io.BytesIO(blob), limit=len(blob)), "gzip", LIMITS)
    total = 0
    while part := stream.read_some(1 << 30):
        assert len(part) <= 1 << 20
        total += len(part)
    assert total == 64 << 20


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_bomb_is_stopped_by_size_or_by_ratio(kind: str) -> None:
    data = bytes(40 << 20)
    blob = gzip.compress(data) if kind == "gzip" else zstandard.compress(data)
    with pytest.raises(LayerTooBig, match="size limit of 16 MiB"):
        inflate(blob, kind, LayerLimits(size=16 << 20))
    with pytest.raises(LayerTooBig, match="inflates more than 100 fold"):
        inflate(blob, kind, LayerLimits(ratio=100, ratio_from=8 << 20))


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_broken_data_is_refused(kind: str) -> None:
    data = bytes(range(256)) * 5000
    blob = gzip.compress(data) if kind == "gzip" else zstandard.compress(data)
    for damaged in (b"", blob[:20], blob[: len(blob) // 2], b"garbage" * 100, blob + b"garbage"):
        if kind == "zstd" and damaged in (b"", blob[:20], blob[: len(blob) // 2]):
            continue  # the reader ends early; the digests tell
        with pytest.raises(BadTar):
            inflate(damaged, kind)
    flipped = bytearray(blob)
    flipped[len(blob) // 2] ^= 0xFF
    with contextlib.suppress(BadTar):
        assert inflate(bytes(flipped), kind)[0] != data


def test_a_raw_deflate_stream_is_no_gzip() -> None:
    with pytest.raises(BadTar):
        inflate(zlib.compress(b"x" * 1000), "gzip")


def test_more_bytes_than_announced_are_refused_at_once() -> None:
    reader = HashingReader(io.BytesIO(b"x" * 100), limit=99)
    with pytest.raises(BadTar, match="longer than the 99 bytes"):
        while reader.read(64):
            pass


def test_hashing_passes_everything_on() -> None:
    kept = io.BytesIO()
    sink = HashingSink(kept)
    for piece in (b"a", b"", b"bc"):
        sink.write(piece)
    assert kept.getvalue() == b"abc"
    assert (sink.size, sink.digest) == (3, "sha256:" + hashlib.sha256(b"abc").hexdigest())


PACK = {"bzip2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("times", [1, 3])
def test_what_add_alone_knows_inflates_too(kind: str, times: int) -> None:
    data = random.Random(1).randbytes(1000) * 200
    digest = "sha256:" + hashlib.sha256(data * times).hexdigest()
    assert inflate(PACK[kind](data) * times, kind) == (data * times, digest)
    assert inflate(PACK[kind](data) * times + bytes(64), kind)[1] == digest


@pytest.mark.parametrize("kind", PACK)
def test_what_is_cut_off_or_broken_is_refused(kind: str) -> None:
    packed = PACK[kind](bytes(range(256)) * 1000)
    for blob in (packed[:-20], packed[:20], b"", packed[:40] + b"x" * 40 + packed[80:]):
        with pytest.raises(BadTar, match=f"its {kind} data"):
            inflate(blob, kind)


@pytest.mark.parametrize("kind", PACK)
def test_a_bomb_of_any_kind_is_stopped_by_its_ratio(kind: str) -> None:
    """As ADD meets it: the compressed bytes are what counts."""
    limits = LayerLimits(ratio=300, ratio_from=1 << 20)
    with pytest.raises(LayerTooBig, match="300 fold"):
        inflate(PACK[kind](bytes(12 << 20)), kind, limits)


def test_an_xz_that_wants_more_memory_than_there_is_is_refused() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 29}]
    packed = lzma.compress(b"x", filters=filters)
    with pytest.raises(BadTar, match="its xz data is broken"):
        inflate(packed, "xz")
