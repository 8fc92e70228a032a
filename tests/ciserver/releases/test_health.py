"""The gate before traffic: how long it waits for what."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ciserver.lib.crypto import Secret
from ciserver.lib.masking import Masker
from ciserver.releases import health
from ciserver.releases.health import Gate, Unhealthy
from ciserver.releases.targets import Target
from ciserver.releases.targets.base import probe_http
from ciserver.releases.targets.spec import Check, Container

CONTAINER = Container(
    id="c1",
    name="one",
    image_id="sha256:aa",
    labels={},
    running=True,
    oom_killed=False,
    restarts=0,
    address="",
)


@dataclass
class Hanging:
    """A target whose HEALTHCHECK hangs for as long as it may, and once passes if told so."""

    passes: bool = False
    says: str = ""
    logged: str = ""
    allowed: list[float] = field(default_factory=list)

    def find(self, name: str) -> Container:
        return CONTAINER

    def probe(self, container: Container, check: Check, **_: Any) -> str:
        self.allowed.append(check.timeout)
        if self.passes:
            return ""
        if self.says:
            return self.says
        time.sleep(check.timeout)
        return f"the HEALTHCHECK did not end within {check.timeout:g} s"

    def last_lines(self, container: Container, lines: int) -> str:
        return self.logged


@dataclass
class Restarted(Hanging):
    """A target whose container passes, and is another, or another time up, after so many tries."""

    after: int = 1
    then: Container = CONTAINER

    def find(self, name: str) -> Container:
        return self.then if len(self.allowed) > self.after else CONTAINER

    def exit_code(self, container: Container) -> int:
        return 3


@pytest.mark.parametrize("after", [1, 2], ids=["between two passes", "before the last try"])
@pytest.mark.parametrize(
    ("then", "words"),
    [
        (replace(CONTAINER, restarts=1), "it ended with exit code 3"),
        (replace(CONTAINER, started="later"), "it ended with exit code 3"),
        (replace(CONTAINER, oom_killed=True), "it ran out of memory"),
        (replace(CONTAINER, id="c2"), "somebody removed the container"),
    ],
)
def test_a_container_that_is_not_the_one_that_passed_is_not_healthy_without_a_quiet_while_too(
    after: int, then: Container, words: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr(health, "BETWEEN_TRIES", 0)
    target = Restarted(passes=True, after=after, then=then)
    strict = Gate(cast(Target, target), Check(path="/"), 60, stable_for=0)
    with pytest.raises(Unhealthy, match=words):
        strict.wait(CONTAINER)


@dataclass
class Starved(Hanging):
    """A target whose container's first process lives on when memory was out for another."""

    def find(self, name: str) -> Container:
        return replace(CONTAINER, pid=7, oom_killed=bool(self.allowed))

    def checked(self, found: Sequence[Container]) -> Sequence[Container]:
        return found


def test_a_container_whose_workers_run_out_of_memory_is_told_so_when_it_never_gets_healthy(
    monkeypatch: Any,
) -> None:
    monkeypatch.setattr(health, "BETWEEN_TRIES", 0.2)
    target = Starved(says="nothing answers on its port")
    with pytest.raises(Unhealthy, match="it ran out of memory"):
        Gate(cast(Target, target), Check(tcp=True), 0.5).wait(replace(CONTAINER, pid=7))


def test_without_a_quiet_while_the_engine_is_asked_beside_the_first_try_and_at_the_end(
    monkeypatch: Any,
) -> None:
    monkeypatch.setattr(health, "BETWEEN_TRIES", 0)
    target, asked = Hanging(passes=True), []
    monkeypatch.setattr(target, "find", lambda name: asked.append(name) or CONTAINER)
    Gate(cast(Target, target), Check(path="/"), 60, stable_for=0).wait(CONTAINER)
    assert asked == ["one", "one"]


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (["", "sick"], "GET / did not pass 2 times in a row: sick"),
        (["sick", ""], "GET / did not pass 2 times in a row"),
        (["sick", "sick"], "not healthy within 0.1 s: sick"),
    ],
)
def test_what_passes_now_and_then_is_told_from_what_never_does(
    answers: list[str], words: str, monkeypatch: Any
) -> None:
    target, said = Hanging(), iter(answers * 9)
    monkeypatch.setattr(target, "probe", lambda container, check, pulse: next(said))
    clock = SimpleNamespace(monotonic=itertools.count(0, 0.03).__next__, sleep=lambda seconds: None)
    monkeypatch.setattr(health, "time", clock)
    with pytest.raises(Unhealthy) as error:
        Gate(cast(Target, target), Check(path="/"), 0.1).wait(CONTAINER)
    assert words in str(error.value)


def gate(target: Hanging, *, check: float, timeout: float) -> Gate:
    return Gate(cast(Target, target), Check(command=("wait",), timeout=check), timeout)


def test_a_healthcheck_that_may_take_for_ever_does_not_take_longer_than_the_gate() -> None:
    target = Hanging()
    started = time.monotonic()
    with pytest.raises(Unhealthy, match=r"not healthy within 1\.2 s: the HEALTHCHECK did not end"):
        gate(target, check=100 * 3600, timeout=1.2).wait(CONTAINER)
    assert time.monotonic() - started < 1.2 + health.SHORTEST_TRY + health.BETWEEN_TRIES + 1
    assert target.allowed[0] <= 1.2


def test_a_healthcheck_keeps_its_own_shorter_timeout(monkeypatch: Any) -> None:
    monkeypatch.setattr(health, "STABLE_FOR", 0)
    monkeypatch.setattr(health, "BETWEEN_TRIES", 0)
    target = Hanging(passes=True)
    gate(target, check=3, timeout=60).wait(CONTAINER)
    assert target.allowed == [3, 3, 3]


def test_the_last_try_is_bounded_too(monkeypatch: Any) -> None:
    monkeypatch.setattr(health, "STABLE_FOR", 0)
    monkeypatch.setattr(health, "BETWEEN_TRIES", 0)
    target = Hanging(passes=True)
    gate(target, check=100 * 3600, timeout=60).wait(CONTAINER)
    assert max(target.allowed) <= 60


def test_secrets_are_taken_out_of_what_it_said_before_that_is_cut() -> None:
    secret = "correct-horse-battery"
    target = Hanging(
        says=f"the HEALTHCHECK ended with exit code 1: {secret}{'x' * 290}",
        logged=f"{secret}{'x' * (health.MOST_LOG - 1)}",
    )
    masker = Masker([Secret(secret)])
    gate = Gate(cast(Target, target), Check(), 0, mask=masker.mask_text)
    with pytest.raises(Unhealthy) as failure:
        gate.wait(CONTAINER)
    said = str(failure.value)
    assert "the HEALTHCHECK ended with exit code 1: ***xx" in said
    assert "Its last words: *xxx" in said
    assert "battery" not in said
    for length in range(0, 800, 7):
        target.says = f"it failed: {'x' * length}{secret}{'y' * 300}"
        with pytest.raises(Unhealthy) as failure:
            gate.wait(CONTAINER)
        assert not any(part in str(failure.value) for part in (secret[:4], secret[-4:]))


def test_a_server_that_dribbles_its_answer_has_no_longer_than_the_whole_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def dribble() -> None:
            client, _ = server.accept()
            with client:
                client.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                while not stop.wait(0.1):
                    with suppress(OSError):
                        client.sendall(b"x")

        thread = threading.Thread(target=dribble)
        thread.start()
        start = time.monotonic()
        said = probe_http(f"http://127.0.0.1:{server.getsockname()[1]}/", 0.5)
        taken = time.monotonic() - start
        stop.set()
        thread.join()
    assert said == "GET / had no answer within 0.5 s"
    assert taken < 3
