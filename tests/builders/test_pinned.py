"""A name is looked up once, judged, and connected to by number: DNS rebinding leads nowhere."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from builders.errors import RegistryClosed
from builders.images.digests import OCI_CONFIG, Descriptor, sha256
from builders.images.layers import LayerLimits
from builders.images.manifest import build_manifest
from builders.images.reference import Reference
from builders.images.store import Store
from builders.registry import Registry
from builders.remote.pinned import PinnedTransport
from tests.builders.registry.liar import Answer, Liar, Seen, running

CLOSED = "inner.test"


@pytest.fixture
def outside() -> Iterator[Liar]:
    """A registry on loopback that the tests call by a name no name server knows."""
    blob = Descriptor(OCI_CONFIG, sha256(b"{}"), 2)
    with running(Liar(build_manifest(blob, []), {blob.digest: b"{}"})) as liar:
        yield liar


class Names:
    """Knows every name as 127.0.0.1 but ``inner.test``, which is closed."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        if host == CLOSED:
            raise RegistryClosed(f"{host} is closed.")
        return ["127.0.0.1"]


def pull(liar: Liar, names: Names, folder: Path) -> None:
    port = liar.host.partition(":")[2]
    with Registry(f"outer.test:{port}", patience=1, plain_http=True, lookup=names) as client:
        client.pull(
            Reference.parse(f"outer.test:{port}/a/b:v1"), Store(folder), limits=LayerLimits()
        )


def test_the_server_is_told_the_name_that_was_looked_up(outside: Liar, tmp_path: Path) -> None:
    outside.lie = lambda _: Answer(404)
    names = Names()
    with pytest.raises(Exception, match="has no image"):
        pull(outside, names, tmp_path)
    port = outside.host.partition(":")[2]
    assert [seen.headers["host"] for seen in outside.seen] == [f"outer.test:{port}"]
    assert names.asked == ["outer.test"]


def to_the_token_service(liar: Liar) -> Callable[[Seen], Answer | None]:
    realm = f"http://{CLOSED}:{liar.host.partition(':')[2]}/token"
    return lambda _: Answer(401, headers={"WWW-Authenticate": f'Bearer realm="{realm}"'})


def to_a_blob(liar: Liar) -> Callable[[Seen], Answer | None]:
    place = f"http://{CLOSED}:{liar.host.partition(':')[2]}/blob"
    moved = Answer(307, headers={"Location": place})
    return lambda seen: moved if "/blobs/" in seen.path else None


@pytest.mark.root
@pytest.mark.parametrize("lead", [to_the_token_service, to_a_blob])
def test_neither_a_token_service_nor_a_redirect_leads_to_a_closed_name(
    lead: Callable[[Liar], Callable[[Seen], Answer | None]], outside: Liar, tmp_path: Path
) -> None:
    outside.lie = lead(outside)
    with pytest.raises(RegistryClosed, match=r"inner\.test is closed"):
        pull(outside, Names(), tmp_path)
    assert not any(CLOSED in seen.headers["host"] for seen in outside.seen)


def ask(url: str, transport: PinnedTransport) -> httpx.Response:
    with httpx.Client(transport=transport, trust_env=False, timeout=5) as client:
        return client.get(url)


def test_the_next_address_is_asked_where_nobody_answers_at_the_first(outside: Liar) -> None:
    transport = PinnedTransport(
        lambda *_: ["127.0.0.3", "127.0.0.1"], verify=ssl.create_default_context()
    )
    port = outside.host.partition(":")[2]
    assert ask(f"http://outer.test:{port}/v2/", transport).status_code == 404


def test_a_proxy_of_the_environment_looks_names_up_itself(
    outside: Liar, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lookup(host: str, port: int) -> list[str]:
        if host == CLOSED:
            raise RegistryClosed(f"{host} is closed.")
        raise socket.gaierror("no such name here")

    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    verify = ssl.create_default_context()
    with pytest.raises(httpx.ConnectError, match="cannot be looked up"):
        ask("http://outer.test/v2/", PinnedTransport(lookup, verify=verify, proxies=True))
    monkeypatch.setenv("http_proxy", outside.host)
    ask("http://outer.test/v2/", PinnedTransport(lookup, verify=verify, proxies=True))
    assert outside.paths() == ["GET http://outer.test/v2/"]
    with pytest.raises(RegistryClosed):
        ask(f"http://{CLOSED}/", PinnedTransport(lookup, verify=verify, proxies=True))
    with pytest.raises(httpx.ConnectError):
        ask("http://outer.test/", PinnedTransport(lookup, verify=verify))
    assert len(outside.seen) == 1


class Tls:
    """A server of two names at one address: each has its own certificate."""

    def __init__(self, folder: Path) -> None:
        self.names: list[str | None] = []
        self.trust = ssl.create_default_context()
        contexts = {name: self._context(folder, name) for name in ("a.test", "b.test")}

        def choose(end: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            self.names.append(name)
            end.context = contexts[name or "a.test"]

        contexts["a.test"].sni_callback = choose
        self._context_of_all = contexts["a.test"]
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _context(self, folder: Path, name: str) -> ssl.SSLContext:
        key, certificate = folder / f"{name}.key", folder / f"{name}.crt"
        words = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        words += ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
        place = ["-keyout", str(key), "-out", str(certificate)]
        subprocess.run(["openssl", "req", "-x509", *words, *place], check=True, capture_output=True)
        self.trust.load_verify_locations(certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        return context

    def _accept(self) -> None:
        while True:
            try:
                end, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(end,), daemon=True).start()

    def _serve(self, end: socket.socket) -> None:
        try:
            with self._context_of_all.wrap_socket(end, server_side=True) as secure:
                while secure.recv(65536):
                    secure.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        except OSError:
            pass  # the client did not like the certificate

    def close(self) -> None:
        self._listener.close()


def test_certificates_are_held_to_the_name_also_of_two_at_one_address(tmp_path: Path) -> None:
    server = Tls(tmp_path)
    transport = PinnedTransport(lambda *_: ["127.0.0.1"], verify=server.trust)
    with httpx.Client(transport=transport, trust_env=False, timeout=5) as client:
        for name in ("a.test", "b.test", "a.test"):
            assert client.get(f"https://{name}:{server.port}/").status_code == 204
        assert server.names == ["a.test", "b.test"]  # and a connection is used again
    other = PinnedTransport(lambda *_: ["127.0.0.1"], verify=ssl.create_default_context())
    with pytest.raises(httpx.ConnectError, match="certificate"):
        ask(f"https://a.test:{server.port}/", other)
    server.close()
