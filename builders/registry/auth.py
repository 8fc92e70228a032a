"""Who we are to a registry: basic credentials, bearer tokens, and to whom they may go.

Token authentication as distribution defines it
(https://distribution.github.io/distribution/spec/auth/token/).
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

from builders.errors import RegistryError
from builders.images.documents import Malformed, load_object

_EARLY = 10.0  # seconds before its end a token counts as over
_SHORTEST = 60.0  # what the specification says of answers without expires_in
_LONGEST = 24 * 3600
_LARGEST_ANSWER = 256 << 10
LOOK_THERE = "See how the registry, or the proxy before it, is set up."
_PARAMETER = re.compile(r'([A-Za-z0-9_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))')


@dataclass(frozen=True, slots=True)
class Credentials:
    """A name and a password or token that repr() does not show."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Scope:
    """The right to do ``actions`` (pull, push) with one repository."""

    repository: str
    actions: tuple[str, ...]

    def __str__(self) -> str:
        return f"repository:{self.repository}:{','.join(self.actions)}"


# Makes a bearer token for exactly these scopes, without asking anyone.
TokenProvider = Callable[[Sequence[Scope]], str]


@dataclass(frozen=True, slots=True)
class Challenge:
    """A WWW-Authenticate header (RFC 9110, 11.6.1): scheme in lower case, parameters."""

    scheme: str
    realm: str = ""
    service: str = ""

    @classmethod
    def parse(cls, header: str) -> Challenge:
        scheme, _, rest = header.strip().partition(" ")
        values = {key.lower(): quoted or bare for key, quoted, bare in _PARAMETER.findall(rest)}
        return cls(scheme.lower(), values.get("realm", ""), values.get("service", ""))


class Authenticator:
    """Authorization headers for one registry. Safe for threads."""

    def __init__(
        self,
        host: str,
        client: httpx.Client,
        *,
        credentials: Credentials | None = None,
        token: TokenProvider | None = None,
        plain_http: bool = False,
    ) -> None:
        self._host = host
        self._client = client
        self._credentials = credentials
        self._provider = token
        self._plain_http = plain_http
        self._lock = threading.Lock()
        self._challenge: Challenge | None = None
        self._tokens: dict[tuple[Scope, ...], tuple[str, float]] = {}

    def header(self, scopes: Sequence[Scope]) -> str | None:
        """What to send with a request that needs ``scopes``; None before any challenge."""
        if self._provider is not None:
            return f"Bearer {self._token(tuple(scopes))}"
        challenge = self._challenge
        if challenge is None:
            return None
        if challenge.scheme == "basic":
            return self._basic()
        return f"Bearer {self._token(tuple(scopes))}"

    def challenged(self, header: str, scopes: Sequence[Scope], sent: str | None) -> bool:
        """Take in a 401's challenge to a request that carried ``sent``.

        Returns whether trying once more, with a new ``header()``, can help. Another thread may
        have been challenged meanwhile. Raises RegistryError.
        """
        challenge = Challenge.parse(header)
        if self._provider is None:
            if challenge.scheme not in ("basic", "bearer"):
                raise RegistryError(
                    f"Registry {self._host} wants the authentication "
                    f"{challenge.scheme[:40] or 'none'!r}, which is not supported."
                )
            self._challenge = challenge
            if challenge.scheme == "basic":
                return self._credentials is not None and sent != self._basic()
        with self._lock:
            known = self._tokens.get(tuple(scopes))
            if known is not None and sent == f"Bearer {known[0]}":
                del self._tokens[tuple(scopes)]
        return True

    def _basic(self) -> str | None:
        if self._credentials is None:
            return None
        pair = httpx.BasicAuth(self._credentials.username, self._credentials.password)
        request = next(pair.auth_flow(httpx.Request("GET", "http://unused")))
        return str(request.headers["Authorization"])

    def _token(self, scopes: tuple[Scope, ...]) -> str:
        with self._lock:
            known = self._tokens.get(scopes)
            if known is not None and known[1] > time.monotonic():
                return known[0]
            if self._provider is not None:
                token, lifetime = self._provider(scopes), _SHORTEST
            else:
                token, lifetime = self._fetch(scopes)
            self._tokens[scopes] = (token, time.monotonic() + max(1.0, lifetime - _EARLY))
            return token

    def _fetch(self, scopes: Sequence[Scope]) -> tuple[str, float]:
        """Ask the realm of the challenge for a token: (token, seconds it is good for)."""
        challenge = self._challenge
        if challenge is None:
            raise RegistryError(f"Registry {self._host} gave no challenge.")
        realm = self._check_realm(challenge.realm)
        query = [("scope", str(scope)) for scope in scopes]
        if challenge.service:
            query.append(("service", challenge.service))
        headers = {}
        basic = self._basic()
        if basic is not None and self._may_send_to(realm):
            headers["Authorization"] = basic
        try:
            # The realm may carry a query of its own, which ``params`` would replace.
            url = httpx.URL(realm)
            url = url.copy_with(params=[*url.params.multi_items(), *query])
            with self._client.stream("GET", url, headers=headers) as response:
                body = b"".join(_capped(response, _LARGEST_ANSWER))
        except httpx.HTTPError as error:
            raise RegistryError(
                f"The token service of registry {self._host} at {urlsplit(realm).netloc} "
                f"cannot be reached: {error}."
            ) from error
        if response.status_code != 200:
            raise RegistryError(
                f"The token service of registry {self._host} refused with {response.status_code}.",
                hint="Check the registry's user name and password.",
                code="registry.denied",
            )
        return _read_token(body, self._host)

    def _check_realm(self, realm: str) -> str:
        allowed = ("https", "http") if self._plain_http else ("https",)
        try:
            parts = urlsplit(realm)
            httpx.URL(realm)
            safe = parts.scheme in allowed and parts.hostname and parts.username is None
        except (ValueError, httpx.InvalidURL):
            safe = False
        if not safe:
            raise RegistryError(
                f"Registry {self._host} names {realm[:200]!r} as its token service, "
                "which is no safe address.",
                hint=LOOK_THERE,
            )
        return realm

    def _may_send_to(self, realm: str) -> bool:
        """Credentials go to the registry's own host, or one under the same domain."""
        here = (urlsplit(f"//{self._host}").hostname or "").lower()
        there = (urlsplit(realm).hostname or "").lower()
        if here == there:
            return True
        if _is_address(here) or _is_address(there):
            return False
        ours, theirs = here.split("."), there.split(".")
        return len(ours) > 1 and ours[-2:] == theirs[-2:]


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


def _capped(response: httpx.Response, most: int) -> list[bytes]:
    parts, size = [], 0
    for part in response.iter_bytes():
        size += len(part)
        if size > most:
            raise RegistryError(f"The token service at {response.url.host} sent too much.")
        parts.append(part)
    return parts


def _read_token(body: bytes, host: str) -> tuple[str, float]:
    try:
        answer = load_object(body, "the token service's answer")
    except Malformed as error:
        raise RegistryError(f"Registry {host}: {error}.") from error
    token = answer.get("token") or answer.get("access_token")
    lifetime = answer.get("expires_in")
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise RegistryError(f"The token service of registry {host} sent no token.")
    if not isinstance(lifetime, int) or lifetime <= 0:
        return token, _SHORTEST
    seconds = float(min(lifetime, _LONGEST))
    return token, seconds
