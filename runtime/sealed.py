"""A program from memory that nothing can write to, for runc.

runc makes such a copy of itself for each container (CVE-2019-5736), or binds itself read-only:
a mount, and an unmount that waits for every processor. Started from a sealed memfd it sees that
it is one (memfd_create(2), fcntl(2) "File Sealing"; runc's ``is_self_cloned``) and does neither.
"""

from __future__ import annotations

import fcntl
import os
from functools import lru_cache
from pathlib import Path

_MFD_EXEC = 0x10  # Linux 6.3; needed where vm.memfd_noexec is 1
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def sealed(program: Path) -> str:
    """A path, good for as long as this process lives, of ``program`` as it is now; its own where
    there can be no copy."""
    try:
        status = program.stat()
        fd = _copy(program, status.st_ctime_ns, status.st_size)
    except OSError:
        return str(program)
    return f"/proc/{os.getpid()}/fd/{fd}"  # a forked child has the descriptor, too


@lru_cache(maxsize=4)
def _copy(program: Path, changed: int, size: int) -> int:
    """The descriptor; another one for a program that was replaced on disk."""
    data = memoryview(program.read_bytes())
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create(program.name, flags | _MFD_EXEC)
    except OSError:
        fd = os.memfd_create(program.name, flags)
    try:
        while data:
            data = data[os.write(fd, data) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        os.fchmod(fd, 0o500)
    except BaseException:
        os.close(fd)
        raise
    return fd
