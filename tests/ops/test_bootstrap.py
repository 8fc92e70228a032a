"""``./gantry`` on machines that will not do: one sentence, the next step, nothing changed.

Each machine is made around the script: a mount namespace with another /etc/os-release, a full
disk, another user, a port in use.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ciserver.config import Config
from ciserver.ops.launch import CHECKOUT

pytestmark = pytest.mark.root

SCRIPT = str(CHECKOUT / "gantry")


def attempt(
    config: Config, words: str = "up", *, before: str = ":", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs ``gantry`` after the shell words ``before``, in a mount namespace of its own."""
    settings = {
        "GANTRY_HOME": str(config.home),
        "GANTRY_PORT": str(config.port),
        "GANTRY_REGISTRY": config.registry,
        "PATH": os.environ["PATH"],
    }
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", f'{before}; exec "$0" {words}', SCRIPT],
        env=settings | (env or {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


Refuses = Callable[..., None]


@pytest.fixture
def refuses(config: Config) -> Iterator[Refuses]:
    """``refuses(sentence, step, ...)``: the demo says just that, on a machine that has none of the
    packages yet, and asks for none."""
    with tempfile.TemporaryDirectory(prefix="gantry-bare-", dir="/var/tmp") as folder:
        tools = Path(folder)
        tools.chmod(0o755)
        for name in ("apt-get", "dpkg-query"):
            asked = f"echo {name} >>{tools}/asked" if name == "apt-get" else ":"
            (tools / name).write_text(f"#!/bin/sh\n{asked}\n")
            (tools / name).chmod(0o755)

        def check(
            sentence: str,
            step: str,
            *,
            before: str = ":",
            tools_too: Path = tools,
            words: str = "demo --exit",
        ) -> None:
            path = f"{tools_too}:{tools}:{os.environ['PATH']}"
            done = attempt(config, words, before=before, env={"PATH": path})
            lines = done.stderr.splitlines()
            assert done.returncode == 1, done.stderr
            assert len(lines) == 2, done.stderr
            assert sentence in lines[0]
            assert step in lines[1]
            assert not (tools / "asked").exists()
            assert not config.home.exists()

        yield check


def test_another_user_than_root(refuses: Refuses) -> None:
    as_nobody = f"exec setpriv --reuid 65534 --clear-groups sh {SCRIPT} demo"
    refuses("This needs root", "sudo", before=as_nobody)


@pytest.mark.parametrize(
    "release",
    [
        'ID=fedora\nVERSION_ID=40\nPRETTY_NAME="Fedora Linux 40"',
        'ID=debian\nVERSION_ID="11"\nPRETTY_NAME="Debian GNU/Linux 11 (bullseye)"',
        'ID=ubuntu\nVERSION_ID="22.04"\nPRETTY_NAME="Ubuntu 22.04.4 LTS"',
    ],
)
def test_another_distribution(refuses: Refuses, tmp_path: Path, release: str) -> None:
    file = tmp_path / "os-release"
    file.write_text(release)
    name = release.rpartition("=")[2].strip('"')
    there = f"mount --bind {file} /etc/os-release"
    refuses(f"{name} is not supported", "Debian 12 or newer", before=there)


@pytest.mark.parametrize("kernel", ["5.18.0-4-amd64", "5.4.0", "4.19.0-26-amd64"])
def test_an_old_kernel(refuses: Refuses, tmp_path: Path, kernel: str) -> None:
    fake = tmp_path / "uname"
    fake.write_text(f"#!/bin/sh\necho {kernel}\n")
    fake.chmod(0o755)
    refuses(f"The kernel is {kernel}", "reboot", tools_too=tmp_path)


def test_a_full_disk(refuses: Refuses, config: Config) -> None:
    config.home.parent.mkdir(exist_ok=True)
    small = f"mount -t tmpfs -o size=20m none {config.home.parent}"
    refuses("20 MiB free", "GANTRY_HOME", before=small)


def test_a_full_disk_where_packages_and_deployed_images_go(refuses: Refuses) -> None:
    refuses("/var/lib has 20 MiB free", "Free some", before="mount -t tmpfs -o size=20m n /var/lib")


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_port_in_use(refuses: Refuses, config: Config, family: socket.AddressFamily) -> None:
    with socket.socket(family) as listener:
        listener.bind(("127.0.0.1" if family == socket.AF_INET else "::1", config.port))
        listener.listen()
        for words in ("up", "demo --exit"):
            another = f"GANTRY_PORT={config.port + 1}"
            refuses(f"Port {config.port} is taken", another, words=words)


def test_the_registrys_port_in_use(refuses: Refuses, config: Config) -> None:
    host, _, port = config.registry.rpartition(":")
    with socket.socket() as listener:
        listener.bind((host, int(port)))
        listener.listen()
        refuses(f"Port {port} is taken", f"GANTRY_REGISTRY={host}:{int(port) + 1}")


def test_a_registry_elsewhere_may_have_any_port(config: Config) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        elsewhere = f"registry.example:{listener.getsockname()[1]}"
        done = attempt(config, env={"GANTRY_REGISTRY": elsewhere, "GANTRY_BUILD_CPUS": "many"})
    assert "is taken" not in done.stderr
    assert "GANTRY_BUILD_CPUS" in done.stderr


def test_a_setting_that_cannot_be_used_names_its_variable(config: Config) -> None:
    done = attempt(config, env={"GANTRY_BUILD_CPUS": "many"})
    assert done.returncode == 1
    assert "GANTRY_BUILD_CPUS must be a number above 0, not 'many'." in done.stderr
    assert not config.home.exists()


FAKE_APT = """#!/bin/sh
for service in redis-server.service docker-registry cron; do
    /usr/sbin/policy-rc.d $service start; echo "$service $?" >>{answers}
done
echo "E: the mirror is away" >&2
exit 100
"""


def test_packages_start_no_service_and_a_failure_leaves_no_policy_behind(
    config: Config, tmp_path: Path
) -> None:
    tools, answers = tmp_path / "tools", tmp_path / "answers"
    tools.mkdir()
    for name, script in (
        ("apt-get", FAKE_APT.format(answers=answers)),
        ("dpkg-query", "#!/bin/sh\nexit 0\n"),  # nothing is installed
    ):
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    sbin = tmp_path / "sbin"
    sbin.mkdir()
    policy = sbin / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 7\n")
    policy.chmod(0o755)
    done = attempt(
        config,
        before=f"mount --bind {sbin} /usr/sbin",
        env={"PATH": f"{tools}:/usr/bin:/bin"},
    )
    assert done.returncode == 1
    assert "E: the mirror is away" in done.stderr
    assert "gantry: The distribution's packages could not be installed." in done.stderr
    told = answers.read_text().splitlines()
    # Ours stay still; for all others the policy that was there is asked.
    assert set(told) == {"redis-server.service 101", "docker-registry 101", "cron 7"}
    assert policy.read_text() == "#!/bin/sh\nexit 7\n"
    assert [path.name for path in sbin.iterdir()] == ["policy-rc.d"]
    assert not config.home.exists()
