"""The end of what a program says, cut only where no secret is torn apart."""

from __future__ import annotations

LONG_LINE = b"[a longer line than is kept]"


class Ending:
    """The last whole lines of a stream, within ``most`` bytes. Not for several threads.

    Secrets are found in whole lines (``ciserver.lib.masking``). A line that lost its beginning
    may begin with half a secret, which nothing would know as one: it is left out.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept = bytearray()
        self._cut = False

    def add(self, data: bytes) -> None:
        self._kept += data
        if len(self._kept) > 2 * self._most:  # not each time: small pieces would cost a copy each
            self._shorten()

    def whole_lines(self) -> bytes:
        """LONG_LINE if there would be nothing but a piece of one."""
        self._shorten()
        if not self._cut:
            return bytes(self._kept)
        rest = self._kept.partition(b"\n")[2]
        return bytes(rest) if rest.strip() else LONG_LINE

    def _shorten(self) -> None:
        if len(self._kept) > self._most:
            self._cut = True
            del self._kept[: -self._most]
