"""ADD of URLs: fetched as a build step could fetch them, held to a checksum, cached by it."""

from __future__ import annotations

import hashlib
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from builders.errors import ContextError, DockerfileError
from builders.remote.addresses import bracketed, is_public
from runtime.spec import Network
from tests.builders.cases import archive
from tests.builders.conftest import IDS, Builder

pytestmark = pytest.mark.root

Project = Callable[[Mapping[str, str]], Path]
BODY = b"packed far away\n"
DIGEST = f"sha256:{hashlib.sha256(BODY).hexdigest()}"


class Server(ThreadingHTTPServer):
    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)


class Web:
    """A server on loopback that counts what it is asked."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.asked: list[str] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.asked.append(self.path)
                if self.path == "/moved":
                    self.send_response(302)
                    self.send_header("Location", "http://127.0.0.2:1/file")
                    self.end_headers()
                elif self.path == "/packed.tar.xz":
                    self.send_response(200)
                    self.end_headers()
                    self.wfile.write(archive(Path("packed.tar.xz")))
                elif self.path == "/file.txt":
                    self.send_response(200)
                    self.send_header("Last-Modified", "Sat, 01 Jan 2022 00:00:00 GMT")
                    self.end_headers()
                    self.wfile.write(BODY)
                else:
                    self.send_error(404)

            def log_message(self, *_: object) -> None:
                pass

        self.server = Server((address, 0), Handler)
        self.place = f"{bracketed(address)}:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()
    yield web
    web.server.shutdown()
    web.server.server_close()


@pytest.fixture
def web6() -> Iterator[Web]:
    web = Web("::1")
    yield web
    web.server.shutdown()
    web.server.server_close()


def adding(project: Project, line: str) -> Path:
    return project({"Dockerfile": f"FROM busybox\n{line}\n"})


def test_a_file_comes_as_docker_brings_it(builder: Builder, project: Project, web: Web) -> None:
    context = adding(project, f"ADD http://{web.place}/file.txt /in/")
    image = builder.one(context, network=Network.EGRESS, egress_allow=[web.place])
    with builder.store.rootfs(image.layers, ids=IDS, bare=True) as rootfs:
        path = rootfs.path / "in/file.txt"
        assert path.read_bytes() == BODY
        assert path.stat().st_mode & 0o7777 == 0o600
        assert path.stat().st_uid == IDS.base
        assert path.stat().st_mtime == 1640995200


def test_what_is_cached_under_its_checksum_is_not_fetched_again(
    builder: Builder, project: Project, web: Web
) -> None:
    context = adding(project, f"ADD --checksum={DIGEST} http://{web.place}/file.txt /f")
    asked = {"network": Network.EGRESS, "egress_allow": [web.place]}
    first, again = builder.one(context, **asked), builder.one(context, **asked)
    assert first.id == again.id
    assert web.asked == ["/file.txt"]


def test_another_content_than_the_checksum_says_is_refused(
    builder: Builder, project: Project, web: Web
) -> None:
    wrong = f"sha256:{0:064d}"
    context = adding(project, f"ADD --checksum={wrong} http://{web.place}/file.txt /f")
    with pytest.raises(ContextError, match=f"has the digest {DIGEST}, and not {wrong}"):
        builder.one(context, network=Network.EGRESS, egress_allow=[web.place])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.1", "2130706433"])
def test_what_only_this_machine_can_reach_is_not_asked(
    host: str, builder: Builder, project: Project, web: Web
) -> None:
    port = web.place.partition(":")[2]
    context = adding(project, f"ADD http://{host}:{port}/file.txt /f")
    with pytest.raises(ContextError, match="a build may not reach private addresses"):
        builder.one(context, network=Network.EGRESS)
    assert web.asked == []


def test_no_redirect_leads_to_what_a_build_may_not_reach(
    builder: Builder, project: Project, web: Web
) -> None:
    context = adding(project, f"ADD http://{web.place}/moved /f")
    with pytest.raises(ContextError, match=r"127\.0\.0\.2, and a build may not reach"):
        builder.one(context, network=Network.EGRESS, egress_allow=[web.place])


def test_an_error_of_the_server_is_told(builder: Builder, project: Project, web: Web) -> None:
    context = adding(project, f"ADD http://{web.place}/none /f")
    with pytest.raises(ContextError, match="the answer is 404"):
        builder.one(context, network=Network.EGRESS, egress_allow=[web.place])


def test_a_build_without_network_fetches_nothing(
    builder: Builder, project: Project, web: Web
) -> None:
    context = adding(project, f"ADD http://{web.place}/file.txt /f")
    with pytest.raises(ContextError, match="this build has no network"):
        builder.one(context, egress_allow=[web.place])
    assert web.asked == []


@pytest.mark.parametrize(
    "line", ["ADD --checksum=md5:1 http://a.test/b /f", f"ADD --checksum={DIGEST} Dockerfile /f"]
)
def test_a_checksum_that_cannot_be_kept_is_refused(
    line: str, builder: Builder, project: Project
) -> None:
    with pytest.raises(DockerfileError, match="--checksum is"):
        builder.one(adding(project, line))


def test_a_file_comes_over_ipv6_too(builder: Builder, project: Project, web6: Web) -> None:
    context = adding(project, f"ADD http://{web6.place}/file.txt /f")
    builder.one(context, network=Network.EGRESS, egress_allow=[web6.place])
    assert web6.asked == ["/file.txt"]
    with pytest.raises(ContextError, match="::1 is ::1, and a build may not reach private"):
        builder.one(context, network=Network.EGRESS)


def test_the_second_address_is_tried_where_the_first_does_not_answer(
    builder: Builder, project: Project, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name with an IPv6 address on a machine whose way there is broken."""
    port = int(web.place.partition(":")[2])
    found = [(6, 1, 6, "", ("::1", port, 0, 0)), (2, 1, 6, "", ("127.0.0.1", port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    context = adding(project, f"ADD http://both.test:{port}/file.txt /f2")
    allow = [f"[::1]:{port}", f"127.0.0.1:{port}"]
    builder.one(context, network=Network.EGRESS, egress_allow=allow)
    assert web.asked == ["/file.txt"]


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("2606:4700::1111", True),
        ("64:ff9b::1.1.1.1", True),
        ("64:ff9b::10.0.0.1", False),
        ("64:ff9b::127.0.0.1", False),
        ("::1", False),
        ("::ffff:127.0.0.1", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("2002:7f00:1::", False),
        ("2001:db8::1", False),
        ("1.1.1.1", True),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
    ],
)
def test_only_public_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


def test_an_archive_of_the_web_is_unpacked_only_on_request(
    builder: Builder, project: Project, web: Web
) -> None:
    asked = {"network": Network.EGRESS, "egress_allow": [web.place]}
    url = f"http://{web.place}/packed.tar.xz"
    plain = builder.one(adding(project, f"ADD {url} /p/"), **asked)
    opened = builder.one(adding(project, f"ADD --unpack=true {url} /p/"), **asked)
    with builder.store.rootfs(plain.layers, ids=IDS, bare=True) as rootfs:
        assert [path.name for path in (rootfs.path / "p").iterdir()] == ["packed.tar.xz"]
    with builder.store.rootfs(opened.layers, ids=IDS, bare=True) as rootfs:
        assert sorted(path.name for path in (rootfs.path / "p").iterdir()) == ["in", "run"]
        assert (rootfs.path / "p/in/file").read_text() == "packed\n"
