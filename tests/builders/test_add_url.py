"""ADD of URLs: fetched as a build step could fetch them, held to a checksum, cached by it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from builders.errors import ContextError, DockerfileError
from runtime.spec import Network
from tests.builders.conftest import IDS, Builder

pytestmark = pytest.mark.root

Project = Callable[[Mapping[str, str]], Path]
BODY = b"packed far away\n"
DIGEST = f"sha256:{hashlib.sha256(BODY).hexdigest()}"


class Web:
    """A server on loopback that counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.asked.append(self.path)
                if self.path == "/moved":
                    self.send_response(302)
                    self.send_header("Location", "http://127.0.0.2:1/file")
                    self.end_headers()
                elif self.path == "/file.txt":
                    self.send_response(200)
                    self.send_header("Last-Modified", "Sat, 01 Jan 2022 00:00:00 GMT")
                    self.end_headers()
                    self.wfile.write(BODY)
                else:
                    self.send_error(404)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.place = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()
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
