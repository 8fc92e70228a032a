"""File trees as plain values: {path: [kind, mode, uid, gid, content or target]}."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

Tree = dict[str, list[object]]
# What a builder's sandbox mounts over: docker leaves empty stubs there, and we do not.
STUBS = {"dev", "proc", "sys", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab"}


def tree_on_disk(root: Path, base: int) -> Tree:
    """A mounted root; ``base`` is the host's id of its uid 0."""
    found: Tree = {}
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = Path(folder) / name
            status = path.lstat()
            key = str(path.relative_to(root))
            mode = f"{stat.S_IMODE(status.st_mode):04o}"
            owner = [status.st_uid - base, status.st_gid - base]
            if stat.S_ISLNK(status.st_mode):
                found[key] = ["link", "0777", *owner, str(path.readlink())]
            elif stat.S_ISDIR(status.st_mode):
                found[key] = ["folder", mode, *owner, ""]
            elif stat.S_ISREG(status.st_mode):
                found[key] = ["file", mode, *owner, _content(path.read_bytes())]
            else:
                found[key] = ["other", mode, *owner, ""]
    return found


def tree_of_archive(archive: IO[bytes], skip: int) -> tuple[Tree, Tree]:
    """``docker save``: (the whole flattened, the first ``skip`` layers flattened)."""
    with tarfile.open(fileobj=archive) as outer:
        manifest = json.load(_member(outer, "manifest.json"))[0]
        whole: Tree = {}
        below: Tree = {}
        for number, name in enumerate(manifest["Layers"]):
            if number == skip:
                below = dict(whole)
            with tarfile.open(fileobj=_member(outer, name)) as layer:
                _apply(layer, whole)
        return whole, below if len(manifest["Layers"]) > skip else dict(whole)


def difference(tree: Tree, base: Tree) -> Tree:
    """What differs from ``base``; a removed path has the kind ``gone``."""
    changed = {path: entry for path, entry in tree.items() if base.get(path) != entry}
    gone: Tree = {path: ["gone"] for path in base if path not in tree}
    return {p: e for p, e in sorted({**changed, **gone}.items()) if p not in STUBS}


def config_part(config: Mapping[str, object]) -> dict[str, object]:
    """The fields of an image config that a Dockerfile decides."""
    names = (
        "Env", "Cmd", "Entrypoint", "User", "WorkingDir", "Labels", "ExposedPorts", "Volumes",
        "StopSignal", "Healthcheck", "Shell", "OnBuild",
    )  # fmt: skip
    return {name: config[name] for name in names if config.get(name)}


def _member(outer: tarfile.TarFile, name: str) -> IO[bytes]:
    stream = outer.extractfile(name)
    assert stream is not None
    return stream


def _apply(layer: tarfile.TarFile, tree: Tree) -> None:
    fresh: set[str] = set()
    for member in layer:
        path = member.name.strip("/").removeprefix("./")
        if not path or path == ".":
            continue
        folder, _, name = path.rpartition("/")
        if name == ".wh..wh..opq":
            _remove(tree, folder, fresh, itself=False)
        elif name.startswith(".wh."):
            _remove(tree, "/".join(filter(None, [folder, name[4:]])), fresh, itself=True)
        else:
            if not member.isdir():
                _remove(tree, path, fresh, itself=True)
            tree[path] = _entry(layer, member, tree)
            fresh.add(path)


def _remove(tree: Tree, path: str, fresh: set[str], *, itself: bool) -> None:
    for key in list(tree):
        hit = (key == path and itself) or key.startswith(path + "/")
        if hit and key not in fresh:
            del tree[key]


def _entry(layer: tarfile.TarFile, member: tarfile.TarInfo, tree: Tree) -> list[object]:
    owner = [member.uid, member.gid]
    mode = f"{member.mode & 0o7777:04o}"
    if member.issym():
        return ["link", "0777", *owner, member.linkname]
    if member.isdir():
        return ["folder", mode, *owner, ""]
    if member.islnk():
        return tree[member.linkname.strip("/").removeprefix("./")]
    if member.isreg():
        stream = layer.extractfile(member)
        assert stream is not None
        return ["file", mode, *owner, _content(stream.read())]
    return ["other", mode, *owner, ""]


def _content(data: bytes) -> str:
    try:
        text = data.decode()
        if len(text) <= 200 and "\0" not in text:
            return text
    except UnicodeDecodeError:
        pass
    return "sha256:" + hashlib.sha256(data).hexdigest()
