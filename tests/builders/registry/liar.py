"""A small registry that serves one image honestly, except where a test tells it to lie."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from builders.images.digests import Descriptor
from builders.images.manifest import Manifest
from builders.images.store import Image, Store


@dataclass
class Answer:
    """What to send. ``length`` lies about the body's; ``drop`` closes in the middle of it."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    endless: bool = False


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]


Lie = Callable[[Seen], Answer | None]


class Liar:
    """``lie`` is asked first; what it leaves (None) is answered honestly."""

    def __init__(self, manifest: Manifest | None, blobs: dict[str, bytes]) -> None:
        self.manifest = manifest
        self.blobs = blobs
        self.lie: Lie = lambda _: None
        self.seen: list[Seen] = []
        self.host = ""

    def answer(self, seen: Seen) -> Answer:
        self.seen.append(seen)
        told = self.lie(seen)
        return told if told is not None else self._honest(seen)

    def _honest(self, seen: Seen) -> Answer:
        reading = seen.method in ("GET", "HEAD")
        if reading and "/manifests/" in seen.path and self.manifest is not None:
            return self.document(self.manifest.data, self.manifest.media_type)
        digest = seen.path.rpartition("/")[2]
        if reading and digest in self.blobs:
            start = int(seen.headers.get("range", "bytes=0-")[6:-1])
            data = self.blobs[digest]
            if start:
                place = f"bytes {start}-{len(data) - 1}/{len(data)}"
                return Answer(206, data[start:], {"Content-Range": place})
            return Answer(200, data)
        if seen.method == "POST":
            return Answer(202, headers={"Location": f"/v2/upload/{len(self.seen)}?state=x"})
        if seen.method == "PUT":
            return Answer(201)
        return Answer(404)

    @staticmethod
    def document(data: bytes, media_type: str, **headers: str) -> Answer:
        return Answer(200, data, {"Content-Type": media_type, **headers})

    def paths(self) -> list[str]:
        return [f"{seen.method} {seen.path}" for seen in self.seen]

    def authorizations(self) -> list[str]:
        return [s.headers["authorization"] for s in self.seen if "authorization" in s.headers]


def serving(image: Image, store: Store) -> Liar:
    """A liar that has all of ``image``."""
    manifest = image.manifest()
    return Liar(manifest, {d.digest: read(store, d) for d in (manifest.config, *manifest.layers)})


def read(store: Store, blob: Descriptor) -> bytes:
    with store.open_blob(blob.digest) as file:
        return file.read()


@contextmanager
def running(liar: Liar, address: str = "127.0.0.1") -> Iterator[Liar]:
    """Serve on a free port of ``address`` (each of 127.0.0.0/8 is another host to a client)."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            while size > 0:
                size -= len(self.rfile.read(min(size, 1 << 16)))
            seen = Seen(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
            answer = liar.answer(seen)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            length = len(answer.body) if answer.length is None else answer.length
            self.send_header("Content-Length", str((1 << 50) if answer.endless else length))
            self.end_headers()
            if self.command == "HEAD":
                return
            try:
                self.wfile.write(answer.body)
                while answer.endless:
                    self.wfile.write(answer.body)
            except OSError:
                pass
            if length != len(answer.body):
                self.close_connection = True

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Clients that give up on a lie reset the connection; that is the point."""

    server = Server((address, 0), Handler)
    liar.host = f"{address}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield liar
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
