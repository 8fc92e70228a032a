"""One installation for all that is followed, made as the pages say."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.machines import machine
from tests.walk.pages.install import install
from tests.walk.place import connect, place
from tests.walk.walking import Walk


@pytest.fixture(scope="package")
def reader() -> Iterator[Walk]:
    with place() as here, machine() as there:
        here.machine.sh(f"echo '{connect(here.machine, there)} qa1.example.org' >>/etc/hosts")
        walk = Walk(here, there)
        install(walk)
        yield walk


@pytest.fixture
def walk(reader: Walk) -> Iterator[Walk]:
    reader.wrong.clear()
    yield reader
    assert not reader.wrong, "\n\n".join(["", *reader.wrong])
