"""Reading XML that a job wrote: by expat, without a tree, and with no entities of its own.

Reports are not always what they say. One that expat refuses is read once more with what no XML may
hold (escape codes of colours, bytes that are not of its encoding) replaced.
https://www.w3.org/TR/xml/#charsets
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol, TypeVar
from xml.parsers import expat

DEEPEST = 100  # elements: expat remembers each that is open
# Encodings of more than one byte for a letter, of which expat knows UTF-8 and UTF-16 alone.
_WIDE = re.compile(
    "big5|big5hkscs|cp9(?:32|36|49|50)|euc-(?:cn|jp|kr)|gb18030|gb2312|gbk|iso-2022-(?:jp|kr)"
    "|ms932|shift-jis|sjis|utf-32"
)
_DECLARED = re.compile(
    rb"""\A(?:\xef\xbb\xbf)?\s*<\?xml\b[^>]{0,200}?\bencoding\s*=\s*["']([\w.:-]{1,40})["']"""
)
_NO_CHARACTER = re.compile(
    rb"[\x00-\x08\x0b\x0c\x0e-\x1f]"
    rb"|&#(?:0*(?:[0-8]|1[124-9]|2[0-9]|3[01])|x0*(?:[0-8bceBCE]|[fF]|1[0-9a-fA-F]));"
)
_REPLACED = "\N{REPLACEMENT CHARACTER}".encode()


class XmlError(Exception):
    """It cannot be read; says why."""


class Reader(Protocol):
    """Is told of elements in their order; what it raises ends the reading."""

    def start(self, tag: str, attributes: dict[str, str]) -> None: ...

    def end(self, tag: str) -> None: ...

    def text(self, data: str) -> None: ...


Made = TypeVar("Made", bound=Reader)


def read_xml(data: bytes, make: Callable[[], Made]) -> Made:
    """A reader that ``make`` made and that was told of all of ``data``. Raises XmlError.

    A document type declaration with contents is refused: entities in one can grow without bound.
    One that only names its contents is usual; they are never fetched.
    """
    declared = _DECLARED.match(data)
    encoding = declared[1].decode("ascii", "replace").lower().replace("_", "-") if declared else ""
    if _WIDE.fullmatch(encoding):
        data, encoding = data.decode(encoding, "replace").encode(), "utf-8"
        return _read(data, make(), encoding)
    try:
        return _read(data, make())
    except _NotXml:
        mended = _mended(data, encoding)
        if mended == data:
            raise
        return _read(mended, make())


class _NotXml(XmlError):
    pass


def _mended(data: bytes, encoding: str) -> bytes:
    if data[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        return data  # UTF-16, whose bytes are no letters
    if encoding in {"", "utf-8", "utf8", "us-ascii"}:
        data = data.decode(errors="replace").encode()
        return _NO_CHARACTER.sub(_REPLACED, data)
    return _NO_CHARACTER.sub(b"?", data)


def _read(data: bytes, reader: Made, encoding: str | None = None) -> Made:
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > DEEPEST:
            raise XmlError(f"more than {DEEPEST} elements within one another")
        reader.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        reader.end(tag)

    parser = expat.ParserCreate(encoding)
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = _refuse_contents
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise _NotXml(f"not XML: {error}") from None
    except (LookupError, ValueError):  # a word, or a codec of Python that is of no use here
        raise XmlError("not XML: the encoding that it says is not known") from None
    return reader


def _refuse_contents(_name: str, _system: str | None, _public: str | None, internal: int) -> None:
    if internal:
        raise XmlError("a document type declaration with contents is not allowed")
