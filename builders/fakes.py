"""A build context in memory, for tests of what reads contexts: it keeps every promise of one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping

from builders.context import Entry, Kind


class MemoryContext:
    """``files`` maps paths to bytes, or to a text: the target of a symbolic link.

    Folders above them are there too. ``reads`` counts how often each path was read.
    """

    identity = ""

    def __init__(self, files: Mapping[str, bytes | str]) -> None:
        self._files = dict(files)
        self.notices: list[str] = []
        self.reads: dict[str, int] = {}

    def entries(self) -> list[Entry]:
        found: dict[str, Entry] = {}
        for path, content in self._files.items():
            parts = path.split("/")
            for depth in range(1, len(parts)):
                folder = "/".join(parts[:depth])
                found[folder] = Entry(folder, Kind.FOLDER, 0o755)
            link = isinstance(content, str)
            found[path] = Entry(path, Kind.SYMLINK if link else Kind.FILE, 0o777 if link else 0o644)
        return [found[path] for path in sorted(found, key=lambda path: path.split("/"))]

    def digest(self, entry: Entry) -> str:
        return hashlib.sha256(self._content(entry)).hexdigest()

    def read(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, Iterator[bytes]]]:
        for entry in entries:
            self.reads[entry.path] = self.reads.get(entry.path, 0) + 1
            yield entry, iter([self._content(entry)])

    def close(self) -> None:
        pass

    def _content(self, entry: Entry) -> bytes:
        content = self._files[entry.path]
        return content.encode() if isinstance(content, str) else content
