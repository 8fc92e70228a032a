"""Build contexts: what COPY and ADD may read, as entries with content hashes.

A context is a commit (``GitContext``) or a folder (``FolderContext``). Neither
is ever checked out or copied whole: entries are listed once, and bytes are read
only for what a step that is not cached really needs.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol


class Kind(enum.Enum):
    """What an entry is. No context has a FIFO: only stages and images do."""

    FILE = "file"
    FOLDER = "folder"
    SYMLINK = "symlink"
    FIFO = "fifo"


class Entry(NamedTuple):
    """One path of a context.

    ``path`` is relative and posix, undecodable bytes as surrogates; ``mode`` the
    permission bits; ``token`` names the content for this context alone (a git
    object id), empty where the content was not looked at yet; ``twin`` is equal for hard
    links of one file, None for a file that has no other name.
    """

    path: str
    kind: Kind
    mode: int
    token: str = ""
    twin: tuple[int, int] | None = None


class Context(Protocol):
    """Where files come from. Any method may be called from several threads.

    ``entries`` lists everything but the root, folders before what is in them.
    ``digest`` is equal only for equal content. ``read`` yields each file's or
    symlink's bytes, in the order asked, in chunks that must be used up before
    the next is asked for. ``notices`` tells what a person would expect in the context
    and will not find. Two contexts of the same ``identity`` hold the same for ever; it is
    empty where the content may change. Whoever opened the context closes it.
    """

    @property
    def identity(self) -> str: ...

    @property
    def notices(self) -> Sequence[str]: ...

    def entries(self) -> Iterable[Entry]: ...

    def digest(self, entry: Entry) -> str: ...

    def read(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, Iterator[bytes]]]: ...

    def close(self) -> None: ...
