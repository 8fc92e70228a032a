"""``python -m ciserver.serve``: a web process on a listening socket that its parent holds.

``LISTEN_FD`` is that socket's descriptor. Whoever connects while no web process is up waits
in the kernel's line instead of being refused, and several processes may take from it.
"""

from __future__ import annotations

import os
import socket

import uvicorn

GRACE = 3  # seconds: an open event stream would keep it from ever ending


def main() -> None:
    listening = socket.socket(fileno=int(os.environ["LISTEN_FD"]))
    config = uvicorn.Config(
        "ciserver.asgi:application", access_log=False, timeout_graceful_shutdown=GRACE
    )
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
