"""Where the output of a program waits until it is read: two pipes.

A sandbox's are FIFOs in its box, so that whoever reads them may be killed and nothing is lost.
The OCI runtime has them open for reading too: no writer ever gets SIGPIPE. What comes is moved
into a plain file beside the FIFO, by splice(2), before it is read there: at any moment a byte is
in the one or in the other, in their order, and never in a process's memory alone.

    box/stdout.fifo stderr.fifo    what nobody has moved yet
        stdout stderr              all that was written before that; absent when there is nothing
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

CHUNK = 64 * 1024
NAMES = ("stdout", "stderr")
MOST_LEFT = 1024 * 1024  # bytes in a FIFO and in the OCI runtime, at the very most


class Outlets:
    """The pipes of one program: stdout's, then stderr's."""

    def __init__(self, readers: Sequence[int], writers: Sequence[int]) -> None:
        self.readers = tuple(readers)  # they do not block
        self.writers = list(writers)  # for the program; closed here as soon as it has them

    def close_writers(self) -> None:
        while self.writers:
            os.close(self.writers.pop())

    def read(self, fd: int) -> bytes:
        """What there is to read from one of the ``readers``; nothing at its end."""
        return os.read(fd, CHUNK)

    def stop_keeping(self) -> None:
        """What is read from here on will be dropped."""

    def discard(self) -> None:
        """Drop what is there now, so that no writer waits for room."""
        for fd in self.readers:
            with suppress(BlockingIOError):
                for _ in range(MOST_LEFT // CHUNK):
                    os.read(fd, CHUNK)


class KeptOutlets(Outlets):
    """Those of a sandbox, in the ``folder`` of its box."""

    def __init__(
        self, folder: Path, stack: ExitStack, readers: Sequence[int], writers: Sequence[int]
    ) -> None:
        super().__init__(readers, writers)
        self._folder = folder
        self._stack = stack
        self._files: dict[int, tuple[int, int]] = {}  # by reader: the file, and its length
        self._keeps = True

    def read(self, fd: int) -> bytes:
        if not self._keeps:
            return super().read(fd)
        file, length = self._files.get(fd) or (self._open_file(fd), 0)
        count = _move(fd, file)
        self._files[fd] = (file, length + count)
        return os.pread(file, count, length)

    def _open_file(self, fd: int) -> int:
        file = _open_file(self._folder / NAMES[self.readers.index(fd)])
        self._stack.callback(os.close, file)
        return file

    def stop_keeping(self) -> None:
        """A reaper must add nothing either: there would be a gap."""
        self._keeps = False
        for name in NAMES:
            _fifo(self._folder, name).unlink(missing_ok=True)


@contextmanager
def pipes() -> Iterator[Outlets]:
    """Pipes that are gone with this process, and all that is in them."""
    with ExitStack() as stack:
        ends = []
        for _ in NAMES:
            ends.append(os.pipe2(os.O_CLOEXEC))
            stack.callback(os.close, ends[-1][0])
            os.set_blocking(ends[-1][0], False)
        outlets = Outlets([reader for reader, _ in ends], [writer for _, writer in ends])
        stack.callback(outlets.close_writers)
        yield outlets


@contextmanager
def kept(folder: Path) -> Iterator[Outlets]:
    """FIFOs in a box. They and the files are removed with it."""
    with ExitStack() as stack:
        readers = []
        for name in NAMES:
            os.mkfifo(_fifo(folder, name), 0o600)
            readers.append(_open_fifo(folder, name))
            stack.callback(os.close, readers[-1])
        outlets = KeptOutlets(folder, stack, readers, [])
        stack.callback(outlets.close_writers)
        for name in NAMES:
            outlets.writers.append(os.open(_fifo(folder, name), os.O_RDWR | os.O_CLOEXEC))
        yield outlets


class Rest:
    """What is left in the FIFOs of a box whose owner is dead."""

    def __init__(self, ends: Sequence[tuple[int, int]]) -> None:
        self._ends = ends  # each FIFO and its file
        self.readers = [fifo for fifo, _ in ends]

    def move(self) -> bool:
        """Move what is there now into the files; whether that was all and nobody writes more."""
        ended = [_move_all(fifo, file) for fifo, file in self._ends]  # of both, each time
        return all(ended)


@contextmanager
def rest_of(folder: Path) -> Iterator[Rest]:
    """Where there are no FIFOs (any more), nothing is left."""
    with ExitStack() as stack:
        ends = []
        for name in NAMES:
            with suppress(FileNotFoundError):
                fifo = _open_fifo(folder, name)
                stack.callback(os.close, fifo)
                file = _open_file(folder / name)
                stack.callback(os.close, file)
                ends.append((fifo, file))
        yield Rest(ends)


def _fifo(folder: Path, name: str) -> Path:
    return folder / f"{name}.fifo"


def _open_fifo(folder: Path, name: str) -> int:
    return os.open(_fifo(folder, name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _open_file(path: Path) -> int:
    """At its end; not O_APPEND, which splice(2) refuses."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.lseek(file, 0, os.SEEK_END)
    return file


def _move(fifo: int, file: int) -> int:
    """Killed at any moment, each byte is in one of the two. Raises BlockingIOError."""
    return os.splice(fifo, file, CHUNK, flags=os.SPLICE_F_NONBLOCK)


def _move_all(fifo: int, file: int) -> bool:
    moved = 0
    with suppress(BlockingIOError):
        while moved < MOST_LEFT:
            count = _move(fifo, file)
            if count == 0:
                return True
            moved += count
    return False
