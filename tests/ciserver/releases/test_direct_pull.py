"""A host that reaches the registry pulls from it itself, by digest and with a short-lived login."""

from __future__ import annotations

import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ciserver.accounts import registry_tokens
from ciserver.releases import fleet, health, runner, services
from ciserver.releases.models import Host
from ciserver.releases.targets import images, relay
from tests.ciserver.releases.conftest import Registry, _running, free_port, wait_for
from tests.home import HOME
from tests.machines import Machine

pytestmark = [pytest.mark.root, pytest.mark.django_db(transaction=True), pytest.mark.timeout(300)]


@dataclass(frozen=True)
class Outside:
    """A registry with TLS and tokens that the machine reaches; ``inside`` is its back door, by
    which images get in."""

    address: str
    inside: Registry
    context: ssl.SSLContext


@pytest.fixture
def ship(ships: list[Machine]) -> Machine:
    return ships[3]


@pytest.fixture
def outside(ship: Machine, tmp_path: Path, live_server: Any, settings: Any) -> Iterator[Outside]:
    first, _, last = ship.ip.rpartition(".")
    here = f"{first}.{int(last) - 1}"
    address = f"{here}:{free_port()}"
    settings.GANTRY = replace(settings.GANTRY, registry=address)
    settings.ALLOWED_HOSTS = ["*"]
    certificate = certificate_for(here, tmp_path)
    tls = {"certificate": str(certificate), "key": str(tmp_path / "key.pem")}
    storage = {"filesystem": {"rootdirectory": str(tmp_path / "data")}}
    near = f"127.0.0.1:{free_port()}"
    with ExitStack() as stack:
        realm = stack.enter_context(_forwarded(here, live_server.url))
        token = {
            "realm": f"http://{realm}/api/v1/registry/token",
            "service": "gantry-registry",
            "issuer": "gantry",
            "rootcertbundle": str(HOME / "keys" / "registry.crt"),
        }
        for name, http, more in (
            ("inside", {"addr": near}, {}),
            ("outside", {"addr": address, "tls": tls}, {"auth": {"token": token}}),
        ):
            config = {"version": "0.1", "storage": storage, "http": http, **more}
            (tmp_path / f"{name}.yml").write_text(json.dumps(config))
            argv = ["docker-registry", "serve", str(tmp_path / f"{name}.yml")]
            stack.enter_context(_running(argv, tmp_path / f"{name}.log"))
        context = ssl.create_default_context(cafile=str(certificate))
        wait_for(lambda: _status(f"https://{address}/v2/", context) == 401)
        wait_for(lambda: _status(f"http://{near}/v2/", context) == 200)
        ship.sh(f"mkdir -p /etc/containers/certs.d/{address}")
        place = f"/etc/containers/certs.d/{address}/ca.crt"
        ship.sh(f"cat > {place} <<'END'\n{certificate.read_text()}END")
        yield Outside(address, Registry(near), context)


def certificate_for(address: str, folder: Path, *, begins: timedelta = -timedelta(days=1)) -> Path:
    """One that is its own authority, and holds from ``begins`` on, as of now, for two days; its key
    is ``key.pem`` in ``folder``."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + begins + timedelta(days=2))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    path = folder / "certificate.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return path


def _status(url: str, context: ssl.SSLContext) -> int:
    try:
        return httpx.get(url, verify=context, trust_env=False).status_code
    except httpx.HTTPError:
        return 0


@contextmanager
def _forwarded(address: str, url: str) -> Iterator[str]:
    """The web process of the tests, which listens on the loopback alone, at ``address``, too."""
    there = httpx.URL(url)
    with socket.create_server((address, 0)) as server:

        def pump(source: socket.socket, target: socket.socket) -> None:
            with suppress(OSError):
                while data := source.recv(65536):
                    target.sendall(data)
                target.shutdown(socket.SHUT_WR)

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = server.accept()
                    behind = socket.create_connection((there.host, there.port or 80))
                    for pair in ((client, behind), (behind, client)):
                        threading.Thread(target=pump, args=pair, daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield f"{address}:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def test_it_gets_the_layers_by_itself_and_no_login_stays_there(
    hello: Any, passed: Any, admin_user: Any, ship: Machine, outside: Outside, monkeypatch: Any
) -> None:
    def no_relay(*_: Any, **__: Any) -> Any:
        raise AssertionError("layers travelled through the connection")

    monkeypatch.setattr(relay, "serve", no_relay)
    monkeypatch.setattr(images, "trusted", lambda: outside.context)
    monkeypatch.setattr(health, "BETWEEN_TRIES", 0.1)
    given: list[str] = []
    password = registry_tokens.pull_password
    monkeypatch.setattr(
        registry_tokens, "pull_password", lambda name: given.append(password(name)) or given[-1]
    )
    hello.environments.update(stable_seconds=0)
    qa = hello.environments.get(name="qa")
    host = fleet.add(user=admin_user, name="far", address=f"root@{ship.ip}")
    ship.allow(host.public_key)
    qa.hosts.add(host)
    digest = outside.inside.push("hello", page="one")
    release = services.make_release(passed(digest, repository=f"{outside.address}/hello"))
    try:
        runner.deploy(release.deployments.get().pk)
        deployed = release.deployments.get()
        assert (deployed.state, deployed.reason) == ("succeeded", "")
        assert deployed.bytes_pulled is not None and deployed.bytes_pulled > 500_000
        assert (
            httpx.get(f"http://{ship.ip}:{qa.port}/", trust_env=False, verify=False).text == "one"
        )
        said = ship.sh("podman inspect --format '{{.ImageDigest}}' $(podman ps -q)")
        assert said.strip() == digest
        assert given, "the registry gives nothing without a login"
        places = "/dev/shm /tmp /run /root /etc/containers /var/lib/gantry-host"
        new = "-xdev -type f -newer /tmp/booted -size -1024k"
        kept = ship.sh(
            f"find {places} {new} -exec grep -lF -e '{given[-1]}' '{{}}' + 2>/dev/null; true"
        )
        assert kept == "", "the password is nowhere on the host"
        secret = outside.inside.push("other/secret", page="not yours")
        login = f"--creds {registry_tokens.PULL_USER}:{given[-1]}"
        stolen = ship.sh(f"podman pull {login} {outside.address}/other/secret@{secret} 2>&1; true")
        assert "unauthorized" in stolen or "denied" in stolen, "it opens one repository"
        assert Host.objects.get().engine == "podman"
    finally:
        ship.sh("podman rm --force --all --time 0; podman image rm --force --all; true")
        ship.sh("pkill -x caddy; rm -rf /var/lib/gantry-host; true")
