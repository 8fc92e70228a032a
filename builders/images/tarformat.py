"""The tar format: ustar headers with pax records, encoded and decoded (POSIX.1-2017, pax).

Names are bytes throughout. A name that ustar cannot hold, which includes every
name beyond ASCII, travels raw in a pax ``path`` record, as Go's archive/tar
does it: that is what every container engine reads. Reading also knows the GNU
dialect (long names, base-256 numbers); sparse members are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

BLOCK = 512
END = bytes(2 * BLOCK)
XATTR = b"SCHILY.xattr."

REGULAR = b"0"
HARD_LINK = b"1"
SYMLINK = b"2"
CHARACTER_DEVICE = b"3"
BLOCK_DEVICE = b"4"
DIRECTORY = b"5"
FIFO = b"6"
PAX = b"x"
PAX_GLOBAL = b"g"
GNU_LONG_NAME = b"L"
GNU_LONG_LINK = b"K"

_LARGEST_OCTAL_7 = 0o7777777
_LARGEST_OCTAL_11 = 0o77777777777
_NANO = 1_000_000_000


class BadTar(Exception):
    """The stream is no tar this builder accepts; the text says why."""


@dataclass(slots=True)
class Member:
    """One entry's header. ``mtime`` is in nanoseconds; ``size`` counts data that follows."""

    name: bytes
    type: bytes = REGULAR
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    link: bytes = b""
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)


def padding(size: int) -> int:
    """How many zero bytes follow ``size`` bytes of data."""
    return -size % BLOCK


def encode(member: Member) -> bytes:
    """The member's header blocks, with a pax header in front where ustar is too small."""
    name, link = member.name, member.link
    seconds = member.mtime // _NANO
    if (
        len(name) <= 100
        and len(link) <= 100
        and not member.xattrs
        and 0 <= seconds <= _LARGEST_OCTAL_11
        and member.size <= _LARGEST_OCTAL_11
        and member.uid <= _LARGEST_OCTAL_7
        and member.gid <= _LARGEST_OCTAL_7
        and name.isascii()
        and link.isascii()
    ):
        return _ustar(member, name, b"", link, seconds)
    return _encode_with_pax(member, seconds)


def _encode_with_pax(member: Member, seconds: int) -> bytes:
    records: dict[bytes, bytes] = {}
    prefix, name = _split_name(member.name)
    if name is None:
        records[b"path"] = member.name
        name = _ascii(member.name)[-100:]
    if len(member.link) > 100 or not member.link.isascii():
        records[b"linkpath"] = member.link
    if not 0 <= seconds <= _LARGEST_OCTAL_11:
        records[b"mtime"] = b"%d" % seconds
        seconds = 0
    fits = replace(member)
    for key, most in (
        ("size", _LARGEST_OCTAL_11),
        ("uid", _LARGEST_OCTAL_7),
        ("gid", _LARGEST_OCTAL_7),
    ):
        number = getattr(member, key)
        if number > most:
            records[key.encode()] = b"%d" % number
            setattr(fits, key, 0)
    for xattr, value in member.xattrs.items():
        records[XATTR + xattr] = value
    header = _ustar(fits, name, prefix, _ascii(member.link)[:100], seconds)
    return _pax_header(records) + header if records else header


def _ustar(member: Member, name: bytes, prefix: bytes, link: bytes, seconds: int) -> bytes:
    head = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        name.ljust(100, b"\0"),
        member.mode,
        member.uid,
        member.gid,
        member.size,
        seconds,
    )
    tail = b"%b%bustar\x0000%b0000000\x000000000\x00%b" % (
        member.type,
        link.ljust(100, b"\0"),
        bytes(64),
        prefix.ljust(167, b"\0"),
    )
    checksum = sum(head) + sum(tail) + 8 * 32
    return b"%b%06o\0 %b" % (head, checksum, tail)


def _split_name(name: bytes) -> tuple[bytes, bytes | None]:
    """The ustar prefix and name, or (b"", None) where the name does not fit."""
    if not name.isascii():
        return b"", None
    if len(name) <= 100:
        return b"", name
    cut = name.rfind(b"/", 0, min(156, len(name) - 1))
    if cut <= 0 or len(name) - cut - 1 > 100:
        return b"", None
    return name[:cut], name[cut + 1 :]


def _ascii(name: bytes) -> bytes:
    """A readable stand-in for readers that do not know pax."""
    return name if name.isascii() else bytes(b if b < 128 else 0x5F for b in name)


def _pax_header(records: Mapping[bytes, bytes]) -> bytes:
    body = b"".join(_pax_record(key, records[key]) for key in sorted(records))
    header = _ustar(Member(b"PaxHeaders", PAX, size=len(body)), b"PaxHeaders", b"", b"", 0)
    return header + body + bytes(padding(len(body)))


def _pax_record(key: bytes, value: bytes) -> bytes:
    """``LENGTH KEY=VALUE\\n``, where the length counts itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) != len(str(rest)):
        length += 1
    return b"%d %b=%b\n" % (length, key, value)


def decode(block: bytes) -> Member:
    """The fields of one 512-byte header block. Raises BadTar."""
    checksum = _number(block[148:156])
    unsigned = sum(block) - sum(block[148:156]) + 8 * 32
    if checksum != unsigned and checksum != unsigned - 256 * sum(
        1 for b in block[:148] + block[156:] if b > 127
    ):
        raise BadTar("a header's checksum is wrong")
    name = _string(block[:100])
    if block[257:263] == b"ustar\0":
        prefix = _string(block[345:500])
        if prefix:
            name = prefix + b"/" + name
    type_ = block[156:157]
    return Member(
        name=name,
        type=REGULAR if type_ in (b"\0", b"7") else type_,
        mode=_number(block[100:108]) & 0o7777,
        uid=_number(block[108:116]),
        gid=_number(block[116:124]),
        size=_number(block[124:136]),
        mtime=_number(block[136:148]) * _NANO,
        link=_string(block[157:257]),
    )


def _string(data: bytes) -> bytes:
    return data.partition(b"\0")[0]


def _number(data: bytes) -> int:
    """Octal, or GNU's base-256 where the first bit is set."""
    if data[0] & 0x80:
        return _base_256(data)
    text = data.strip(b" \0")
    if not text:
        return 0
    if not text.isdigit():
        raise BadTar(f"a header has {text!r} where a number belongs")
    try:
        return int(text, 8)
    except ValueError:
        raise BadTar(f"a header has {text!r} where a number belongs") from None


def _base_256(data: bytes) -> int:
    value = int.from_bytes(data, "big")
    bits = len(data) * 8
    if data[0] & 0x40:
        return value - (1 << bits)
    return value & ((1 << (bits - 1)) - 1)


def parse_pax(body: bytes) -> dict[bytes, bytes]:
    """The records of a pax header. Raises BadTar."""
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(body):
        blank = body.find(b" ", position, position + 20)
        digits = body[position:blank]
        if blank < 0 or not digits.isdigit():
            raise BadTar("a pax record has no length")
        end = position + int(digits)
        record = body[blank + 1 : end]
        key, equals, value = record[:-1].partition(b"=")
        if end > len(body) or not equals or not key or record[-1:] != b"\n":
            raise BadTar("a pax record is malformed")
        records[key] = value
        position = end
    return records


def apply_pax(member: Member, records: Mapping[bytes, bytes]) -> None:
    """Let pax records override the header they precede. Raises BadTar."""
    if not records:
        return
    if any(key.startswith(b"GNU.sparse.") for key in records):
        raise BadTar("it holds a sparse member")
    member.name = records.get(b"path", member.name)
    member.link = records.get(b"linkpath", member.link)
    if b"\0" in member.name or b"\0" in member.link:
        raise BadTar("a pax record puts a zero byte into a name")
    for key in ("size", "uid", "gid"):
        if key.encode() in records:
            setattr(member, key, _pax_number(records[key.encode()]))
    if b"mtime" in records:
        member.mtime = _pax_time(records[b"mtime"])
    member.xattrs = {
        key.removeprefix(XATTR): value for key, value in records.items() if key.startswith(XATTR)
    }


def _pax_number(text: bytes) -> int:
    if not text.isdigit() or len(text) > 19:
        raise BadTar(f"a pax record has {text[:40]!r} where a number belongs")
    return int(text)


def _pax_time(text: bytes) -> int:
    whole, _, fraction = text.partition(b".")
    sign = -1 if whole.startswith(b"-") else 1
    nano = fraction[:9].ljust(9, b"0")
    seconds = _pax_number(whole.removeprefix(b"-"))
    return sign * (seconds * _NANO + _pax_number(nano))
