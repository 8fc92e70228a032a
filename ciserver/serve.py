"""``python -m ciserver.serve [APPLICATION]``: a web process.

``LISTEN_FD`` is the descriptor of a listening socket that its parent holds. Whoever connects while
no web process is up waits in the kernel's line instead of being refused, and several processes may
take from it. Without that variable it listens where ``GANTRY_BIND`` and ``GANTRY_PORT`` say.
"""

from __future__ import annotations

import os
import socket
import sys

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ciserver.config import Config
from ciserver.lib import loading
from ciserver.lib.logs import only_json

APP = "ciserver.asgi:application"
GRACE = 3  # seconds: an open event stream would keep it from ever ending
MAX_HEAD = 64 * 1024
TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"connection: close\r\ncontent-length: 0\r\n\r\n"
)


class LimitedHeads(HttpToolsProtocol):
    """uvicorn's own, which would keep headers without end in memory, with a limit to them.

    One read (256 KiB at most) may take a head past MAX_HEAD; a second one does not follow.
    """

    _read = 0  # bytes of the head that is coming in
    _in_head = True
    _turned = False  # whether a head or a body ended in what was read last

    def data_received(self, data: bytes) -> None:
        self._turned = False
        super().data_received(data)
        self._read = 0 if self._turned else self._read + len(data)
        if self._in_head and self._read > MAX_HEAD and not self.transport.is_closing():
            self.transport.write(TOO_LARGE)
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._in_head, self._turned = False, True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head, self._turned = True, True


def main() -> None:
    loading.begin()
    only_json()
    gantry, given = Config.from_env(), os.environ.get("LISTEN_FD")
    config = uvicorn.Config(
        (sys.argv[1:] or [APP])[0],
        host=gantry.bind,
        port=gantry.port,
        http=LimitedHeads,
        ws="none",
        access_log=False,
        log_config=None,  # uvicorn's own has plain lines
        timeout_graceful_shutdown=GRACE,
    )
    config.load()
    loading.done()  # a full collection takes 80 to 260 ms, in which nobody is answered
    sockets = [socket.socket(fileno=int(given))] if given else None
    uvicorn.Server(config).run(sockets=sockets)


if __name__ == "__main__":
    main()
