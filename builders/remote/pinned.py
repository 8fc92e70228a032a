"""HTTP to judged addresses: a name is looked up once, and then connected to by number.

The worker is root in the host's network. Were a name judged first and looked up again to connect,
its name server could answer otherwise the second time (DNS rebinding). Every request is judged,
so each redirect is, too. The name stays what the server is told (Host), what TLS asks for (SNI)
and what certificates are held to.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Sequence
from urllib.request import getproxies, proxy_bypass

import httpx

# The addresses of (host, port), the likeliest first. Raises OSError where there are none, and
# whatever says that they must not be asked.
Lookup = Callable[[str, int], Sequence[str]]


class PinnedTransport(httpx.BaseTransport):
    """Connects to what ``lookup`` gives. What it raises of its own passes through.

    With ``proxies`` those of the environment are heeded: they look names up themselves, so that
    there a name is judged only if it means something here.
    """

    def __init__(self, lookup: Lookup, *, verify: ssl.SSLContext, proxies: bool = False) -> None:
        self._lookup = lookup
        self._verify = verify
        self._proxies = proxies
        self._lock = threading.Lock()
        self._transports: dict[tuple[str, str], httpx.HTTPTransport] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        host = url.raw_host.decode("ascii")
        proxy = _proxy_for(url.scheme, host) if self._proxies else ""
        try:
            addresses = self._lookup(host, url.port or (443 if url.scheme == "https" else 80))
        except OSError as error:
            if proxy:
                return self._transport("", proxy).handle_request(request)
            raise httpx.ConnectError(f"{host} cannot be looked up ({error})") from error
        if proxy:
            return self._transport("", proxy).handle_request(request)
        return self._first(request, host, addresses)

    def close(self) -> None:
        for transport in self._transports.values():
            transport.close()

    def _first(self, request: httpx.Request, host: str, addresses: Sequence[str]) -> httpx.Response:
        """The answer of the first address that a connection can be made to."""
        trouble: httpx.TransportError = httpx.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return self._transport(host).handle_request(_to(request, address, host))
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                trouble = error
        raise trouble

    def _transport(self, host: str, proxy: str = "") -> httpx.HTTPTransport:
        """One for each name: of two at one address, neither may use the other's connection, whose
        certificate was held to the other's name."""
        with self._lock:
            known = self._transports.get((host, proxy))
            if known is None:
                known = httpx.HTTPTransport(verify=self._verify, proxy=proxy or None)
                self._transports[host, proxy] = known
            return known


def _to(request: httpx.Request, address: str, host: str) -> httpx.Request:
    """The same request by number; its Host header was made of the name."""
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": host},
    )


def _proxy_for(scheme: str, host: str) -> str:
    """The proxy that the environment names for ``host``; empty for none."""
    if proxy_bypass(host):
        return ""
    known = getproxies()
    found = known.get(scheme) or known.get("all") or ""
    return found if not found or "://" in found else f"http://{found}"
