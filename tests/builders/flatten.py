"""File trees as plain values: {path: [kind, mode, uid, gid, content or target or device, extras]}.

The extras are there where a file has any: ``links``, all paths of the same inode, and ``xattrs``
with their values in hexadecimal.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tarfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from builders.images.xattrs import CAPABILITY, capability_from_tree

Tree = dict[str, list[object]]
# What a builder's sandbox mounts over: docker leaves empty stubs there, and we do not.
STUBS = {"dev", "proc", "sys", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab"}


def tree_on_disk(root: Path, base: int) -> Tree:
    """A mounted root; ``base`` is the host's id of its uid 0."""
    found: Tree = {}
    inodes: dict[tuple[int, int], list[object]] = {}
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = Path(folder) / name
            status = path.lstat()
            entry = _entry_on_disk(path, status, base)
            if not stat.S_ISDIR(status.st_mode):
                entry = inodes.setdefault((status.st_dev, status.st_ino), entry)
            found[str(path.relative_to(root))] = entry
    return _with_links(found)


def _entry_on_disk(path: Path, status: os.stat_result, base: int) -> list[object]:
    mode, owner = status.st_mode, [status.st_uid - base, status.st_gid - base]
    bits = f"{stat.S_IMODE(mode):04o}"
    if stat.S_ISLNK(mode):
        return ["link", "0777", *owner, str(path.readlink())]
    if stat.S_ISFIFO(mode):
        return ["fifo", bits, *owner, ""]
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        kind = "char" if stat.S_ISCHR(mode) else "block"
        return [kind, bits, *owner, f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"]
    xattrs = {}
    for name in os.listxattr(path):
        value = os.getxattr(path, name)
        xattrs[name] = capability_from_tree(value, base) or b"" if name == CAPABILITY else value
    if stat.S_ISDIR(mode):
        return _with_xattrs(["folder", bits, *owner, ""], xattrs)
    assert stat.S_ISREG(mode), path
    return _with_xattrs(["file", bits, *owner, _content(path.read_bytes())], xattrs)


def image_of_archive(archive: IO[bytes], below: Sequence[str]) -> dict[str, Any]:
    """``docker save``: {config, tree} as ``expected.json`` has it, where ``below`` are the diff
    ids of the base's layers."""
    with tarfile.open(fileobj=archive) as outer:
        manifest = json.load(_member(outer, "manifest.json"))[0]
        document = json.load(_member(outer, manifest["Config"]))
        on_base = document["rootfs"]["diff_ids"][: len(below)] == list(below)
        trees: list[Tree] = [{}]
        for name in manifest["Layers"]:
            trees.append(dict(trees[-1]))
            with tarfile.open(fileobj=_member(outer, name)) as layer:
                _apply(layer, trees[-1])
    idle = [not difference(after, before) for before, after in pairwise(trees)]
    base = trees[len(below)] if on_base else {}
    return {
        "config": config_part(_without_idle_layers(document, idle), on_base=on_base),
        "tree": difference(_with_links(trees[-1]), _with_links(base)),
    }


def _without_idle_layers(document: dict[str, Any], idle: Sequence[bool]) -> dict[str, Any]:
    """Docker makes a layer of a RUN that changes no file; here there is none of it."""
    layers = iter(idle)
    lines = [
        {**line, "empty_layer": line.get("empty_layer") or next(layers)}
        for line in document.get("history", ())
    ]
    return {**document, "history": lines}


def difference(tree: Tree, base: Tree) -> Tree:
    """What differs from ``base``; a removed path has the kind ``gone``."""
    changed = {path: entry for path, entry in tree.items() if base.get(path) != entry}
    gone: Tree = {path: ["gone"] for path in base if path not in tree}
    return {p: e for p, e in sorted({**changed, **gone}.items()) if p not in STUBS}


def config_part(document: Mapping[str, Any], *, on_base: bool) -> dict[str, object]:
    """What a Dockerfile decides of an image's config: its fields, the author, and of its history
    whether each line made a layer. The base's one line of history is left out."""
    names = (
        "Env", "Cmd", "Entrypoint", "User", "WorkingDir", "Labels", "ExposedPorts", "Volumes",
        "StopSignal", "Healthcheck", "Shell", "OnBuild",
    )  # fmt: skip
    config = document["config"]
    found: dict[str, object] = {name: config[name] for name in names if config.get(name)}
    if document.get("author"):
        found["Author"] = document["author"]
    lines = document.get("history", [])[1 if on_base else 0 :]
    found["History"] = ["empty" if line.get("empty_layer") else "layer" for line in lines]
    return found


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
    if member.islnk():
        return tree[member.linkname.strip("/").removeprefix("./")]
    if member.isfifo():
        return ["fifo", mode, *owner, ""]
    if member.isdev():
        kind = "char" if member.ischr() else "block"
        return [kind, mode, *owner, f"{member.devmajor}:{member.devminor}"]
    prefix = "SCHILY.xattr."
    xattrs = {
        key.removeprefix(prefix): value.encode("utf-8", "surrogateescape")
        for key, value in member.pax_headers.items()
        if key.startswith(prefix)
    }
    if member.isdir():
        return _with_xattrs(["folder", mode, *owner, ""], xattrs)
    stream = layer.extractfile(member)
    assert stream is not None, member
    return _with_xattrs(["file", mode, *owner, _content(stream.read())], xattrs)


def _with_xattrs(entry: list[object], xattrs: Mapping[str, bytes]) -> list[object]:
    shown = {name: value.hex() for name, value in sorted(xattrs.items())}
    return [*entry, {"xattrs": shown}] if shown else entry


def _with_links(tree: Tree) -> Tree:
    """The tree with the paths of each inode, which here is one list that they share."""
    paths: dict[int, list[str]] = {}
    for path in sorted(tree):
        paths.setdefault(id(tree[path]), []).append(path)
    shown = dict(tree)
    for group in paths.values():
        if len(group) > 1:
            *entry, last = tree[group[0]]
            extras = last if isinstance(last, dict) else {}
            plain = entry if isinstance(last, dict) else [*entry, last]
            for path in group:
                shown[path] = [*plain, {**extras, "links": group}]
    return shown


def _content(data: bytes) -> str:
    try:
        text = data.decode()
        if len(text) <= 200 and "\0" not in text:
            return text
    except UnicodeDecodeError:
        pass
    return "sha256:" + hashlib.sha256(data).hexdigest()
