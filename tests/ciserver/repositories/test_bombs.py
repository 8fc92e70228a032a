"""Pushes that are small on the wire and large inside: what they cost the service."""

from __future__ import annotations

import os
import sys
import zlib
from hashlib import sha1
from pathlib import Path

import pytest

from ciserver.repositories.command import environment
from ciserver.repositories.git import HOSTED
from tests.ciserver.repositories.serving import git

MIB = 1024 * 1024
# Runs Git's own end of a push as the service does, and notes the most that it held.
RECEIVE = """#!{python}
import resource, subprocess, sys
ended = subprocess.run(["git", "receive-pack", *sys.argv[1:]], env={env!r}).returncode
with open({noted!r}, "w") as file:
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=file)
sys.exit(ended)
"""


class Receiver:
    def __init__(self, folder: Path) -> None:
        self.work, self.bare = folder / "work", folder / "bare.git"
        git("init", "--quiet", str(self.work), cwd=folder)
        git("init", "--quiet", "--bare", str(self.bare), cwd=folder)
        env = environment(protocols="file", settings=HOSTED | {"safe.directory": "*"})
        self.noted, self.program = folder / "noted", folder / "receive"
        self.program.write_text(
            RECEIVE.format(python=sys.executable, env=env, noted=str(self.noted))
        )
        self.program.chmod(0o755)

    def put(self, kind: str, content: bytes) -> str:
        """A loose object, whatever it holds."""
        raw = f"{kind} {len(content)}\0".encode() + content
        name = sha1(raw, usedforsecurity=False).hexdigest()
        path = self.work / ".git" / "objects" / name[:2] / name[2:]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(zlib.compress(raw, 1))
        return name

    def commit(self, tree: str) -> str:
        who = "a <a@example.org> 1700000000 +0000"
        return self.put("commit", f"tree {tree}\nauthor {who}\ncommitter {who}\n\nx\n".encode())

    def push(self, sha: str) -> int:
        """Bytes that the receiving side held at most."""
        options = ("push", "--quiet", f"--receive-pack={self.program}")
        git(*options, str(self.bare), f"{sha}:refs/heads/main", cwd=self.work)
        return int(self.noted.read_text()) * 1024

    def kept(self) -> int:
        return sum(path.stat().st_size for path in self.bare.rglob("*") if path.is_file())


@pytest.fixture
def receiver(tmp_path: Path) -> Receiver:
    return Receiver(tmp_path)


def entry(mode: str, name: str, sha: str) -> bytes:
    return f"{mode} {name}\0".encode() + bytes.fromhex(sha)


def test_a_file_of_zeros_is_never_whole_in_memory_and_takes_what_it_took_on_the_wire(
    receiver: Receiver,
) -> None:
    zeros = receiver.work / "zeros"
    zeros.touch()
    os.truncate(zeros, 50 * MIB)
    quick = ("-c", "core.bigFileThreshold=1m", "-c", "core.compression=1")
    blob = git(*quick, "hash-object", "-w", "zeros", cwd=receiver.work)

    held = receiver.push(receiver.commit(receiver.put("tree", entry("100644", "zeros", blob))))

    assert held < 30 * MIB
    assert receiver.kept() < MIB


def test_a_tree_of_ten_thousand_million_files_costs_a_push_nothing(receiver: Receiver) -> None:
    tree, mode = receiver.put("blob", b"x"), "100644"
    for _ in range(10):
        tree = receiver.put("tree", b"".join(entry(mode, f"f{n}", tree) for n in range(10)))
        mode = "40000"

    assert receiver.push(receiver.commit(tree)) < 40 * MIB
    assert receiver.kept() < MIB


def test_a_tree_deeper_than_any_path_costs_a_push_nothing(receiver: Receiver) -> None:
    tree = receiver.put("tree", entry("100644", "f", receiver.put("blob", b"x")))
    for _ in range(2500):  # twice as many characters, more than the kernel takes
        tree = receiver.put("tree", entry("40000", "a", tree))

    assert receiver.push(receiver.commit(tree)) < 40 * MIB
    assert receiver.kept() < 16 * MIB
