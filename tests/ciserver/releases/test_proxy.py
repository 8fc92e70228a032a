"""Caddy's admin API, spoken to a real Caddy."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from ciserver.releases.targets.errors import TrafficError
from ciserver.releases.targets.proxy import Proxy
from tests.ciserver.releases.conftest import free_port, wait_for


@contextmanager
def answering(word: str, *, tells: Sequence[str] = ()) -> Iterator[str]:
    """A server that says ``word``, after two seconds when asked for /slow; or what came in the
    headers ``tells``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/slow":
                time.sleep(2)
            self.send_response(200)
            self.end_headers()
            self.wfile.write((" ".join(str(self.headers[one]) for one in tells) or word).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def proxy(caddy_socket: Path) -> Iterator[Proxy]:
    opened = Proxy(caddy_socket)
    for name in opened.routes():  # other tests use the same Caddy
        opened.forget(name)
    yield opened
    for name in opened.routes():
        opened.forget(name)


def test_next_to_nobody_who_connects_is_reset_while_routes_change(proxy: Proxy) -> None:
    """Without the kernel's setting three in a hundred are; with it one was, in thousands. A
    deployment has to serve 999 of a thousand."""
    port, other = free_port(), free_port()
    lost: list[str] = []
    asked: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            asked.append(1)
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=10) as caller:
                    caller.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    assert caller.recv(12) == b"HTTP/1.1 200"
            except OSError as error:
                lost.append(repr(error))

    with answering("one") as one:
        proxy.serve("a", port=port, upstream=one)
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        changes = itertools.count(9000)
        while len(asked) < 3000:
            proxy.serve("b", port=other, upstream=f"127.0.0.1:{next(changes)}")
        stop.set()
        for thread in threads:
            thread.join()
    assert len(lost) <= len(asked) / 1000, lost


def test_a_route_is_made_changed_and_forgotten(proxy: Proxy) -> None:
    port = free_port()
    with answering("one") as one, answering("two") as two:
        proxy.serve("a", port=port, upstream=one)
        proxy.serve("a", port=port, upstream=one)
        assert httpx.get(f"http://127.0.0.1:{port}/", verify=False).text == "one"
        proxy.serve("a", port=port, upstream=two)
        assert httpx.get(f"http://127.0.0.1:{port}/", verify=False).text == "two"
        assert proxy.routes() == {"a": two}
        proxy.forget("a")
        proxy.forget("a")
    assert proxy.routes() == {}
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/", verify=False)


def test_a_request_under_way_ends_where_it_began_and_is_waited_for(proxy: Proxy) -> None:
    port = free_port()
    said: list[str] = []
    with answering("one") as one, answering("two") as two:
        proxy.serve("a", port=port, upstream=one)
        slow = threading.Thread(
            target=lambda: said.append(
                httpx.get(f"http://127.0.0.1:{port}/slow", verify=False).text
            )
        )
        slow.start()
        wait_for(lambda: not proxy._is_idle(one, 0))
        proxy.serve("a", port=port, upstream=two)
        assert not proxy._is_idle(one, 0), "it is still under way and still counted"
        assert httpx.get(f"http://127.0.0.1:{port}/", verify=False).text == "two"
        assert proxy.drain("a", seconds=10)
        slow.join()
        assert proxy.drain("a", seconds=0), "asked again after the end"
        assert proxy.routes() == {"a": two}
        assert httpx.get(f"http://127.0.0.1:{port}/", verify=False).text == "two"
    assert said == ["one"]


def test_a_request_that_never_ends_is_not_waited_for_for_ever(proxy: Proxy) -> None:
    port = free_port()
    with answering("one") as one, answering("two") as two:
        proxy.serve("a", port=port, upstream=one)
        slow = threading.Thread(
            target=lambda: httpx.get(f"http://127.0.0.1:{port}/slow", verify=False)
        )
        slow.start()
        wait_for(lambda: not proxy._is_idle(one, 0))
        proxy.serve("a", port=port, upstream=two)
        assert not proxy.drain("a", seconds=0.1)
        slow.join()


def test_what_is_closed_refuses_new_requests_and_waits_for_those_under_way(proxy: Proxy) -> None:
    port = free_port()
    said: list[str] = []
    with answering("one") as one, answering("two") as two:
        proxy.serve("a", port=port, upstream=one)
        proxy.serve("b", port=free_port(), upstream=two)
        slow = threading.Thread(
            target=lambda: said.append(
                httpx.get(f"http://127.0.0.1:{port}/slow", verify=False).text
            )
        )
        slow.start()
        wait_for(lambda: not proxy._is_idle(one, 0))
        closing = threading.Thread(target=lambda: proxy.close("a", seconds=10))
        closing.start()
        wait_for(lambda: not proxy.routes()["a"])
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{port}/", verify=False)
        assert said == []
        closing.join()
        slow.join()
        assert said == ["one"]
        assert proxy.routes() == {"b": two}
        proxy.close("a", seconds=10)
        proxy.serve("a", port=port, upstream=one)
        assert httpx.get(f"http://127.0.0.1:{port}/", verify=False).text == "one", (
            "it can be had again"
        )


def test_who_slept_before_a_change_cannot_undo_what_a_successor_did(proxy: Proxy) -> None:
    port = free_port()
    asked: list[str] = []

    def permit() -> None:
        """The first time the successor switches traffic the moment after it was granted."""
        asked.append("permit")
        if len(asked) > 1:
            raise PermissionError
        proxy.serve("a", port=port, upstream="127.0.0.1:3")

    proxy.serve("a", port=port, upstream="127.0.0.1:1")
    with pytest.raises(PermissionError):
        proxy.serve("a", port=port, upstream="127.0.0.1:2", permit=permit)
    assert proxy.routes() == {"a": "127.0.0.1:3"}


def test_whose_right_is_not_disputed_prevails_over_a_late_change(proxy: Proxy) -> None:
    port = free_port()
    late = iter(["127.0.0.1:9"])

    def permit() -> None:
        for upstream in late:
            proxy.serve("a", port=port, upstream=upstream)

    proxy.serve("a", port=port, upstream="127.0.0.1:1")
    proxy.serve("a", port=port, upstream="127.0.0.1:2", permit=permit)
    assert proxy.routes() == {"a": "127.0.0.1:2"}


def test_two_first_routes_at_once_are_both_kept(proxy: Proxy) -> None:
    httpx.Client(transport=httpx.HTTPTransport(uds=str(proxy.socket), verify=False)).delete(
        "http://localhost/config/apps"
    ).raise_for_status()
    ports = {name: free_port() for name in "abcd"}
    threads = [
        threading.Thread(
            target=proxy.serve, args=(name,), kwargs={"port": port, "upstream": "127.0.0.1:1"}
        )
        for name, port in ports.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(proxy.routes()) == set(ports)


def test_environments_do_not_disturb_each_other(proxy: Proxy) -> None:
    first, second = free_port(), free_port()
    with answering("one") as one, answering("two") as two:
        proxy.serve("a", port=first, upstream=one)
        proxy.serve("b", port=second, upstream=two)
        assert httpx.get(f"http://127.0.0.1:{first}/", verify=False).text == "one"
        proxy.forget("b")
        assert proxy.routes() == {"a": one}


def test_a_port_that_is_taken_changes_nothing_and_is_named(proxy: Proxy) -> None:
    port = free_port()
    with answering("one") as one, answering("other") as other:
        proxy.serve("a", port=port, upstream=one)
        taken = int(other.rpartition(":")[2])
        with pytest.raises(TrafficError, match=f"{taken}"):
            proxy.serve("b", port=taken, upstream=one)
        assert proxy.routes() == {"a": one}
        assert httpx.get(f"http://127.0.0.1:{port}/", verify=False).text == "one"


def test_a_certificate_that_caddy_writes_while_it_reads_it_is_asked_for_again(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file is cut short and filled again: no test can make Caddy read it in between."""
    said = "shop.example.org: caching certificate: decoding certificate metadata: unexpected end"
    refused = [httpx.Response(500, json={"error": said})]
    ask = proxy._request

    def asked(*words: Any, **more: Any) -> httpx.Response:
        return refused.pop() if refused else ask(*words, **more)

    monkeypatch.setattr(proxy, "_request", asked)
    proxy.serve("a", port=free_port(), upstream="127.0.0.1:9")
    assert proxy.routes() == {"a": "127.0.0.1:9"}
    refused += [httpx.Response(500, json={"error": said})] * 5
    with pytest.raises(TrafficError, match=r"caching certificate.*then deploy again"):
        proxy.serve("a", port=free_port(), upstream="127.0.0.1:9")


def test_a_proxy_that_is_away_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrafficError, match=r"caddy\.sock does not answer"):
        Proxy(tmp_path / "caddy.sock").routes()
