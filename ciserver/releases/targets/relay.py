"""A registry of one image, for a host that cannot reach the real one: it answers on a Unix socket
that an ssh connection brings to the host.

The host's engine asks for what it lacks and for nothing else, so that only missing layers travel.
It gets a password that is good for this image, for as long as the pull lasts; the registry's own
token stays here. Streaming blobs into ``podman load`` instead would need all layers each time.
OCI distribution-spec, "Pulling manifests" and "Pulling blobs".
"""

from __future__ import annotations

import base64
import hmac
import secrets
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx

from ciserver.lib.certificates import trusted
from ciserver.releases.targets.credentials import Credentials
from ciserver.releases.targets.errors import ImageUnreadable
from ciserver.releases.targets.images import TIMEOUT, Location, pull_token
from ciserver.releases.targets.spec import ImageFacts

USER = "gantry"
KEPT = ("Content-Type", "Content-Length", "Docker-Content-Digest")


@dataclass
class Relay:
    """``sent`` counts bytes of layers."""

    location: Location
    socket: Path
    credentials: Credentials
    manifest: str
    layers: frozenset[str]
    blobs: frozenset[str]
    client: httpx.Client
    credentials_of: Callable[[], Credentials | None]
    sent: int = 0
    _token: str | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def allows(self, path: str) -> bool:
        """The image's own manifest and blobs, by digest."""
        base = f"/v2/{self.location.name}"
        if path == f"{base}/manifests/{self.manifest}":
            return True
        kind, _, digest = path.removeprefix(f"{base}/").partition("/")
        return path.startswith(f"{base}/") and kind == "blobs" and digest in self.blobs

    @contextmanager
    def asked(self, method: str, path: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """The registry's answer, whose body is still to be read. Raises httpx.HTTPError,
        ImageUnreadable.

        A token may end before the pull does: refused, it is renewed once.
        """
        url = self.location.url + path.removeprefix(f"/v2/{self.location.name}")
        with ExitStack() as stack:
            token = self._token
            response = stack.enter_context(self._stream(method, url, headers, token))
            if response.status_code == HTTPStatus.UNAUTHORIZED:
                stack.close()
                response = stack.enter_context(
                    self._stream(method, url, headers, self._renewed(token))
                )
            yield response

    def renew(self) -> None:
        """Raises ImageUnreadable."""
        self._token = pull_token(self.location, self.credentials_of())

    def _renewed(self, refused: str | None) -> str | None:
        """The token after ``refused``; of threads whose token was refused at once, one renews."""
        with self._lock:
            if self._token == refused:
                self.renew()
            return self._token

    def _stream(
        self, method: str, url: str, headers: Mapping[str, str], token: str | None
    ) -> AbstractContextManager[httpx.Response]:
        ours = {"Authorization": f"Bearer {token}"} if token else {}
        return self.client.stream(method, url, headers={**headers, **ours})

    def count(self, path: str, size: int) -> None:
        if path.rpartition("/")[2] in self.layers:
            with self._lock:
                self.sent += size


@contextmanager
def serve(
    image: ImageFacts,
    location: Location,
    credentials_of: Callable[[], Credentials | None],
    socket: Path,
) -> Iterator[Relay]:
    """Answers on ``socket`` until the block ends."""
    layers = frozenset(layer.digest for layer in image.layers)
    with httpx.Client(
        timeout=TIMEOUT, follow_redirects=True, trust_env=False, verify=trusted()
    ) as client:
        relay = Relay(
            location=location,
            socket=socket,
            credentials=(USER, secrets.token_urlsafe(32)),
            manifest=image.digest,
            layers=layers,
            blobs=layers | {image.config_digest},
            client=client,
            credentials_of=credentials_of,
        )
        relay.renew()
        server = _Server(relay)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield relay
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, relay: Relay) -> None:
        super().__init__(str(relay.socket), _Handler)
        self.relay = relay
        login = base64.b64encode(":".join(relay.credentials).encode()).decode()
        self.expected = f"Basic {login}"


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        given = self.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), self.server.expected.encode()):
            self._end(HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": 'Basic realm="gantry"'})
        elif self.path == "/v2/":
            self._end(HTTPStatus.OK, {})
        elif not self.server.relay.allows(self.path):
            self._end(HTTPStatus.NOT_FOUND, {})
        else:
            self._pass_on(with_body=with_body)

    def _pass_on(self, *, with_body: bool) -> None:
        kinds = ", ".join(self.headers.get_all("Accept") or ["*/*"])
        accept = {"Accept": kinds, "Accept-Encoding": "identity"}
        method = "GET" if with_body else "HEAD"
        try:
            with self.server.relay.asked(method, self.path, accept) as response:
                self._send(response, with_body=with_body)
        except (httpx.HTTPError, ImageUnreadable, OSError):
            self.close_connection = True  # half a blob: the engine asks again, or gives up

    def _send(self, response: httpx.Response, *, with_body: bool) -> None:
        self.send_response(response.status_code)
        for name in KEPT:
            if name in response.headers:
                self.send_header(name, response.headers[name])
        if "Content-Length" not in response.headers:
            self.send_header("Connection", "close")
        self.end_headers()
        for chunk in response.iter_raw() if with_body else ():
            # Before who asked can have it: they may look at what was sent as soon as they do.
            self.server.relay.count(self.path, len(chunk))
            self.wfile.write(chunk)

    def _end(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": "0"}).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing: what was pulled is in the deployment's steps."""

    def address_string(self) -> str:
        return "host"  # a Unix socket's peer has no address
