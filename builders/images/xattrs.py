"""Extended attributes a layer carries, and file capabilities inside user namespaces.

A capability set inside a user namespace is stored as version 3 with the host id
of that namespace's root (capabilities(7), "Namespaced file capabilities");
images carry version 2, which has no such id.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping

CAPABILITY = "security.capability"
OPAQUE = "trusted.overlay.opaque"

_OVERLAY = "trusted.overlay."
# What overlayfs notes in an upper directory and a lower one may keep.
_OVERLAY_NOTES = frozenset(
    f"{_OVERLAY}{name}" for name in ("opaque", "impure", "origin", "uuid", "nlink", "protattr")
)
_REVISION_MASK = 0xFF000000
_VERSION_2 = 0x02000000
_VERSION_3 = 0x03000000
_LONGEST = 64 * 1024


class UnusableXattr(Exception):
    """An attribute that makes the tree mean something a tar cannot say."""


def is_portable(name: str) -> bool:
    """Whether a layer carries this attribute; all others are left out, as docker does."""
    return name == CAPABILITY or (name.startswith("user.") and not name.startswith("user.overlay."))


def read_portable(fd: int, base: int) -> dict[bytes, bytes]:
    """The attributes of an open file of a tree whose uid 0 is the host's ``base``.

    What a layer cannot carry is taken off the file, so that the tree in the store
    and the tar are the same thing. Raises UnusableXattr.
    """
    found: dict[bytes, bytes] = {}
    for name in sorted(os.listxattr(fd)):
        if name.startswith(_OVERLAY):
            if name not in _OVERLAY_NOTES:
                raise UnusableXattr(name)
        elif not is_portable(name):
            _remove(fd, name)
        else:
            value = os.getxattr(fd, name)
            if name == CAPABILITY:
                natural = capability_from_tree(value, base)
                if natural is None:
                    _remove(fd, name)
                    continue
                value = natural
            found[os.fsencode(name)] = value
    return found


def _remove(fd: int, name: str) -> None:
    # Security modules own some attributes (security.selinux) and refuse; those are never layered.
    if not name.startswith("security.") or name == CAPABILITY:
        os.removexattr(fd, name)


def capability_from_tree(value: bytes, base: int) -> bytes | None:
    """Version 2 of a capability found on disk; None if it belongs to another namespace."""
    magic = struct.unpack_from("<I", value)[0] if len(value) >= 4 else 0
    if magic & _REVISION_MASK == _VERSION_2 and len(value) == 20:
        return value if base == 0 else None
    if magic & _REVISION_MASK == _VERSION_3 and len(value) == 24:
        root = struct.unpack_from("<I", value, 20)[0]
        version_2 = struct.pack("<I", (magic & ~_REVISION_MASK) | _VERSION_2) + value[4:20]
        return version_2 if root == base else None
    return None


def set_portable(fd: int, xattrs: Mapping[bytes, bytes], base: int) -> None:
    """Put a tar member's attributes on an open file; those no layer carries are ignored."""
    for raw, value in xattrs.items():
        name = os.fsdecode(raw)
        if not is_portable(name) or len(value) > _LONGEST or len(raw) > 255:
            continue
        if name == CAPABILITY:
            shown = capability_for_tree(value, base)
            if shown is None:
                continue
            value = shown  # noqa: PLW2901
        os.setxattr(fd, name, value)


def capability_for_tree(value: bytes, base: int) -> bytes | None:
    """How a tar's capability is stored in a tree with this base; None if it is malformed."""
    natural = capability_from_tree(value, 0)
    if natural is None or base == 0:
        return natural
    magic = struct.unpack_from("<I", natural)[0]
    version_3 = (magic & ~_REVISION_MASK) | _VERSION_3
    return struct.pack("<I", version_3) + natural[4:20] + struct.pack("<I", base)
