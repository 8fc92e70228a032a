"""The HTTP API as the demo uses it: JSON in, JSON out, refusals as OpsError."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

import httpx

from ciserver.ops.errors import OpsError

Found = TypeVar("Found")
Row = dict[str, Any]


class Api:
    """``/api/v1/`` of one installation, with one token."""

    def __init__(self, url: str, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        # trust_env: a proxy for the outside world must not carry requests to this machine.
        self._http = httpx.Client(
            base_url=f"{url}/api/v1", headers=headers, timeout=30, trust_env=False
        )

    def __enter__(self) -> Api:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def get(self, path: str, **params: str) -> Row:
        return dict(self._ask("GET", path, params=params).json())

    def rows(self, path: str, **params: str) -> list[Row]:
        """The newest page of a list."""
        return list(self.get(path, **params)["results"])

    def post(self, path: str, **body: object) -> Row:
        return dict(self._ask("POST", path, json=body).json())

    def log(self, job: int, position: str) -> tuple[str, str]:
        """What a job's log holds behind ``position``, and where that ends."""
        answer = self._ask("GET", f"/jobs/{job}/log/", params={"after": position})
        return answer.text, answer.headers["Log-Position"]

    def exists(self, path: str) -> bool:
        return self._http.get(path).status_code == httpx.codes.OK

    def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise OpsError(
                f"{method} {path} got no answer: {error}.",
                next_step="Is the service up? Its logs are in $GANTRY_HOME/logs/service/.",
            ) from error
        if answer.is_error:
            raise OpsError(
                f"{method} {path} was refused ({answer.status_code}): {_detail(answer)}",
                next_step="The web process's log is in $GANTRY_HOME/logs/service/web.log.",
            )
        return answer


def wait_for(
    look: Callable[[], Found | None], *, seconds: float, what: str, pause: float = 0.1
) -> Found:
    """Calls ``look`` until it finds something. Raises OpsError after ``seconds``."""
    deadline = time.monotonic() + seconds
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise OpsError(
                f"{what} did not happen within {seconds:.0f} s.",
                next_step="The worker's log is in $GANTRY_HOME/logs/service/worker.log.",
            )
        time.sleep(pause)
    return found


def _detail(answer: httpx.Response) -> str:
    try:
        document = answer.json()
        words = (document["detail"], document.get("hint"), document.get("errors"))
        return " ".join(str(word) for word in words if word)
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]
