"""The event stream over a real server: no line is lost, none comes twice, whatever breaks."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.ciserver.pages.serving import Stage, another_web


class Reader:
    """Reads a stream like EventSource: remembers the last id, gives events one by one."""

    def __init__(self, stage: Stage, number: int, *, name: str = "alice") -> None:
        self.url = f"{stage.url}/projects/hello/pipelines/{number}/events"
        self.cookies = stage.cookies(name)
        self.last_id = ""

    def read(
        self, *, seconds: float = 20, opened: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[str, str]]:
        headers = {"Last-Event-ID": self.last_id} if self.last_id else {}
        with (
            httpx.Client(timeout=seconds, cookies=self.cookies) as client,
            client.stream("GET", self.url, headers=headers) as answer,
        ):
            assert answer.status_code == 200
            self.headers = answer.headers
            opened()
            yield from self._events(answer.iter_lines())

    def _events(self, lines: Iterator[str]) -> Iterator[tuple[str, str]]:
        event, data, new_id = "", [], ""
        for line in lines:
            if line == "":
                if event:
                    self.last_id = new_id
                    yield event, "\n".join(data)
                event, data, new_id = "", [], self.last_id
                continue
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                event = value
            elif name == "data":
                data.append(value)
            elif name == "id":
                new_id = value


def numbers(html: str) -> list[int]:
    return [int(text) for text in re.findall(r"line (\d+)\.", html)]


def test_a_reader_that_is_cut_off_again_and_again_gets_every_line_once(stage: Stage) -> None:
    pipeline = stage("start")
    reader = Reader(stage, pipeline["number"])
    total = 5000
    pusher = threading.Thread(
        target=lambda: stage(
            "number_lines", pipeline=pipeline["id"], first=1, last=total, every=250, pause=0.05
        )
    )
    pusher.start()
    seen: list[int] = []
    while len(seen) < total:
        for taken, (event, data) in enumerate(reader.read()):
            if event == "log":
                seen += numbers(data)
            if taken >= 3 or len(seen) >= total:
                break  # the connection is dropped here
    pusher.join()
    assert seen == list(range(1, total + 1))
    stage("finish", pipeline=pipeline["id"])
    rest = list(reader.read())
    assert [number for _, data in rest for number in numbers(data)] == []
    assert rest[-1] == ("end", "passed")


def test_lines_come_in_less_than_half_a_second(stage: Stage) -> None:
    pipeline = stage("start")
    reader = Reader(stage, pipeline["number"])
    events = reader.read()
    next(events)
    delays = []
    for number in range(10):
        before = time.monotonic()
        stage("number_lines", pipeline=pipeline["id"], first=number, last=number)
        for event, data in events:
            if event == "log" and numbers(data) == [number]:
                break
        delays.append(time.monotonic() - before)
    stage("finish", pipeline=pipeline["id"])
    assert sorted(delays)[5] < 0.5


def test_the_stream_says_it_must_not_be_held_back(stage: Stage) -> None:
    pipeline = stage("start")
    reader = Reader(stage, pipeline["number"])
    next(reader.read())
    assert reader.headers["content-type"] == "text/event-stream"
    assert reader.headers["cache-control"] == "no-store"
    assert reader.headers["x-accel-buffering"] == "no"
    stage("finish", pipeline=pipeline["id"])


def test_state_comes_before_the_end_and_the_end_closes_the_stream(stage: Stage) -> None:
    pipeline = stage("start")
    reader = Reader(stage, pipeline["number"])
    events = reader.read()
    assert next(events)[0] == "state"
    stage("write", pipeline=pipeline["id"], text="gcc: error: no input files\n", stream="err")
    place = "Dockerfile:2"
    stage("fail", pipeline=pipeline["id"], reason="RUN make ended with 2.", place=place)
    kinds = []
    html = ""
    for event, data in events:
        kinds.append(event)
        html += data
    assert kinds[-1] == "end"
    assert "gcc: error: no input files" in html
    assert "RUN make ended with 2." in html
    assert 'class="verdict is-failed"' in html


def test_a_pipeline_that_has_ended_ends_its_stream_at_once(stage: Stage) -> None:
    reader = Reader(stage, 5)
    kinds = [event for event, _ in reader.read()]
    assert kinds[-1] == "end"
    assert "log" in kinds


def test_another_attempt_tells_the_page_to_load_again(stage: Stage) -> None:
    pipeline = stage("start")
    stage("number_lines", pipeline=pipeline["id"], first=1, last=10)
    reader = Reader(stage, pipeline["number"])
    events = reader.read()
    assert any(event == "log" for event, _ in [next(events), next(events)])
    stage("restart", pipeline=pipeline["id"])
    assert [event for event, _ in events][-1] == "restart"
    assert [event for event, _ in reader.read()] == ["restart"]
    stage("finish", pipeline=pipeline["id"])


def test_charlie_is_told_nothing(stage: Stage) -> None:
    url = f"{stage.url}/projects/hello/pipelines/5/events"
    for cookies in ({}, stage.cookies("charlie")):
        answer = httpx.get(url, cookies=cookies)
        assert answer.status_code == 404
        assert "hello" not in answer.text


NEVER_GIVEN = [
    "x", "1.2", "1.1-2", "1.1-a-b", "-", "1.1--5-2", "1\x00", "+1", "1_0", "1.+1-0-0",
    "9" * 10, "1.1-0-" + "9" * 16, "1.1-" + "9" * 4500 + "-0", "1." + "9" * 10 + "-0-0",
]  # fmt: skip


@pytest.mark.parametrize("text", NEVER_GIVEN)
def test_an_id_that_we_never_gave_is_refused(stage: Stage, text: str) -> None:
    url = f"{stage.url}/projects/hello/pipelines/5/events"
    answer = httpx.get(url, params={"from": text}, cookies=stage.cookies())
    assert answer.status_code == 400


@pytest.mark.parametrize("place", ["1-1-5", "1-5-3", "1-0-7"])
def test_a_place_inside_of_a_line_tells_the_page_to_load_again(stage: Stage, place: str) -> None:
    pipeline = stage("start")
    stage("number_lines", pipeline=pipeline["id"], first=1, last=10)
    reader = Reader(stage, pipeline["number"])
    reader.last_id = f"1.{place}"
    assert [event for event, _ in reader.read()][-1] == "restart"
    assert reader.last_id == "1"
    stage("finish", pipeline=pipeline["id"])


def test_long_and_broken_lines_arrive_whole(stage: Stage) -> None:
    pipeline = stage("start")
    events = Reader(stage, pipeline["number"]).read()
    next(events)
    stage("write", pipeline=pipeline["id"], text="x" * 200_000 + "\n\n  \rlast\n")
    stage("finish", pipeline=pipeline["id"])
    html = "".join(data for event, data in events if event == "log")
    assert html.count("x") >= 200_000
    assert "last" in html
    assert html.count('<span class="l') == 6


def test_two_hundred_thousand_lines_arrive_in_order(stage: Stage) -> None:
    pipeline = stage("start")
    stage("number_lines", pipeline=pipeline["id"], first=1, last=100_000)
    stage("number_lines", pipeline=pipeline["id"], first=100_001, last=200_000)
    stage("finish", pipeline=pipeline["id"])
    seen = 0
    for event, data in Reader(stage, pipeline["number"]).read():
        if event == "log":
            for number in numbers(data):
                seen += 1
                assert number == seen
    assert seen == 200_000


def test_a_stopping_server_ends_its_streams(stage: Stage) -> None:
    pipeline = stage("start")
    with another_web(stage) as own:
        events = Reader(own, pipeline["number"]).read()
        next(events)
        before = time.monotonic()
        own.web.send_signal(signal.SIGTERM)
        list(events)
        own.web.wait(10)
        assert time.monotonic() - before < 5
    stage("finish", pipeline=pipeline["id"])


def test_who_waits_for_the_next_pipeline_gets_its_first_line_at_once(stage: Stage) -> None:
    before_it = stage("start")
    page = httpx.get(f"{stage.url}/projects/hello/pipelines/next/", cookies=stage.cookies())
    address = f"/projects/hello/pipelines/next/events?after={before_it['number']}"
    assert f'data-events="{address}"' in page.text
    reader = Reader(stage, 0)
    reader.url = stage.url + address
    found: list[tuple[str, str, float]] = []
    opened = threading.Event()
    thread = threading.Thread(target=lambda: follow_next(reader, found, opened))
    thread.start()
    assert opened.wait(10)
    pipeline = stage("start", title="It's <me>")
    before = time.monotonic()
    stage("number_lines", pipeline=pipeline["id"], first=1, last=1)
    thread.join(20)
    assert [kind for kind, *_ in found[:2]] == ["begin", "state"]
    assert f'data-address="/projects/hello/pipelines/{pipeline["number"]}/"' in found[0][1]
    assert "It&#x27;s &lt;me&gt;" in found[0][1]
    assert (found[-1][0], numbers(found[-1][1])) == ("log", [1])
    assert found[-1][2] - before < 3  # it looks every two, were Redis away
    # Whoever comes back goes on with the same one, also when there is another by now.
    another = stage("start")
    stage("number_lines", pipeline=pipeline["id"], first=2, last=2)
    for one in (pipeline, another, before_it):
        stage("finish", pipeline=one["id"])
    rest = list(reader.read())
    assert [number for kind, data in rest if kind == "log" for number in numbers(data)] == [2]
    assert rest[-1] == ("end", "passed") and "begin" not in dict(rest)


def follow_next(
    reader: Reader, found: list[tuple[str, str, float]], opened: threading.Event
) -> None:
    for event, data in reader.read(opened=opened.set):
        found.append((event, data, time.monotonic()))
        if event == "log":
            return


@pytest.mark.parametrize("after", ["", "-1", "x", "²", "1" * 30])
def test_only_an_address_that_the_page_gave_is_waited_at(stage: Stage, after: str) -> None:
    url = f"{stage.url}/projects/hello/pipelines/next/events"
    answer = httpx.get(url, params={"after": after}, cookies=stage.cookies())
    assert answer.status_code == 400
    assert httpx.get(url, cookies=stage.cookies("charlie")).status_code == 404
