"""Following a pipeline's page as a browser does: signed in, by EventSource with Last-Event-ID."""

from __future__ import annotations

import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

import httpx

from tests.e2e.service import Service

_NUMBER = re.compile(r">(\d+)</a>")


def signed_in(service: Service) -> httpx.Client:
    """A browser's session of the administrator."""
    client = httpx.Client(base_url=service.url, trust_env=False, timeout=20)
    client.get("/login/")
    data = {"username": "admin", "password": service.password}
    data["csrfmiddlewaretoken"] = client.cookies["gantry_csrf"]
    answer = client.post("/login/", data=data, headers={"Referer": service.url})
    assert answer.status_code == 302, answer.text
    return client


@dataclass
class Follower:
    """Reads a pipeline's events in a thread, and comes back whenever it is cut off."""

    client: httpx.Client
    path: str
    job: int = 1
    pause: float = 0.2  # seconds before it comes back
    numbers: list[int] = field(default_factory=list)  # of the job's log lines, as they came
    first_at: float = 0.0  # time.time() of the first of them
    connections: int = 0
    ended: str = ""
    _last_id: str = ""

    def start(self) -> threading.Thread:
        thread = threading.Thread(target=self._follow, daemon=True)
        thread.start()
        return thread

    def _follow(self) -> None:
        deadline = time.monotonic() + 120
        while not self.ended and time.monotonic() < deadline:
            with suppress(httpx.HTTPError):
                self._read()
            if not self.ended:
                time.sleep(self.pause)

    def _read(self) -> None:
        headers = {"Last-Event-ID": self._last_id} if self._last_id else {}
        with self.client.stream("GET", self.path, headers=headers) as answer:
            if answer.status_code != 200:
                return
            self.connections += 1
            event, data, new_id = "", [], self._last_id
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    event = value
                elif name == "data":
                    data.append(value)
                elif name == "id":
                    new_id = value
                elif not line and event:
                    # As EventSource: what was cut off in the middle did not happen.
                    self._last_id = new_id
                    self._take(event, "\n".join(data))
                    event, data = "", []
                if self.ended:
                    return

    def _take(self, event: str, data: str) -> None:
        if event == "log":
            for part in data.split("<template ")[1:]:
                if f'data-job="{self.job}"' in part:
                    self.first_at = self.first_at or time.time()
                    self.numbers += map(int, _NUMBER.findall(part))
        elif event in {"end", "restart"}:
            self.ended = event
