"""Layers that will be pushed are compressed while they are hashed, to the very same blob."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from builders.images import packing
from builders.images.layerstore import Layer
from builders.images.store import Store
from tests.builders.images.test_store import IDS, leftovers
from tests.builders.images.trees import EPOCH

pytestmark = pytest.mark.root


def commit(store: Store, *, pack: bool, megabytes: int = 6) -> Layer:
    """A layer of many small files and a big one, the same bytes each time."""
    chance = random.Random(1)
    with store.staging() as folder:
        upper = folder / "upper"
        upper.mkdir()
        (upper / "big").write_bytes(chance.randbytes(megabytes << 19) + bytes(megabytes << 19))
        for number in range(300):
            (upper / f"f{number}").write_text(f"{number}\n" * 100)
        for path in (upper, *upper.iterdir()):
            os.chown(path, IDS.base, IDS.base)
        return store.commit_upper(upper, IDS, epoch=EPOCH, pack=pack)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_the_blob_is_there_at_once_and_the_one_made_on_demand(
    tmp_path: Path, compression: str
) -> None:
    early = Store(tmp_path / "early", compression=compression)
    late = Store(tmp_path / "late", compression=compression)
    packed = commit(early, pack=True)
    assert list(early.root.glob("compressed/sha256/*"))
    plain = commit(late, pack=False)
    assert not list(late.root.glob("compressed/sha256/*"))
    assert packed.diff_id == plain.diff_id
    assert early.blob(packed) == late.blob(plain)
    assert leftovers(early) == []


def test_a_small_layer_waits_until_somebody_wants_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    layer = commit(store, pack=True, megabytes=0)
    assert not list(store.root.glob("compressed/sha256/*"))
    assert store.blob(layer).size


def test_what_is_packed_already_is_not_kept_twice(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    first = store.blob(commit(store, pack=True))
    again = commit(store, pack=True)
    assert store.blob(again) == first
    assert len(list(store.root.glob("blobs/sha256/*"))) == 1
    assert leftovers(store) == []


def test_a_disk_that_is_full_for_the_blob_does_not_fail_the_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(packing.HashingSink):
        def write(self, data: bytes | bytearray | memoryview, /) -> None:
            raise OSError(28, "No space left on device")

    store = Store(tmp_path / "store")
    monkeypatch.setattr(packing, "HashingSink", Full)
    layer = commit(store, pack=True)
    assert not list(store.root.glob("compressed/sha256/*"))
    monkeypatch.undo()
    assert store.verify(layer)
    assert store.blob(layer).size
    assert leftovers(store) == []
