"""``RUN --mount=...``: the value of the flag as a dataclass.

Unknown keys and types are refused: a mount that silently means less than it
says is how builders were escaped (CVE-2024-1753, CVE-2024-9407).
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass

from builders.dockerfile.flags import nearest
from builders.dockerfile.instructions import Position
from builders.errors import DockerfileError

_KEYS = {
    "bind": {"target", "source", "from", "rw"},
    "cache": {"target", "id", "sharing", "from", "source", "mode", "uid", "gid", "ro"},
    "tmpfs": {"target", "size"},
    "secret": {"target", "id", "required", "mode", "uid", "gid", "env"},
    "ssh": {"target", "id", "required", "mode", "uid", "gid"},
}
_ALIASES = {"dst": "target", "destination": "target", "src": "source"}
_SIZES = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


MOST_ID = 65535
# Stages are known before anything is expanded; BuildKit refuses the same.
FROM_BY_STAGE = "Name a stage for it: FROM $IMAGE AS name, with the ARG before the first FROM."


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMount:
    """One mount of a RUN step. ``size`` is bytes; ``mode`` None means the type's default."""

    kind: str
    target: str = ""
    source: str = ""
    origin: str = ""  # the value of from=: a stage or an image
    id: str = ""
    sharing: str = "shared"
    required: bool = False
    env: str = ""
    read_only: bool = False
    size: int = 0
    mode: int | None = None
    uid: int = 0
    gid: int = 0

    @property
    def secret_name(self) -> str:
        return self.id or self.target.rpartition("/")[2]

    @property
    def agent(self) -> str:
        """The id of the SSH agent of a mount of that type."""
        return self.id or "default"


def parse_mount(value: str, at: Position, expand: Callable[[str], str] = str) -> RunMount:
    """Raise DockerfileError for anything that is not understood in full."""
    fields = _fields(value, at)
    kind = fields.pop("type", "bind")
    if kind not in _KEYS:
        raise _error(
            f"RUN --mount=type={kind} is not supported.",
            at,
            f"Gantry knows the types {', '.join(sorted(_KEYS))}.",
        )
    if "$" in fields.get("from", ""):
        raise _error("from= of a mount takes no variables.", at, FROM_BY_STAGE)
    fields = {key: expand(text) for key, text in fields.items()}
    for key in fields:
        if key not in _KEYS[kind]:
            hint = nearest(key, _KEYS[kind])
            raise _error(f"A mount of type {kind} has no option {key!r}.", at, hint)
    return _checked(kind, fields, at)


def _checked(kind: str, fields: dict[str, str], at: Position) -> RunMount:
    target = fields.get("target", "")
    if not target and kind not in {"secret", "ssh"}:
        raise _error(f"A mount of type {kind} needs target=PATH.", at)
    if kind == "secret" and not target and not fields.get("id"):
        raise _error("A secret mount needs id=NAME.", at)
    if kind == "cache" and fields.get("source") and not fields.get("from"):
        raise _error(
            "source= of a cache mount needs from=.", at, "It names a folder of that stage or image."
        )
    sharing = fields.get("sharing", "shared")
    if sharing not in {"shared", "private", "locked"}:
        raise _error(f"Sharing is shared, private or locked, not {sharing!r}.", at)
    writable = _flag(fields.get("rw", "false"), at)
    return RunMount(
        kind=kind,
        target=target,
        source=fields.get("source", ""),
        origin=fields.get("from", ""),
        id=fields.get("id", ""),
        sharing=sharing,
        required=_flag(fields.get("required", "false"), at),
        env=fields.get("env", ""),
        read_only=not writable if kind == "bind" else _flag(fields.get("ro", "false"), at),
        size=_size(fields.get("size", "0"), at),
        mode=_number(fields["mode"], at, 8, most=0o7777) if "mode" in fields else None,
        uid=_number(fields.get("uid", "0"), at, most=MOST_ID),
        gid=_number(fields.get("gid", "0"), at, most=MOST_ID),
    )


def _fields(value: str, at: Position) -> dict[str, str]:
    fields: dict[str, str] = {}
    for part in next(csv.reader([value]), []):
        key, sep, text = part.partition("=")
        key = key.strip().lower()
        key = _ALIASES.get(key, key)
        if key in {"readonly", "ro"}:
            key, text = "ro", text if sep else "true"
        elif key in {"readwrite", "rw"}:
            key, text = "rw", text if sep else "true"
        elif key == "required" and not sep:
            text = "true"
        elif not sep:
            raise _error(f"The mount option {part!r} has no value.", at, "Write key=value.")
        fields[key] = text
    if fields.get("type", "bind") == "bind" and "ro" in fields:
        fields["rw"] = "false" if _flag(fields.pop("ro"), at) else "true"
    if fields.get("type") == "cache" and "rw" in fields:
        fields["ro"] = "false" if _flag(fields.pop("rw"), at) else "true"
    return fields


def _flag(text: str, at: Position) -> bool:
    if text.lower() not in {"true", "false", "1", "0"}:
        raise _error(f"{text!r} is neither true nor false.", at)
    return text.lower() in {"true", "1"}


def _number(text: str, at: Position, base: int = 10, *, most: int = 2**50) -> int:
    """From 0 to ``most``: an id outside the sandbox's range would be somebody else's."""
    try:
        number = int(text[:40], base)
    except ValueError:
        raise _error(f"{text[:40]!r} is no number.", at) from None
    if not 0 <= number <= most:
        top = f"{most:o}" if base == 8 else str(most)
        raise _error(f"{text[:40]} is not from 0 to {top}.", at)
    return number


def _size(text: str, at: Position) -> int:
    lowered = text.lower().removesuffix("ib").removesuffix("b")
    digits = lowered.rstrip("kmg")
    return _number(digits, at) * _SIZES.get(lowered[len(digits) :], 1)


def _error(message: str, at: Position, hint: str = "") -> DockerfileError:
    return DockerfileError(message, place=at.place, hint=hint, code="dockerfile.mount")
