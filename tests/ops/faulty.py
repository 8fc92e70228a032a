"""The service, where ``/hooks/`` meets a fault when it reads, ``/git/`` when it answers.

What is raised has all that the request said in it: what a traceback tells at the worst.
"""

from __future__ import annotations

import threading
import warnings

from ciserver.asgi import application as service
from ciserver.lib.asgi import Message, Receive, Scope, Send


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    async def broken(answer: Message | None = None) -> Message:
        message = {} if answer else await receive()
        told = [scope["path"].encode(), *(value for _, value in scope["headers"])]
        raise RuntimeError(b"\n".join([*told, message.get("body", b"")]).decode("latin-1"))

    path = scope["path"] if scope["type"] == "http" else ""
    if path == "/elsewhere":
        threading.Thread(target=_fail, args=("of a thread\nand more",)).start()
        warnings.warn("of a warning\nand more", stacklevel=1)
    await service(
        scope,
        broken if path.startswith("/hooks/") else receive,
        broken if path.startswith("/git/") else send,
    )


def _fail(text: str) -> None:
    raise RuntimeError(text)
