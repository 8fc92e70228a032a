"""Files from the web for ADD: fetched under the rules that a build step's own network has.

Addresses are judged (``addresses``) and connected to by number (``pinned``), each redirect anew.
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

from builders.certificates import trusted
from builders.errors import ContextError
from builders.remote.addresses import Unreachable, parse_allowed, reachable
from builders.remote.pinned import PinnedTransport

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
    transport = PinnedTransport(lambda host, port: reachable(host, port, allowed), verify=trusted())
    with httpx.Client(transport=transport, timeout=30.0, trust_env=False) as client:
        for _ in range(_MOST_REDIRECTS + 1):
            with _answer(client, url) as response:
                location = response.headers.get("Location", "")
                if response.status_code not in _REDIRECTS or not location:
                    return _kept(response, asked, into, most, deadline)
            url = _next(url, location)
    raise _wrong(asked, "it redirects in circles")


def _next(url: str, location: str) -> str:
    try:
        following = urljoin(url, location)
        scheme = urlsplit(following).scheme
    except ValueError:
        raise _wrong(url, "it redirects to what is no address") from None
    if urlsplit(url).scheme == "https" and scheme != "https":
        raise _wrong(url, "it redirects to an address without encryption")
    return following


@contextlib.contextmanager
def _answer(client: httpx.Client, url: str) -> Iterator[httpx.Response]:
    parts = urlsplit(url)
    try:
        _ = parts.port
    except ValueError:
        raise _wrong(url, "its port is no number") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _wrong(url, "it is no http or https address")
    try:
        request = client.build_request("GET", url, headers={"Accept-Encoding": "identity"})
        response = client.send(request, stream=True)
    except Unreachable as error:
        raise _wrong(url, str(error), error.hint) from None
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as error:
        raise _wrong(url, f"{parts.hostname} cannot be reached ({error})") from error
    try:
        yield response
    finally:
        response.close()


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
