"""``/api/v1/`` over httpx: rows in, rows out, refusals as CliError with the right exit code."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from typing import Any, NoReturn

import httpx

from ciserver import __version__
from ciserver.cli import output
from ciserver.cli.errors import CliError, Exit
from ciserver.cli.refusals import OTHER_VERSION, refusal
from ciserver.cli.settings import Settings

Row = dict[str, Any]

MOST_ROWS = 200  # of one answer
PATIENCE = 150  # seconds for which one request waits in all, where the service asks for that

_LOCAL = {"127.0.0.1", "localhost", "::1"}
# A process of the service ended meanwhile, or let go of a connection that nobody had used.
_BROKEN = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)


class _Answer(Row):
    """A JSON object of the service. What is wanted of it and not there is of another version."""

    def __missing__(self, key: str) -> NoReturn:
        raise CliError(
            f"The service's answer has no {key!r}: it is older or newer than this client,"
            f" which is {__version__}.",
            next_step=OTHER_VERSION,
            exit_code=Exit.UNREACHABLE,
        )


class Client:
    """One service and one token. Close it, or use it as a context manager."""

    def __init__(self, settings: Settings, *, timeout: float = 30) -> None:
        self.url = settings.url
        self._http = httpx.Client(
            base_url=f"{settings.url}/api/v1",
            headers={"Authorization": f"Bearer {settings.token}"},
            timeout=timeout,
            # A proxy for the outside world has no way to this machine's own ports.
            trust_env=httpx.URL(settings.url).host not in _LOCAL,
            # Without TLS there is no need to spend a twentieth of a second on authorities.
            verify=httpx.URL(settings.url).scheme == "https",
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str) -> Row:
        return self._read(self._ask("GET", path))

    def rows(self, path: str, *, limit: int = 50, **filters: str) -> list[Row]:
        """The newest ``limit`` rows."""
        size = str(min(limit, MOST_ROWS))
        return list(islice(self.every(path, page_size=size, **filters), limit))

    def every(self, path: str, **filters: str) -> Iterator[Row]:
        """All rows, page after page, newest first."""
        page = self._read(self._ask("GET", path, params=filters))
        while True:
            yield from page["results"]
            if not page["next"]:
                return
            page = self._read(self._ask("GET", page["next"]))

    def post(self, path: str, **body: object) -> Row:
        return self._read(self._ask("POST", path, json=body))

    def patch(self, path: str, **body: object) -> Row:
        return self._read(self._ask("PATCH", path, json=body))

    def list(self, path: str, **filters: str) -> list[Row]:
        """Rows of an address that has no pages."""
        rows: list[Row] = self._json(self._ask("GET", path, params=filters), list)
        return rows

    def put(self, path: str, **body: object) -> Row:
        return self._read(self._ask("PUT", path, json=body))

    def send(self, method: str, path: str, **body: object) -> None:
        """What has no answer but that it is done."""
        self._ask(method, path, json=body)

    def delete(self, path: str) -> None:
        self._ask("DELETE", path)

    def delete_after(self, path: str, **asked: str) -> Row:
        """How what is to be deleted stands, since that is done later."""
        return self._read(self._ask("DELETE", path, params=asked))

    def log(self, job: int, position: str) -> tuple[str, str]:
        """What a job's log holds behind ``position`` (``0-0``: its start), and where that ends."""
        answer = self._ask("GET", f"/jobs/{job}/log/", params={"after": position})
        return answer.text, answer.headers["Log-Position"]

    def chunks(self, path: str) -> Iterator[bytes]:
        """The bytes of a file, as they come."""
        with self._stream(path) as answer:
            yield from answer.iter_bytes()

    def events(self, path: str) -> Iterator[tuple[str, str]]:
        """Name and data of each server-sent event, as they come; data has one line here."""
        event = ""
        with self._stream(path) as answer:
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    event = value
                elif name == "data":
                    yield event, value

    def _read(self, answer: httpx.Response) -> Row:
        row: Row = self._json(answer, _Answer)
        return row

    def _json(self, answer: httpx.Response, kind: type) -> Any:
        """A ``kind`` of JSON. Raises CliError for anything else, such as the page of a portal to
        sign in at."""
        with suppress(ValueError):
            found = json.loads(answer.content, object_hook=_Answer)
            if isinstance(found, kind):
                return found
        raise CliError(
            f"What answers at {self.url} is not Gantry:"
            f" {answer.headers.get('Content-Type', 'it does not say what that is')}.",
            next_step="Look at that address with a browser, then: gantry login URL",
            exit_code=Exit.UNREACHABLE,
        )

    def _unreachable(self, error: httpx.HTTPError) -> CliError:
        return CliError(
            f"{self.url} cannot be reached: {str(error).rstrip('.')}.",
            next_step="Start it with 'gantry up', or log in elsewhere: gantry login URL",
            exit_code=Exit.UNREACHABLE,
        )

    def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Once more when the connection broke: by its key a write is done once."""
        key = {} if method == "GET" else {"Idempotency-Key": str(uuid.uuid4())}
        request = partial(self._http.request, method, path, headers=key, **options)
        waited = 0
        while True:
            try:
                try:
                    answer = request()
                except _BROKEN:
                    answer = request()
            except httpx.HTTPError as error:
                raise self._unreachable(error) from None
            if not answer.is_error:
                return answer
            waited = _wait(answer, waited)

    @contextmanager
    def _stream(self, path: str) -> Iterator[httpx.Response]:
        waited = 0
        while True:
            try:
                with self._http.stream("GET", path) as answer:
                    if not answer.is_error:
                        yield answer
                        return
                    answer.read()
            except httpx.HTTPError as error:
                raise self._unreachable(error) from None
            waited = _wait(answer, waited)


def given(**filters: str) -> dict[str, str]:
    """Those that are not empty."""
    return {name: value for name, value in filters.items() if value}


def _wait(answer: httpx.Response, waited: int) -> int:
    """Wait as long as ``Retry-After`` of a 429 says; the seconds in all. Raises CliError where it
    says nothing, or more than anybody waits."""
    told = answer.headers.get("Retry-After", "")
    if answer.status_code != httpx.codes.TOO_MANY_REQUESTS or not told.isdecimal():
        raise refusal(answer)
    seconds = max(1, int(told))
    if waited + seconds > PATIENCE:
        raise refusal(answer)
    output.complaints.print(f"The service takes no more requests for {seconds} s: waiting.")
    time.sleep(seconds)
    return waited + seconds
