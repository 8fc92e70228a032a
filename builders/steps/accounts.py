"""User and group names as the image's own /etc/passwd and /etc/group have them.

The files are the image's, so they are read inside its root and with a cap;
a line that makes no sense is passed over, as libc does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from builders.errors import UserError
from runtime.errors import SpecError
from runtime.paths import read_in_root
from runtime.spec import User

_MAX_BYTES = 4 * 1024 * 1024
_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Account:
    user: User
    home: str = "/"


def find_account(root_fd: int, text: str) -> Account:
    """``name``, ``uid``, ``name:group`` or ``uid:gid`` -> ids and home; "" is root.

    Raises UserError for a name the image does not have.
    """
    name, _, group = text.partition(":")
    name = name or "0"
    entry = _passwd(root_fd, name)
    if entry is None and not name.isdecimal():
        raise UserError(
            f"The image has no user {name!r}.",
            hint="Create it first, or use a number.",
            code="image.user",
        )
    uid = _number(name if entry is None else entry[2])
    gid = 0 if entry is None else _number(entry[3])
    if group:
        gid = find_group(root_fd, group)
        return Account(User(uid=uid, gid=gid, groups=(gid,)), _home(entry))
    groups = () if entry is None else tuple(_memberships(root_fd, entry[0], gid))
    return Account(User(uid=uid, gid=gid, groups=groups), _home(entry))


def find_owner(root_fd: int, text: str) -> tuple[int, int]:
    """``--chown``: (uid, gid); a user alone means the group of the same number or its own."""
    name, sep, group = text.partition(":")
    if name.isdecimal():
        uid = _number(name)
        gid = uid
    else:
        user = find_account(root_fd, name).user
        uid, gid = user.uid, user.gid
    if sep and group:
        gid = find_group(root_fd, group)
    return uid, gid


def find_group(root_fd: int, name: str) -> int:
    if name.isdecimal():
        return _number(name)
    for fields in _lines(root_fd, "/etc/group", 4):
        if fields[0] == name and fields[2].isdecimal():
            return _number(fields[2])
    raise UserError(
        f"The image has no group {name!r}.",
        hint="Create it first, or use a number.",
        code="image.group",
    )


def _passwd(root_fd: int, name: str) -> list[str] | None:
    found = None
    for fields in _lines(root_fd, "/etc/passwd", 7):
        if not (fields[2].isdecimal() and fields[3].isdecimal()):
            continue
        if fields[0] == name:
            return fields
        if found is None and name.isdecimal() and fields[2] == name:
            found = fields
    return found


def _memberships(root_fd: int, name: str, gid: int) -> Iterator[int]:
    for fields in _lines(root_fd, "/etc/group", 4):
        if name in fields[3].split(",") and fields[2].isdecimal() and _number(fields[2]) != gid:
            yield _number(fields[2])


def _lines(root_fd: int, path: str, count: int) -> Iterator[list[str]]:
    try:
        data = read_in_root(root_fd, path, _MAX_BYTES)
    except (OSError, SpecError):
        return
    for line in data.decode("utf-8", "replace").splitlines():
        fields = line.split(":")
        if len(fields) >= count:
            yield fields


def _number(digits: str) -> int:
    """An id; whoever checks its range sees one beyond it. Python refuses thousands of digits."""
    return int(digits[:_DIGITS])


def _home(entry: list[str] | None) -> str:
    return entry[5] if entry and entry[5].startswith("/") else "/"
