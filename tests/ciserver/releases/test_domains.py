"""Host names of environments: which can be one, and a real Caddy that answers to them."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from ciserver.accounts.models import AuditEntry
from ciserver.lib.models import OutboxEntry
from ciserver.lib.problems import Refused
from ciserver.releases import domains, drift, environments, leaving, naming
from ciserver.releases.leases import Lease
from ciserver.releases.models import Host, Running
from ciserver.releases.targets.domains import Domains, Edge, domains_in, with_domains
from ciserver.releases.targets.errors import NotUnderstood, TrafficError
from ciserver.releases.targets.handshakes import certified
from ciserver.releases.targets.local import LocalTarget
from ciserver.releases.targets.proxy import Proxy
from tests.ciserver.releases.conftest import free_port
from tests.ciserver.releases.test_proxy import answering
from tests.home import HOME

SHOP, OTHER = "shop.example.org", "other.example.org"


@pytest.fixture
def edge() -> Edge:
    return Edge(http_port=free_port(), https_port=free_port())


@pytest.fixture
def proxy(caddy_socket: Path, edge: Edge) -> Iterator[Proxy]:
    opened = Proxy(caddy_socket)
    _clear(opened, edge)  # other tests use the same Caddy
    yield opened
    _clear(opened, edge)


def _clear(opened: Proxy, edge: Edge) -> None:
    for name in list(opened.domains()):
        opened.name(name, None, edge=edge)
    for name in opened.routes():
        opened.forget(name)


class Browser:
    """Asks ``edge`` for a host name as if DNS led there, and believes one authority alone."""

    def __init__(self, caddy_socket: Path, edge: Edge) -> None:
        self.edge = edge
        admin = httpx.Client(transport=httpx.HTTPTransport(uds=str(caddy_socket), verify=False))
        root = admin.get("http://localhost/pki/ca/local").json()["root_certificate"]
        self.trust = ssl.create_default_context(cadata=root)

    def get(self, name: str, path: str = "/", *, secure: bool = True) -> httpx.Response:
        scheme, port = ("https", self.edge.https_port) if secure else ("http", self.edge.http_port)
        with httpx.Client(verify=self.trust, trust_env=False, timeout=5) as client:
            return client.get(
                f"{scheme}://127.0.0.1:{port}{path}",
                headers={"Host": name},
                extensions={"sni_hostname": name},
            )

    def until(self, name: str) -> httpx.Response:
        """The first answer: a certificate is made a moment after it is asked for."""
        deadline = time.monotonic() + 10
        while True:
            try:
                return self.get(name)
            except httpx.HTTPError:
                assert time.monotonic() < deadline
                time.sleep(0.05)


def of(port: int, *names: str, https: str = "internal") -> Domains:
    return Domains(names=names, https=https, port=port)


def test_a_name_is_answered_by_https_with_its_own_certificate_and_the_port_stays(
    proxy: Proxy, edge: Edge
) -> None:
    port = free_port()
    with answering("one") as one:
        proxy.serve("a", port=port, upstream=one)
        proxy.name("a", of(port, OTHER, SHOP), edge=edge)
        browser = Browser(proxy.socket, edge)
        assert (browser.until(SHOP).text, browser.until(OTHER).text) == ("one", "one")
        plain = browser.get(SHOP, "/page?x=1", secure=False)
        assert plain.status_code == 308
        assert plain.headers["location"] == f"https://{SHOP}/page?x=1"
        with pytest.raises(httpx.ConnectError):
            browser.get("stranger.example.org")
        assert httpx.get(f"http://127.0.0.1:{port}/", verify=False).text == "one"
    assert proxy.routes() == {"a": one}
    assert proxy.domains() == {"a": of(port, OTHER, SHOP)}


def test_the_container_is_told_who_asked_and_how(proxy: Proxy, edge: Edge) -> None:
    port = free_port()
    with answering("one", tells=("X-Forwarded-Proto", "X-Forwarded-Host", "Host")) as one:
        proxy.serve("a", port=port, upstream=one)
        proxy.name("a", of(port, SHOP), edge=edge)
        browser = Browser(proxy.socket, edge)
        assert browser.until(SHOP).text == f"https {SHOP} {SHOP}"


def test_no_request_is_lost_while_names_come_and_go_and_releases_change(
    proxy: Proxy, edge: Edge
) -> None:
    port, second = free_port(), free_port()
    failures: list[str] = []
    answers: list[str] = []
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.05):
            try:
                answers.append(browser.get(SHOP).text)
            except httpx.HTTPError as error:
                failures.append(repr(error))

    with answering("one") as one, answering("two") as two:
        proxy.serve("a", port=port, upstream=one)
        proxy.serve("b", port=second, upstream=two)
        proxy.name("a", of(port, SHOP), edge=edge)
        browser = Browser(proxy.socket, edge)
        browser.until(SHOP)
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        for names in ((OTHER,), (OTHER, "third.example.org"), ()):
            proxy.name("b", of(second, *names) if names else None, edge=edge)
            proxy.name("a", of(port, SHOP, *(f"x{one}" for one in names)), edge=edge)
            time.sleep(0.1)
        proxy.serve("a", port=port, upstream=two)
        time.sleep(0.2)
        over.set()
        asking.join()
    assert failures == []
    assert (answers[0], answers[-1], set(answers)) == ("one", "two", {"one", "two"})


def test_no_request_is_lost_by_name_while_an_environment_changes_its_port(
    proxy: Proxy, edge: Edge
) -> None:
    before, after = free_port(), free_port()
    failures: list[str] = []
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.02):
            try:
                if browser.get(SHOP).text != "one":
                    failures.append("another answer")
            except httpx.HTTPError as error:
                failures.append(repr(error))

    with answering("one") as one, answering("other") as other:
        proxy.serve("a", port=before, upstream=one)
        proxy.name("a", of(before, SHOP), edge=edge)
        proxy.readdress("nothing", port=after, edge=edge)
        browser = Browser(proxy.socket, edge)
        browser.until(SHOP)
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        for port in (after, before, after, after):
            proxy.readdress("a", port=port, edge=edge)
            time.sleep(0.1)
        taken = int(other.rpartition(":")[2])
        with pytest.raises(TrafficError, match=f"{taken}"):
            proxy.readdress("a", port=taken, edge=edge)
        over.set()
        asking.join()
        assert failures == []
        assert proxy.served() == {"a": (one, after)}
        assert proxy.domains() == {"a": of(after, SHOP)}
        assert httpx.get(f"http://127.0.0.1:{after}/", verify=False).text == "one"
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{before}/", verify=False)


@pytest.mark.django_db
def test_a_name_without_a_certificate_is_known_as_such(
    proxy: Proxy, edge: Edge, hello: Any, alice: Any, settings: Any
) -> None:
    """Its authority does not answer; on the page that is drift."""
    settings.GANTRY = replace(settings.GANTRY, https_port=edge.https_port)
    port, here = free_port(), LocalTarget.here(HOME / "run")
    qa = hello.environments.get(name="qa")
    environments.change(environment=qa, user=alice, domains=[SHOP])
    with answering("one") as one:
        proxy.serve("a", port=port, upstream=one)
        nobody = replace(edge, acme_url="https://127.0.0.1:1/directory")
        proxy.name("a", of(port, SHOP, https="acme"), edge=nobody)
        assert domains.uncertified(here, qa) == [SHOP]
        proxy.name("a", of(port, SHOP), edge=edge)
        Browser(proxy.socket, edge).until(SHOP)
        assert domains.uncertified(here, qa) == []
        assert not certified(here.machine, "stranger.example.org", edge.https_port)
        assert not certified(here.machine, SHOP, free_port())


def test_without_https_a_name_is_served_plainly_and_no_stranger_is(
    proxy: Proxy, edge: Edge
) -> None:
    port = free_port()
    with answering("one") as one:
        proxy.serve("a", port=port, upstream=one)
        proxy.name("a", of(port, SHOP, https="off"), edge=edge)
        browser = Browser(proxy.socket, edge)
        assert browser.get(SHOP, secure=False).text == "one"
        assert browser.get("stranger.example.org", secure=False).status_code == 404
        # Beside one with certificates, whose plain requests are sent on to HTTPS.
        proxy.name("b", of(port, OTHER), edge=edge)
        assert browser.get(OTHER, secure=False).status_code == 308
        assert browser.get(SHOP, secure=False).text == "one"
        proxy.name("a", None, edge=edge)
        proxy.name("a", None, edge=edge)
    assert proxy.domains() == {"b": of(port, OTHER)}


def test_a_port_that_is_taken_leaves_names_as_they_were(proxy: Proxy, edge: Edge) -> None:
    port = free_port()
    with answering("one") as one, answering("other") as other:
        proxy.serve("a", port=port, upstream=one)
        taken = replace(edge, https_port=int(other.rpartition(":")[2]))
        with pytest.raises(TrafficError, match=f"{taken.https_port}"):
            proxy.name("a", of(port, SHOP), edge=taken)
        assert (proxy.domains(), proxy.routes()) == ({}, {"a": one})


@pytest.mark.django_db
def test_an_environment_is_not_left_while_its_domain_cannot_be_taken_away(
    proxy: Proxy, edge: Edge, hello: Any
) -> None:
    qa = hello.environments.get(name="qa")
    server, port = naming.server_name(qa), free_port()
    admin = httpx.Client(
        transport=httpx.HTTPTransport(uds=str(proxy.socket), verify=False),
        base_url="http://localhost/config/apps",
    )
    routes = "/http/servers/names-https/routes"
    with answering("one") as one:
        proxy.serve(server, port=port, upstream=one)
        proxy.name(server, of(port, SHOP), edge=edge)
        before = admin.get(routes).json()
        foreign = {"match": [{"path": ["/"]}], "handle": [{"handler": "static_response"}]}
        assert admin.patch(routes, json=[foreign, *before]).is_success
        try:
            with Lease(qa) as lease, pytest.raises(NotUnderstood):
                leaving.clear(LocalTarget.here(proxy.socket.parent), qa, lease)
            assert server in proxy.routes(), "it is tried again"
        finally:
            assert admin.patch(routes, json=before).is_success


def test_of_two_environments_the_later_one_has_a_name() -> None:
    first = with_domains(None, "a", of(1, SHOP, OTHER, https="acme"), Edge())
    both = with_domains(first, "b", of(2, SHOP), Edge(acme_url="https://ca.example.org/directory"))
    assert domains_in(both) == {"a": of(1, OTHER, https="acme"), "b": of(2, SHOP)}
    assert both["tls"]["automation"]["policies"] == [
        {"subjects": [SHOP], "issuers": [{"module": "internal"}]},
        {
            "subjects": [OTHER],
            "issuers": [{"module": "acme", "ca": "https://ca.example.org/directory"}],
        },
    ]
    assert both["pki"]["certificate_authorities"]["local"] == {"install_trust": False}
    neither = with_domains(with_domains(both, "a", None, Edge()), "b", None, Edge())
    assert (neither["http"]["servers"], neither.keys()) == ({}, {"http"})


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("shop.example.org", SHOP),
        (" Shop.Example.ORG. ", SHOP),
        ("bücher.example", "xn--bcher-kva.example"),
        ("a-1.b", "a-1.b"),
    ],
)
def test_a_name_is_kept_as_browsers_send_it(text: str, name: str) -> None:
    assert domains.canonical(text) == name


def test_a_name_that_browsers_would_send_otherwise_is_refused() -> None:
    for text in ("straße.example", "STRAẞE.example", "βόλος.example", "a\u200db.example"):
        with pytest.raises(Refused, match="xn--"):
            domains.canonical(text)
    assert domains.canonical("xn--strae-oqa.example") == "xn--strae-oqa.example"


@pytest.mark.parametrize(
    "text",
    ["", "localhost", "192.0.2.1", "[::1]", "*.example.org", "http://a.example", "a.example:80",
     "a.example/x", "-a.example", "a-.example", "a..example", f"{'a' * 64}.example", "a b.example",
     "a_b.example", f"{'a.' * 126}ab", "{host}.example", "a.example\n"[:-1] + "\0"],
)  # fmt: skip
def test_what_is_no_host_name_is_refused(text: str) -> None:
    with pytest.raises(Refused) as refused:
        domains.canonical(text)
    assert refused.value.code == "environment.domain"


def test_gantrys_own_address_is_nobodys(settings: Any) -> None:
    settings.GANTRY = replace(settings.GANTRY, url="https://gantry.example.org")
    with pytest.raises(Refused, match="Gantry's own address"):
        domains.canonical("GANTRY.example.org")


@pytest.mark.django_db
def test_a_name_is_of_one_environment_and_changing_it_wakes_a_worker(
    hello: Any, alice: Any
) -> None:
    qa, prod = (hello.environments.get(name=name) for name in ("qa", "prod"))
    environments.change(environment=qa, user=alice, domains=[SHOP, "Shop.example.org."])
    assert list(qa.domains.values_list("name", flat=True)) == [SHOP]
    assert OutboxEntry.objects.filter(topic=domains.TOPIC, object_id=qa.pk).exists()
    told = AuditEntry.objects.filter(action="environment.change").last()
    assert told is not None
    assert told.detail["domains"] == [[], [SHOP]]
    with pytest.raises(Refused, match=r"is a domain of hello@qa already"):
        environments.change(environment=prod, user=alice, domains=[OTHER, SHOP])
    assert not prod.domains.exists(), "all or nothing"
    with pytest.raises(Refused, match="is no kind of HTTPS"):
        environments.change(environment=prod, user=alice, https="maybe")
    with pytest.raises(Refused, match="50 domains, not 51"):
        environments.change(
            environment=prod, user=alice, domains=[f"a{n}.example" for n in range(51)]
        )
    environments.change(environment=qa, user=alice, domains=[])
    environments.change(environment=prod, user=alice, domains=[SHOP], https="off")
    assert domains.address(SHOP, "off") == f"http://{SHOP}"


@pytest.mark.django_db
def test_a_host_that_does_not_answer_to_a_name_is_told_as_drift(
    hello: Any, alice: Any, passed: Any
) -> None:
    from ciserver.releases import services
    from ciserver.releases.targets.spec import Container

    qa = environments.change(
        environment=hello.environments.get(name="qa"), user=alice, domains=[SHOP, OTHER]
    )
    host = Host.objects.create(name="local")
    qa.hosts.set([host])
    row = Running.objects.create(
        environment=qa, host=host, release=services.make_release(passed()),
        container_id="c", digest="sha256:1", since="2026-01-01T00:00:00Z",
    )  # fmt: skip
    container = Container(
        id="c", name="c", image_id="", labels=naming.labels_of(qa), running=True,
        oom_killed=False, restarts=0, address="127.0.0.1:1",
    )  # fmt: skip
    name = naming.server_name(qa)
    routes = {name: "127.0.0.1:1"}
    some = {name: of(qa.port, SHOP, https="acme")}
    assert "not served as other.example.org" in drift.drift_of(row, [container], routes, some)
    every = {name: of(qa.port, OTHER, SHOP, https="acme")}
    assert drift.drift_of(row, [container], routes, every) == ""
    assert "not served as" in drift.drift_of(row, [container], routes, {})
    said = drift.drift_of(row, [container], routes, every, bare=[SHOP])
    assert said.startswith("no certificate for shop.example.org yet: see that its DNS leads here")
    elsewhere = drift.drift_of(row, [container], routes, every, ports={name: 1})
    assert elsewhere == f"it answers on port 1, not on {qa.port}: see that this one is free here"
    assert drift.drift_of(row, [container], routes, every, ports={name: qa.port}) == ""
