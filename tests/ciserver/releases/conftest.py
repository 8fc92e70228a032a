"""A registry, a proxy and an image maker of our own; nothing is pulled from anywhere."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import socket
import subprocess
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import pytest

from ciserver.ops.kernel import keep_who_connects
from tests.ciserver.releases.deploying import Doomed
from tests.home import HOME
from tests.machines import Machine, machines

BUSYBOX = Path("/bin/busybox")
SERVE = "trap 'exit 0' TERM; /bin/busybox httpd -f -p 8080 -h /www & wait"  # PID 1 ignores TERM


@dataclass(frozen=True)
class Registry:
    """A real docker-registry process on a loopback port."""

    address: str
    salt: bytes = field(default_factory=lambda: os.urandom(64))  # its layers are nobody else's
    token: Callable[[str], str] = lambda name: ""  # one that may push to a repository
    client: httpx.Client = field(
        default_factory=lambda: httpx.Client(trust_env=False, verify=False)
    )
    brought: set[str] = field(default_factory=set)  # ids of its images that this machine has

    def push(self, name: str, *, page: str, command: str = SERVE, **config: Any) -> str:
        """Push an image that serves ``page``; the manifest's digest."""
        top = _layer({"www/index.html": page.encode(), "www/id": os.urandom(64)})
        runs = {
            "Cmd": ["/bin/sh", "-c", command],
            "Env": ["PATH=/bin"],
            "ExposedPorts": {"8080/tcp": {}},
        } | config
        image = {
            "architecture": "amd64",
            "os": "linux",
            "config": runs,
            "rootfs": {"type": "layers", "diff_ids": [self._base[0], _digest(top)]},
        }
        blobs = [self._base[1], _packed(top)]
        layer = "application/vnd.oci.image.layer.v1.tar+gzip"
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self._blob(
                name, json.dumps(image).encode(), "application/vnd.oci.image.config.v1+json"
            ),
            "layers": [self._blob(name, blob, layer) for blob in blobs],
        }
        body = json.dumps(manifest).encode()
        self.client.put(
            f"http://{self.address}/v2/{name}/manifests/{_digest(body)}",
            content=body,
            headers=self._headers(name) | {"Content-Type": manifest["mediaType"]},
        ).raise_for_status()
        return _digest(body)

    def tag(self, name: str, digest: str, tag: str) -> None:
        """Point ``tag`` at another image."""
        kind = "application/vnd.oci.image.manifest.v1+json"
        url = f"http://{self.address}/v2/{name}/manifests"
        headers = self._headers(name) | {"Accept": kind}
        body = self.client.get(f"{url}/{digest}", headers=headers).raise_for_status().content
        headers = self._headers(name) | {"Content-Type": kind}
        self.client.put(f"{url}/{tag}", content=body, headers=headers).raise_for_status()

    def _blob(self, name: str, content: bytes, media_type: str) -> dict[str, Any]:
        digest = _digest(content)
        described = {"mediaType": media_type, "digest": digest, "size": len(content)}
        there = f"http://{self.address}/v2/{name}/blobs/{digest}"
        if self.client.head(there, headers=self._headers(name)).is_success:
            return described
        uploads = f"http://{self.address}/v2/{name}/blobs/uploads/"
        start = self.client.post(uploads, headers=self._headers(name)).raise_for_status()
        url = httpx.URL(start.headers["Location"]).copy_merge_params({"digest": digest})
        self.client.put(url, content=content, headers=self._headers(name)).raise_for_status()
        return described

    @cached_property
    def _base(self) -> tuple[str, bytes]:
        """The diff id of the layer that all its images have, and the layer."""
        tar = _layer({"bin/busybox": BUSYBOX.read_bytes(), "bin/sh": "busybox", "salt": self.salt})
        return _digest(tar), _packed(tar)

    def forget(self) -> None:
        """Take its images from this machine. To list all that are there would take podman seconds,
        and to remove each alone a process each."""
        from ciserver.releases.targets.local import own_engine

        if self.brought:
            removing = [own_engine().program, "image", "rm", "--force", *self.brought]
            subprocess.run(removing, check=False, capture_output=True, timeout=120)

    def _headers(self, name: str) -> dict[str, str]:
        token = self.token(name)
        return {"Authorization": f"Bearer {token}"} if token else {}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _packed(tar: bytes) -> bytes:
    return gzip.compress(tar, compresslevel=1, mtime=0)


def _layer(files: dict[str, bytes | str]) -> bytes:
    """A tar; a ``str`` is the target of a symbolic link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
            else:
                member.size, member.mode = len(content), 0o755
                tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(ready: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "it did not come up"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Open to all, for the tests that are not about who may pull."""
    address = f"127.0.0.1:{free_port()}"
    with _serving(tmp_path_factory.mktemp("registry"), address, {}):
        made = Registry(address)
        yield made
        made.forget()


@pytest.fixture
def guarded_registry(tmp_path: Path, live_server: Any, settings: Any) -> Iterator[Registry]:
    """This installation's own: it believes our tokens alone, which our web process gives out."""
    from ciserver.accounts.registry_tokens import Access, issue

    address = f"127.0.0.1:{free_port()}"
    settings.GANTRY = replace(settings.GANTRY, registry=address)
    token = {
        "realm": f"{live_server.url}/api/v1/registry/token",
        "service": "gantry-registry",
        "issuer": "gantry",
        "rootcertbundle": str(HOME / "keys" / "registry.crt"),
    }
    with _serving(tmp_path, address, {"auth": {"token": token}}):
        made = Registry(
            address, token=lambda name: issue("worker", [Access(name, ("push", "pull"))])
        )
        yield made
        made.forget()


@contextmanager
def _serving(folder: Path, address: str, more: dict[str, Any]) -> Iterator[None]:
    settings = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(folder / "data")},
            "delete": {"enabled": True},
        },
        "http": {"addr": address, "relativeurls": False},
    }
    (folder / "config.yml").write_text(json.dumps(settings | more))
    with _running(["docker-registry", "serve", str(folder / "config.yml")], folder / "log"):
        wait_for(lambda: _answers(f"http://{address}/v2/"))
        yield


@contextmanager
def caddy(folder: Path) -> Iterator[Path]:
    """Caddy as the supervisor runs it, with nothing configured but its admin socket; that."""
    sock = HOME / "run" / "caddy.sock"
    config = {"admin": {"listen": f"unix/{sock}", "origins": ["localhost"]}}
    (folder / "caddy.json").write_text(json.dumps(config))
    env = os.environ | {"XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    command = ["caddy", "run", "--config", str(folder / "caddy.json")]
    keep_who_connects()
    with _running(command, folder / "caddy.log", env=env):
        wait_for(sock.exists)
        yield sock


@pytest.fixture(scope="session")
def caddy_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with caddy(tmp_path_factory.mktemp("caddy")) as sock:
        yield sock


@pytest.fixture(scope="session")
def doomed(django_db_setup: None) -> Iterator[Doomed]:
    """Workers that die when they are told to."""
    from django.db import connection

    with Doomed(str(connection.settings_dict["NAME"]), str(HOME)) as made:
        yield made


@pytest.fixture(scope="session")
def launch() -> Iterator[Future[list[Machine]]]:
    """``ships`` on their way: for tests that have something else to do first."""
    with ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        yield pool.submit(stack.enter_context, machines(4))


@pytest.fixture(scope="session")
def ships(launch: Future[list[Machine]]) -> list[Machine]:
    """Four machines with sshd and podman; the first has docker and a user who is not root."""
    return launch.result()


@pytest.fixture(scope="session")
def known() -> dict[tuple[str, str], dict[str, str]]:
    """The keys of hosts that an earlier test has reached, by name and address: a connection that
    it left is there for the next one, as it is between two deployments."""
    return {}


class _running:
    """A child that is killed, by its own id, when the fixture ends."""

    def __init__(self, argv: list[str], log: Path, env: Any = None) -> None:
        self._log = log.open("wb")
        self._child = subprocess.Popen(argv, stdout=self._log, stderr=self._log, env=env)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._child.terminate()
        self._child.wait(10)
        self._log.close()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, verify=False).status_code in {200, 401}
    except httpx.HTTPError:
        return False


@pytest.fixture
def hello(project: Any, settings: Any) -> Any:
    """The project with qa (automatic) and prod, neither with a host."""
    from ciserver.releases import services

    first = free_port()
    settings.GANTRY = replace(settings.GANTRY, deploy_ports=range(first, first + 50))
    services.create_environment(project=project, name="qa", auto=True)
    services.create_environment(project=project, name="prod")
    return project


@pytest.fixture
def passed(hello: Any) -> Callable[..., Any]:
    """Makes pipelines that passed and pushed an image."""

    def make(digest: str = "", *, repository: str = "", ref: str = "refs/heads/main") -> Any:
        from ciserver.pipelines.models import Pipeline, State

        number = hello.pipelines.count() + 1
        return Pipeline.objects.create(
            project=hello,
            number=number,
            commit=f"{number:040x}",
            ref=ref,
            title=f"Change {number}",
            state=State.PASSED,
            repository=repository or "registry.example:5000/hello",
            digest=digest or f"sha256:{uuid.uuid4().hex:0>64}",
        )

    return make


@pytest.fixture
def succeeded() -> Callable[..., Any]:
    """Makes deployments that already ran well."""

    def make(release: Any, environment: Any) -> Any:
        from ciserver.releases.models import Deployment, DeploymentState

        row, _ = Deployment.objects.get_or_create(
            release=release, environment=environment, defaults={"kind": "auto"}
        )
        Deployment.objects.filter(pk=row.pk).update(state=DeploymentState.SUCCEEDED)
        row.refresh_from_db()
        return row

    return make


@pytest.fixture
def serves(succeeded: Callable[..., Any]) -> Callable[..., None]:
    """Makes releases that serve, started with what the environment's settings are now."""

    def make(release: Any, environment: Any) -> None:
        from django.utils import timezone

        from ciserver.releases import policy
        from ciserver.releases.models import Host, Running

        deployment, now = succeeded(release, environment), timezone.now()
        deployment.configuration, deployment.started_at = policy.configuration_of(environment), now
        deployment.save()
        host, _ = Host.objects.get_or_create(name="local")
        Running.objects.create(
            environment=environment, host=host, release=release, digest=release.digest, since=now
        )

    return make
