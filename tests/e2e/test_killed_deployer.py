"""The deployments' worker is killed in the middle of one, with all that runs around it; and
containers that somebody took away. What the page says then, and when."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.e2e.follow import signed_in
from tests.e2e.service import BASE, Repository, Service, containers_of, descendants, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(300)]
WITHIN = 60.0  # seconds
DOCKERFILE = f"""
FROM {BASE}
COPY page /www/index.html
EXPOSE 8080
CMD ["python3", "-m", "http.server", "8080", "-d", "/www"]
"""


class Place:
    """The environment's page as a browser loads it, and what its port answers."""

    def __init__(self, service: Service, browser: httpx.Client) -> None:
        row = service.get("environments/", project="killed")["results"][0]
        self.page = f"/projects/killed/environments/{row['name']}/"
        self.address = f"http://127.0.0.1:{row['port']}/"
        self._browser = browser

    def text(self) -> str:
        return self._browser.get(self.page).raise_for_status().text

    def shown(self) -> tuple[str, str]:
        """The release that the page says runs, and the state of what was deployed last."""
        text = self.text()
        runs = re.search(r'<a class="ver"[^>]*>(v\d+)</a>', text)
        last = re.search(r'id="history".*?<span class="list-state">(\w+)', text, re.DOTALL)
        return (runs[1] if runs else "", last[1] if last else "")

    def served(self) -> str:
        return httpx.get(self.address, trust_env=False, timeout=5).text


@pytest.fixture
def place(service: Service, tmp_path: Path) -> Iterator[tuple[Place, Repository]]:
    service.make_project("killed", "qa")
    clone = Repository(tmp_path / "killed", service, "killed")
    commit = clone.push({"Dockerfile": DOCKERFILE, "page": "v1"})
    assert service.pipeline_of("killed", commit)["state"] == "passed"
    assert service.deployment("killed", "qa", 1)["state"] == "succeeded"
    with closing(signed_in(service)) as browser:
        yield Place(service, browser), clone


def test_the_page_is_true_again_within_a_minute(
    service: Service, place: tuple[Place, Repository]
) -> None:
    page, clone = place
    clone.push({"page": "v2"})
    wait_for(lambda: _is_checked(service), 120)
    with probed(page.address) as answers:
        killed = deployer(service)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        assert page.shown()[0] == page.served() == "v1", "nothing was switched yet"
        wait_for(lambda: True if page.shown() == ("v2", "succeeded") else None, WITHIN)
        assert time.monotonic() - began < WITHIN
    assert page.served() == "v2"
    lost = [answer for answer in answers if answer not in {"v1", "v2"}]
    assert len(lost) <= len(answers) / 1000, lost
    [deployment] = [
        row for row in service.get("deployments/", project="killed")["results"]
        if row["release_name"] == "v2"
    ]  # fmt: skip
    assert deployment["attempt"] == 2
    died = [step for step in deployment["steps"] if step["detail"] == "The worker died here."]
    assert [step["name"] for step in died] == ["check"]
    assert not set(killed) & set(deployer(service))

    [container] = containers_of(service.home, project="killed", environment="qa")
    # Tried again: who starts what crashed may start it between its end and its removal.
    remove = ["podman", "rm", "--force", "--time", "0", container]
    wait_for(lambda: subprocess.run(remove, check=False).returncode == 0 or None, 10)
    wait_for(lambda: True if "its container is gone" in page.text() else None, WITHIN)


def _is_checked(service: Service) -> bool | None:
    """Whether v2 has been started and gets no traffic yet."""
    for row in service.get("deployments/", project="killed")["results"]:
        if row["release_name"] == "v2" and row["state"] == "running":
            names = [step["name"] for step in row["steps"]]
            return names[-1:] == ["check"] or None
    return None


def deployer(service: Service) -> list[int]:
    """The worker of deployments and its children."""
    found = []
    for pid in descendants(service.process.pid):
        with suppress(FileNotFoundError):  # it ended meanwhile
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"celery" in words and b"deployments" in words:
                found.append(pid)
    assert found
    return found


@contextmanager
def probed(address: str) -> Iterator[list[str]]:
    """20 requests a second, each by a connection of its own; what was answered."""
    answers: list[str] = []
    over = threading.Event()

    def ask() -> None:
        each_alone = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(limits=each_alone, timeout=5, trust_env=False) as client:
            while not over.wait(0.05):
                try:
                    answers.append(client.get(address).text)
                except httpx.HTTPError as error:
                    answers.append(repr(error))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield answers
    finally:
        over.set()
        asking.join()
