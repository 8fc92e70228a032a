"""Files from the web for ADD: fetched under the rules that a build step's own network has.

Addresses are judged and connected to by number, at every redirect anew (``addresses``).
"""

from __future__ import annotations

import contextlib
import hashlib
import ssl
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import httpx

from builders.errors import ContextError
from builders.remote.addresses import Unreachable, parse_allowed, reachable
from runtime.network import firewall

MAX_BYTES = 4 << 30
_SECONDS = 600.0  # of one download
_MOST_REDIRECTS = 5
_CHUNK = 1 << 20
_REDIRECTS = frozenset((301, 302, 303, 307, 308))


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file on disk. ``digest`` is ``sha256:...``; ``mtime`` nanoseconds, None if not said."""

    path: Path
    digest: str
    mtime: int | None


def name_of(url: str) -> str:
    """The file name that a URL ends with; empty where it has none."""
    return unquote(urlsplit(url).path).rpartition("/")[2]


def fetch(url: str, into: Path, *, allow: Sequence[str], most: int = MAX_BYTES) -> Fetched:
    """Download ``url`` to ``into``. ``allow`` is what may be reached besides the public internet.

    Raises ContextError: an address no build may reach, no answer, an error status, too much.
    """
    allowed = parse_allowed(allow)
    deadline = time.monotonic() + _SECONDS
    asked = url
    with httpx.Client(verify=ssl.create_default_context(), timeout=30.0, trust_env=False) as client:
        for _ in range(_MOST_REDIRECTS + 1):
            with _answer(client, url, allowed) as response:
                location = response.headers.get("Location", "")
                if response.status_code not in _REDIRECTS or not location:
                    return _kept(response, asked, into, most, deadline)
            url = _next(url, location)
    raise _wrong(asked, "it redirects in circles")


def _next(url: str, location: str) -> str:
    following = urljoin(url, location)
    if urlsplit(url).scheme == "https" and urlsplit(following).scheme != "https":
        raise _wrong(url, "it redirects to an address without encryption")
    return following


@contextlib.contextmanager
def _answer(
    client: httpx.Client, url: str, allowed: Sequence[firewall.Allowed]
) -> Iterator[httpx.Response]:
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise _wrong(url, "its port is no number") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _wrong(url, "it is no http or https address")
    try:
        addresses = reachable(parts.hostname, port, allowed)
    except Unreachable as error:
        raise _wrong(url, str(error), error.hint) from None
    response = _first(client, url, addresses)
    try:
        yield response
    finally:
        response.close()


def _first(client: httpx.Client, url: str, addresses: Sequence[str]) -> httpx.Response:
    """The answer of the first address that a connection can be made to."""
    parts = urlsplit(url)
    headers = {"Host": parts.netloc.rpartition("@")[2], "Accept-Encoding": "identity"}
    for number, address in enumerate(addresses, 1):
        try:
            request = client.build_request(
                "GET",
                httpx.URL(url).copy_with(host=address),
                headers=headers,
                extensions={"sni_hostname": parts.hostname, "timeout": client.timeout.as_dict()},
            )
            return client.send(request, stream=True)
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as error:
            unconnected = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            if number == len(addresses) or not unconnected:
                raise _wrong(url, f"{parts.hostname} cannot be reached ({error})") from error
    raise _wrong(url, f"{parts.hostname} has no address")


def _kept(response: httpx.Response, url: str, into: Path, most: int, deadline: float) -> Fetched:
    if response.status_code != 200:
        raise _wrong(url, f"the answer is {response.status_code} {response.reason_phrase}")
    total, size = hashlib.sha256(), 0
    try:
        with into.open("wb") as file:
            for chunk in response.iter_raw(_CHUNK):
                size += len(chunk)
                if size > most:
                    raise _wrong(url, f"it is larger than {most >> 20} MiB")
                if time.monotonic() > deadline:
                    raise _wrong(url, f"it took longer than {_SECONDS:.0f} seconds")
                total.update(chunk)
                file.write(chunk)
    except httpx.HTTPError as error:
        raise _wrong(url, f"the connection broke after {size} bytes ({error})") from error
    modified = response.headers.get("Last-Modified", "")
    mtime = None
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        mtime = max(0, int(parsedate_to_datetime(modified).timestamp())) * 10**9
    return Fetched(into, f"sha256:{total.hexdigest()}", mtime)


def _wrong(url: str, why: str, hint: str = "") -> ContextError:
    return ContextError(f"ADD cannot fetch {url[:200]}: {why}.", hint=hint, code="context.remote")
