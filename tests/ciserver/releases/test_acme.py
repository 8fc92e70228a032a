"""A domain's certificate comes from an authority that speaks ACME: a real one, Caddy's own module.

Authority and host share a network and a file of names of their own: the authority asks for the
name on ports 80 and 443, as any does. https://caddyserver.com/docs/modules/http.handlers.acme_server
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from ciserver.releases import domains
from ciserver.releases.targets.connection import Connection
from ciserver.releases.targets.domains import Domains
from ciserver.releases.targets.errors import TrafficError
from ciserver.releases.targets.host_proxy import HostProxy
from ciserver.releases.targets.machine import Here
from ciserver.releases.targets.proxy import Proxy
from tests.ciserver.releases.conftest import wait_for

pytestmark = pytest.mark.root
SHOP = "shop.example.org"
STARTED = """
set -e
ip link set lo up
mount --make-rprivate /
echo "127.0.0.1 localhost shop.example.org" > names && mount --bind names /etc/hosts
for name in authority host; do
  HOME=$PWD/$name XDG_DATA_HOME=$PWD/$name XDG_CONFIG_HOME=$PWD/$name \\
    caddy run --config $name.json > $name.log 2>&1 &
done
wait
"""


@dataclass
class Town:
    """``host`` is a host's Caddy as we run it."""

    folder: Path
    pid: int

    @property
    def host(self) -> Proxy:
        return Proxy(self.folder / "host.sock")

    @property
    def root(self) -> Path:
        return self.folder / "authority" / "caddy" / "pki" / "authorities" / "local" / "root.crt"

    def get(self, address: str) -> subprocess.CompletedProcess[str]:
        """Asked by one there who believes the authority alone."""
        inside = ["nsenter", "-t", str(self.pid), "-m", "-n", "--"]
        words = ["curl", "-sS", "--max-time", "5", "--cacert", str(self.root), address]
        return subprocess.run([*inside, *words], capture_output=True, text=True, check=False)


@pytest.fixture
def town() -> Iterator[Town]:
    folder = Path(tempfile.mkdtemp(prefix="gantry-acme-"))
    told = {
        "authority": authority(folder),
        "host": {"admin": _admin(folder / "host.sock")},
    }
    for name, settings in told.items():
        (folder / name).mkdir()
        (folder / f"{name}.json").write_text(json.dumps(settings))
    namespaces = ["--net", "--mount", "--pid", "--fork", "--kill-child"]
    outer = subprocess.Popen(["unshare", *namespaces, "sh", "-c", STARTED], cwd=folder)
    try:
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        wait_for(lambda: bool(children.read_text().split()), 30)
        made = Town(folder, int(children.read_text().split()[0]))
        wait_for(lambda: made.root.exists() and (folder / "host.sock").exists(), 60)
        yield made
    finally:
        outer.kill()
        outer.wait()
        shutil.rmtree(folder)


def _admin(socket: Path) -> dict[str, Any]:
    return {"listen": f"unix/{socket}", "origins": ["localhost"]}


def authority(folder: Path) -> dict[str, Any]:
    """An authority at https://localhost:9443/acme/local/directory; and what a container serves."""
    servers = {
        "acme": {
            "listen": ["127.0.0.1:9443"],
            "automatic_https": {"disable_redirects": True},
            "routes": [
                {
                    "match": [{"host": ["localhost"]}],
                    "handle": [{"handler": "acme_server", "ca": "local"}],
                }
            ],
        },
        "container": {
            "listen": ["127.0.0.1:9000"],
            "automatic_https": {"disable": True},
            "routes": [{"handle": [{"handler": "static_response", "body": "one"}]}],
        },
    }
    local = {"name": "The company's own", "install_trust": False}
    return {
        "admin": _admin(folder / "authority.sock"),
        "apps": {
            "http": {"http_port": 9081, "https_port": 9443, "servers": servers},
            "pki": {"certificate_authorities": {"local": local}},
            "tls": {"automation": {"policies": [{"issuers": [{"module": "internal"}]}]}},
        },
    }


def test_a_domain_gets_its_certificate_from_a_companys_own_authority(
    town: Town, settings: Any
) -> None:
    settings.GANTRY = replace(
        settings.GANTRY,
        http_port=80,
        https_port=443,
        acme_url="https://localhost:9443/acme/local/directory",
        acme_root=town.root,
    )
    wanted = Domains(names=(SHOP,), https="acme", port=8100)
    town.host.serve("a", port=8100, upstream="127.0.0.1:9000")
    lost = replace(domains.edge(), acme_root=str(town.folder / "nothing.crt"))
    with pytest.raises(TrafficError, match=r"nothing\.crt"):
        town.host.name("a", wanted, edge=lost)
    assert town.get("http://127.0.0.1:8100/").stdout == "one", "what served still does"

    town.host.name("a", wanted, edge=domains.edge())
    deadline = time.monotonic() + 60
    while (answer := town.get(f"https://{SHOP}/")).returncode != 0:
        assert time.monotonic() < deadline, (town.folder / "host.log").read_text()[-2000:]
        time.sleep(0.2)
    assert answer.stdout == "one"
    stored = town.folder / "host" / "caddy" / "certificates"
    [certificate] = stored.glob(f"localhost-9443-acme-local-directory/{SHOP}/{SHOP}.crt")
    words = ["openssl", "x509", "-in", str(certificate), "-noout", "-issuer", "-ext",
             "subjectAltName"]  # fmt: skip
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "The company's own" in said
    assert f"DNS:{SHOP}" in said
    assert town.get(f"http://{SHOP}/").stdout == "", "plain requests are sent on"


def test_the_authoritys_certificate_is_put_beside_the_caddy_of_another_machine(
    tmp_path: Path,
) -> None:
    root = tmp_path / "ca.pem"
    (tmp_path / "there").mkdir()
    proxy = HostProxy.__new__(HostProxy)  # a machine that is this one, so no socket to forward
    proxy._machine, proxy._folder = cast(Connection, Here()), str(tmp_path / "there")
    for content in ("one", "another"):
        root.write_text(content)
        assert Path(proxy.has(root)).read_text() == content
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["acme-root.pem"]
