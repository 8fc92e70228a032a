"""Requests to one registry: authenticated, retried within bounds, redirected with care.

Credentials go to the registry's own origin only: a redirect to a storage service, or an
upload address elsewhere, gets none (the class of CVE-2020-15157).
"""

from __future__ import annotations

import contextlib
import ipaddress
import random
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final
from urllib.parse import urljoin, urlsplit

import httpx

from builders.certificates import trusted
from builders.errors import RegistryError
from builders.registry.auth import LOOK_THERE, Authenticator, Credentials, Scope, TokenProvider
from builders.remote.pinned import Lookup, PinnedTransport

Body = bytes | Callable[[], Iterable[bytes]]

_HOSTS: Mapping[str, str] = {"docker.io": "registry-1.docker.io"}
_RETRIED: Final = frozenset((408, 429, 500, 502, 503, 504))
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
_MOST_REDIRECTS = 5
TRIES = 5
_LONGEST_PAUSE = 10.0
_LONGEST_WORDS = 2000


class Transport:
    """One registry's HTTP side. Safe for threads. ``patience`` bounds all tries, in seconds.

    With ``lookup`` nothing is asked but the addresses that it gives: neither the registry nor its
    token service, nor where it redirects.
    """

    def __init__(
        self,
        host: str,
        *,
        credentials: Credentials | None = None,
        token: TokenProvider | None = None,
        plain_http: bool | None = None,
        patience: float = 60.0,
        timeout: float = 30.0,
        lookup: Lookup | None = None,
    ) -> None:
        self.host = host
        address = _HOSTS.get(host, host)
        loopback = _is_loopback(urlsplit(f"//{address}").hostname or "")
        plain = loopback if plain_http is None else plain_http
        self._origin = f"{'http' if plain else 'https'}://{address}"
        self._patience = patience
        verify = trusted()
        pinned = PinnedTransport(lookup, verify=verify, proxies=not loopback) if lookup else None
        self._client = httpx.Client(
            verify=verify,
            transport=pinned,
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0)),
            trust_env=not loopback,  # a proxy has no business with this machine's own registry
            follow_redirects=False,
            headers={"User-Agent": "gantry", "Accept-Encoding": "identity"},
        )
        self._auth = Authenticator(
            address, self._client, credentials=credentials, token=token, plain_http=plain
        )

    def close(self) -> None:
        self._client.close()

    def request(
        self,
        method: str,
        path: str,
        scopes: Sequence[Scope],
        *,
        headers: Mapping[str, str] | None = None,
        body: Body = b"",
        most: int = 1 << 20,
        tries: int = TRIES,
    ) -> httpx.Response:
        """One answer with its whole body, of at most ``most`` bytes.

        Any final status is returned. Raises RegistryError when none came in time.
        """
        with self.stream(method, path, scopes, headers=headers, body=body, tries=tries) as response:
            parts, size = [], 0
            try:
                for part in response.iter_raw(65536):
                    size += len(part)
                    if size > most:
                        raise RegistryError(
                            f"Registry {self.host} sent more than {most} bytes for {path}."
                        )
                    parts.append(part)
            except httpx.HTTPError as error:
                raise RegistryError(
                    f"Registry {self.host} broke off its answer to {method} {path}: {error}."
                ) from error
            return httpx.Response(
                response.status_code,
                headers=_without_coding(response.headers),
                content=b"".join(parts),
                request=response.request,
            )

    @contextlib.contextmanager
    def stream(
        self,
        method: str,
        path: str,
        scopes: Sequence[Scope],
        *,
        headers: Mapping[str, str] | None = None,
        body: Body = b"",
        tries: int = TRIES,
    ) -> Iterator[httpx.Response]:
        """As ``request``, but the body is still to be read by the caller."""
        response = self._patiently(method, path, scopes, headers or {}, body, tries)
        try:
            yield response
        finally:
            response.close()

    def _patiently(
        self,
        method: str,
        path: str,
        scopes: Sequence[Scope],
        headers: Mapping[str, str],
        body: Body,
        tries: int,
    ) -> httpx.Response:
        started = time.monotonic()
        trouble = ""
        count = 0
        while count < tries:
            count += 1
            pause = random.uniform(0.5, 1.0) * min(_LONGEST_PAUSE, 0.25 * 2**count)  # noqa: S311
            try:
                response = self._authenticated(method, path, scopes, headers, body)
            except (httpx.TransportError, ssl.SSLError) as error:
                trouble = _words(error)
                if isinstance(error, httpx.UnsupportedProtocol):
                    break
            else:
                if response.status_code not in _RETRIED:
                    return response
                trouble = f"it answers {response.status_code}{_explanation(response)}"
                pause = max(pause, _retry_after(response))
                response.close()
            if time.monotonic() - started + pause > self._patience:
                break
            if count < tries:
                time.sleep(pause)
        spent = time.monotonic() - started
        raise RegistryError(
            f"Registry {self.host} cannot be used: {trouble} "
            f"(tried {count} {'time' if count == 1 else 'times'} in {spent:.1f} s).",
            hint="Check its address, and that it runs and can be reached from this machine.",
            code="registry.unreachable",
        )

    def _authenticated(
        self,
        method: str,
        path: str,
        scopes: Sequence[Scope],
        headers: Mapping[str, str],
        body: Body,
    ) -> httpx.Response:
        response = self._follow(method, path, scopes, headers, body)
        if response.status_code == 401 and self._is_ours(str(response.url)):
            challenge = response.headers.get("WWW-Authenticate", "")
            sent = response.request.headers.get("Authorization")
            if challenge and self._auth.challenged(challenge, scopes, sent):
                response.close()
                response = self._follow(method, path, scopes, headers, body)
        return response

    def _follow(
        self,
        method: str,
        path: str,
        scopes: Sequence[Scope],
        headers: Mapping[str, str],
        body: Body,
    ) -> httpx.Response:
        url = self._checked(self._origin, path)
        for _ in range(_MOST_REDIRECTS + 1):
            own = dict(headers)
            if self._is_ours(url):
                authorization = self._auth.header(scopes)
                if authorization is not None:
                    own["Authorization"] = authorization
            content = body if isinstance(body, bytes) else body()
            request = self._client.build_request(method, url, headers=own, content=content)
            response = self._client.send(request, stream=True)
            location = response.headers.get("Location")
            if method not in ("GET", "HEAD") or response.status_code not in _REDIRECTS:
                return response
            response.close()
            if not location:
                break
            url = self._checked(url, location)
        raise RegistryError(f"Registry {self.host} redirects {path} in circles.")

    def _checked(self, base: str, location: str) -> str:
        """The address that ``location`` is, seen from ``base``.

        Refuses to be sent from TLS to plain HTTP, or from outside into the own network.
        """
        try:
            url = urljoin(base, location)
            parts = urlsplit(url)
            httpx.URL(url)
        except (ValueError, httpx.InvalidURL):
            raise self._astray(f"{location[:200]!r}, no web address") from None
        home = urlsplit(self._origin)
        host = (parts.hostname or "").lower()
        if parts.scheme not in ("http", "https") or not host or parts.username is not None:
            raise self._astray(f"{url[:200]!r}, no web address")
        if home.scheme == "https" and parts.scheme != "https":
            raise self._astray(f"{host} without encryption")
        if host != home.hostname and _is_internal(host) and not _is_internal(home.hostname or ""):
            raise self._astray(f"the internal address {host}")
        return url

    def _astray(self, where: str) -> RegistryError:
        return RegistryError(f"Registry {self.host} sends us to {where}.", hint=LOOK_THERE)

    def _is_ours(self, url: str) -> bool:
        there, here = httpx.URL(url), httpx.URL(self._origin)
        return (there.scheme, there.host, there.port) == (here.scheme, here.host, here.port)

    def absolute(self, location: str) -> str:
        """A Location header as an address, judged as a redirect is. Raises RegistryError."""
        return self._checked(self._origin, location)


def explain(response: httpx.Response) -> str:
    """The registry's own words about a refusal, shortened (distribution-spec, "Error Codes")."""
    try:
        errors = response.json()["errors"]
        texts = [f"{e.get('code', '')}: {e.get('message', '')}" for e in errors[:3]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""
    return " (" + "; ".join(texts)[:300] + ")"


def _explanation(response: httpx.Response) -> str:
    with contextlib.suppress(httpx.HTTPError):
        body = b""
        for part in response.iter_raw(_LONGEST_WORDS):
            body += part
            if len(body) >= _LONGEST_WORDS:
                break
        return explain(httpx.Response(response.status_code, content=body))
    return ""


def _words(error: Exception) -> str:
    text = str(error).rstrip(".")
    return text or type(error).__name__


def _retry_after(response: httpx.Response) -> float:
    value = response.headers.get("Retry-After", "")
    return min(_LONGEST_PAUSE, float(value)) if value.isascii() and value.isdigit() else 0.0


def _without_coding(headers: httpx.Headers) -> httpx.Headers:
    """Bodies are kept raw, since their digests are of the raw bytes."""
    kept = headers.copy()
    for name in ("Content-Encoding", "Content-Length", "Transfer-Encoding"):
        kept.pop(name, None)
    return kept


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_internal(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return not address.is_global
