"""The visible entries of a context as a tree: lookup, symlinks, wildcards, nearest names.

Symlinks are resolved inside the context, as if it were the root directory of
the world; nothing here touches a file system.
"""

from __future__ import annotations

import difflib
import fnmatch
import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from builders.context import Context, Entry, Kind
from builders.context.globs import STAR, one_way
from builders.context.ignore import Ignore
from builders.context.recent import Recent
from builders.errors import ContextError

ROOT = Entry("", Kind.FOLDER, 0o755)
_MAX_LINKS = 40
_WILD = re.compile(r"[*?\[]")


@dataclass(slots=True)
class _Seen:
    """The visible entries by path, the sorted paths in each folder, and digests as they are
    asked for: of one identity they are always the same."""

    nodes: dict[str, Entry] = field(default_factory=dict)
    children: dict[str, list[str]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)


_RECENT: Recent[_Seen] = Recent()


class ContextTree:
    """One context seen through its ignore rules. Built once per build, lazily.

    ``check`` is called before a file is read for its hash alone, and what it raises ends that.
    """

    def __init__(
        self,
        context: Context,
        ignore: Callable[[], Ignore],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.context = context
        self._ignore = ignore
        self._check = check
        self._lock = threading.Lock()
        self._seen: _Seen | None = None

    def get(self, path: str) -> Entry | None:
        """The entry at a clean relative path; the last component is not followed."""
        return ROOT if not path else self._load().nodes.get(path)

    def resolve(self, path: str, seen: list[Entry] | None = None) -> Entry | None:
        """Like ``get`` for any spelling of a path, following every symlink.

        ``seen`` is given the links on the way.
        """
        parts = [part for part in path.split("/") if part not in {"", "."}]
        done: list[str] = []
        links = 0
        while parts:
            part = parts.pop(0)
            if part == "..":
                done = done[:-1]
                continue
            entry = self.get("/".join([*done, part]))
            if entry is None:
                return None
            if entry.kind is not Kind.SYMLINK:
                done.append(part)
                continue
            links += 1
            if seen is not None:
                seen.append(entry)
            if links > _MAX_LINKS:
                raise ContextError(
                    f"Too many symbolic links in {path!r}.", code="context.symlink-loop"
                )
            target = self.link_target(entry)
            if target.startswith("/"):
                done = []
            parts = [p for p in target.split("/") if p not in {"", "."}] + parts
        return self.get("/".join(done))

    def last_link(self, path: str) -> tuple[str, str] | None:
        """(path, target) of the last symlink that is followed on the way to ``path``."""
        seen: list[Entry] = []
        self.resolve(path, seen)
        return (seen[-1].path, self.link_target(seen[-1])) if seen else None

    def match(self, pattern: str) -> list[str]:
        """Paths that a wildcard pattern names, sorted (Go's filepath.Match per component)."""
        parts = [part for part in pattern.split("/") if part not in {"", "."}]
        found = [""]
        for part in parts:
            found = [path for base in found for path in self._step(base, part)]
        return sorted(found)

    def under(self, folder: Entry) -> Iterator[tuple[str, Entry]]:
        """(path relative to the folder, entry) of all below it, folders first, sorted."""
        seen = self._load()
        nodes = seen.nodes
        skip = len(folder.path) + 1 if folder.path else 0
        stack = [folder.path]
        while stack:
            path = stack.pop()
            if path != folder.path:
                yield path[skip:], nodes[path]
            stack.extend(reversed(seen.children.get(path, ())))

    def link_target(self, entry: Entry) -> str:
        data = b"".join(b"".join(chunks) for _, chunks in self.context.read([entry]))
        return data.decode("utf-8", "surrogateescape")

    def digest(self, entry: Entry, hidden: Callable[[str], bool] | None = None) -> str:
        """Content, kinds, modes and hard links of an entry and all below it, as a hex digest.

        ``hidden`` tells which relative paths below a folder do not count.
        """
        if hidden is not None or not self.context.identity:
            return self._digest(entry, hidden)
        known = self._load().digests
        if entry.path not in known:
            known[entry.path] = self._digest(entry, None)
        return known[entry.path]

    def _digest(self, entry: Entry, hidden: Callable[[str], bool] | None) -> str:
        lines = [self._line("", entry)]
        firsts: dict[tuple[int, int], str] = {}
        for name, child in self.under(entry) if entry.kind is Kind.FOLDER else ():
            if hidden is None or not hidden(name):
                lines.append(self._line(name, child))
                if child.twin and firsts.setdefault(child.twin, name) != name:
                    lines.append(f"twin {firsts[child.twin]}")
        return hashlib.sha256("\0".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

    def nearest(self, path: str, count: int = 3) -> list[str]:
        """Names most like ``path``: first beside it, then anywhere."""
        seen = self._load()
        nodes = seen.nodes
        clean = path.strip("/")
        folder = clean.rpartition("/")[0]
        beside = seen.children.get(folder, [])
        close = difflib.get_close_matches(clean, beside, n=count, cutoff=0.4)
        if not close:
            name = clean.rpartition("/")[2]
            close = [p for p in nodes if p.rpartition("/")[2] == name][:count]
        if not close:
            close = difflib.get_close_matches(clean, list(nodes)[:5000], n=count, cutoff=0.6)
        return close

    def _line(self, name: str, entry: Entry) -> str:
        if not entry.token:
            self._check()
        content = "" if entry.kind is Kind.FOLDER else self.context.digest(entry)
        return f"{entry.kind.value} {entry.mode} {content} {name}"

    def _step(self, base: str, part: str) -> list[str]:
        children = self._load().children
        folder = self.resolve(base)
        if part == "..":
            return [base.rpartition("/")[0]]
        if folder is None or folder.kind is not Kind.FOLDER:
            return []
        prefix = f"{base}/" if base else ""
        if not _WILD.search(part):
            plain = part.replace("\\", "")
            return [prefix + plain] if self.resolve(prefix + plain) else []
        matches = name_matcher(part)
        names = [child.rpartition("/")[2] for child in children.get(folder.path, ())]
        return [prefix + name for name in names if matches.match(name)]

    def _load(self) -> _Seen:
        with self._lock:
            if self._seen is None:
                self._seen = self._look()
            return self._seen

    def _look(self) -> _Seen:
        entries, ignore = self.context.entries(), self._ignore()
        key = (self.context.identity, ignore.identity)
        known = _RECENT.get(key)
        if known is not None:
            return known
        seen = _Seen()
        for entry in ignore.filter(entries):
            seen.nodes[entry.path] = entry
            seen.children.setdefault(entry.path.rpartition("/")[0], []).append(entry.path)
        for names in seen.children.values():
            names.sort()
        if self.context.identity:
            _RECENT.keep(key, seen, len(seen.nodes))
        return seen


def read_file(context: Context, path: str, limit: int) -> bytes | None:
    """A file of the context, whatever its ignore rules; None when there is none.

    Raises ContextError for one of more than ``limit`` bytes.
    """
    entry = ContextTree(context, lambda: Ignore.parse(b"")).resolve(path)
    if entry is None or entry.kind is not Kind.FILE:
        return None
    data = bytearray()
    for _, chunks in context.read([entry]):
        for chunk in chunks:
            data += chunk
            if len(data) > limit:
                raise ContextError(f"{path} is larger than {limit} bytes.", code="context.size")
    return bytes(data)


def has_wildcard(path: str) -> bool:
    return bool(_WILD.search(path))


@lru_cache(maxsize=256)
def name_matcher(pattern: str) -> re.Pattern[str]:
    """Go's filepath.Match of one component: ``*``, ``?``, ``[a-z]``, ``[^a]``, ``\\x``."""
    pieces: list[str] = []
    i = 0
    while i < len(pattern):
        char = pattern[i]
        i += 1
        if char == "\\" and i < len(pattern):
            pieces.append(re.escape(pattern[i]))
            i += 1
        elif char == "[" and (end := pattern.find("]", i + 1)) > 0:
            sign = "^" if pattern[i] == "^" else ""
            body = re.escape(pattern[i + len(sign) : end]).replace("\\-", "-")
            pieces.append(f"[{sign}{body}]")
            i = end + 1
        else:
            pieces.append({"*": STAR, "?": "[^/]"}.get(char, re.escape(char)))
    try:
        return re.compile(one_way(pieces) + r"\Z", re.DOTALL)
    except re.error:
        return re.compile(fnmatch.translate(re.escape(pattern)))
