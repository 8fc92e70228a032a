"""Command lines and what engines answer, as values."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ciserver.releases.targets import commands, credentials, engine, firewall, machine
from ciserver.releases.targets.base import find_engine
from ciserver.releases.targets.engine import choose, parse_container, parse_exit_code
from ciserver.releases.targets.errors import CommandFailed, NoEngine, TargetError
from ciserver.releases.targets.facts import PATH, Facts, parse, script
from ciserver.releases.targets.machine import Machine
from ciserver.releases.targets.secret_files import archive
from ciserver.releases.targets.spec import Check, ImageFacts, Wanted
from tests.ciserver.releases.test_direct_pull import certificate_for

READ = "config.json"
WANTED = Wanted(
    name="gantry-x-hello-qa-1",
    reference="127.0.0.1:5055/hello@sha256:aa",
    port=8080,
    memory=64 << 20,
    cpus=0.5,
    pids=50,
    labels={"project": "hello"},
    env={"PORT": "8080", "GREETING": "hunter2 # $x"},
)


def facts(**fields: Any) -> Facts:
    there = parse(
        "uid=0\nuser=root\nhome=/root\nunified=1\ncaps=000001ffffffffff\nprocesses=unlimited\n"
        "files=1048576\nhas=podman\nhas=nft\nworks=podman\nclock=1700000000\nkernel=6.1\nmachine=x86_64\n"
    )
    return replace(there, **fields)


def podman(**fields: Any) -> engine.Engine:
    return choose("podman", facts(**fields))


def test_a_machine_is_understood_from_what_its_shell_prints() -> None:
    there = facts()
    assert (there.root, there.hybrid, there.raise_limits) == (True, False, True)
    assert (there.processes, there.files) == (None, 1048576)
    assert there.programs == {"podman", "nft"}
    with pytest.raises(TargetError, match="It must be Linux, with a POSIX shell"):
        parse("Windows PowerShell")


SHIM = "#!/bin/sh\ncase $1 in info) echo '{}';; esac\n"  # works, and tells of itself


@pytest.mark.parametrize(
    "options, engine_there",
    [
        ("[name=seccomp,profile=builtin name=cgroupns]", "docker"),
        ("[name=seccomp,profile=builtin name=rootless name=cgroupns]", ""),
    ],
)
def test_rootless_docker_is_not_taken_and_the_reason_is_told(
    tmp_path: Path, options: str, engine_there: str
) -> None:
    for name, text in {"podman": "#!/bin/sh\nexit 1\n", "docker": SHIM.format(options)}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    argv = ["sh", "-c", f"{PATH}; {script()}"]
    said = subprocess.run(
        argv, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=True
    ).stdout
    there = parse(said)
    assert there.engine == engine_there
    if not engine_there:
        with pytest.raises(NoEngine, match=r"docker there runs without root, .* not supported"):
            find_engine(cast(Machine, SimpleNamespace(facts=there)))


@pytest.mark.parametrize("program", ["podman", "docker"])
def test_one_that_is_to_have_files_is_made_filled_and_then_started(program: str) -> None:
    known = choose(program, facts())
    wanted = replace(WANTED, files={"KEY": "two\nlines"})
    argv = known.run(wanted, host_port=34567)
    assert argv[1] == "create" and "--detach" not in argv and "two" not in str(argv)
    assert known.run(WANTED, host_port=34567)[1:3] == ["run", "--detach"]
    assert known.copy_in("abc")[-4:] == [program, "cp", "-", "abc:/"]
    with tarfile.open(fileobj=io.BytesIO(archive(wanted.files))) as tar:
        assert tar.getnames() == ["run/secrets", "run/secrets/KEY"]
        assert tar.extractfile("run/secrets/KEY").read() == b"two\nlines"  # type: ignore[union-attr]


def test_a_container_is_started_under_limits_and_without_privileges() -> None:
    argv = podman().run(WANTED, host_port=34567)
    for option in (
        "--memory=67108864",
        "--cpus=0.5",
        "--pids-limit=50",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--restart=unless-stopped",
        "--pull=never",
        "--publish=127.0.0.1:34567:8080",
        "--label=gantry.project=hello",
    ):
        assert option in argv
    assert argv[-1] == WANTED.reference
    assert "--privileged" not in argv
    added = {option.partition("=")[2] for option in argv if option.startswith("--cap-add")}
    assert not added & {"MKNOD", "NET_RAW", "AUDIT_WRITE", "SYS_ADMIN"}


def test_a_project_runs_as_its_own_host_ids_where_the_engine_can_do_that() -> None:
    wanted = replace(WANTED, id_base=333905920, network="gantry-x-1")
    mapped = replace(podman(), maps_ids=True).run(wanted, host_port=34567)
    assert {"--uidmap=0:333905920:65536", "--gidmap=0:333905920:65536"} <= set(mapped)
    docker = choose("docker", facts()).run(wanted, host_port=34567)
    assert not any(option.startswith(("--uidmap", "--gidmap")) for option in docker)
    assert "--restart=no" in mapped
    assert "--restart=unless-stopped" in docker
    for argv in (mapped, docker):
        assert "--network=gantry-x-1" in argv


def test_the_bridges_of_either_engine_are_known() -> None:
    assert engine.parse_networks('[{"name": "a", "network_interface": "podman7"}]') == {
        "a": "podman7"
    }
    device = engine.parse_networks("gantry-x-1\n")["gantry-x-1"]
    assert len(device) <= 15
    docker = choose("docker", facts()).create_network("gantry-x-1")
    assert f"--opt=com.docker.network.bridge.name={device}" in docker


def test_the_clock_of_this_machine_is_ours_however_long_a_worker_lives(monkeypatch: Any) -> None:
    monkeypatch.setattr(machine, "_facts", facts)  # asked in 2023
    assert abs(machine.Here().facts.clock - time.time()) < 5


@pytest.mark.root
def test_a_certificate_that_a_wrong_clock_takes_for_a_future_one_is_told_as_such(
    tmp_path: Path,
) -> None:
    """The registry's is of tomorrow, which is the same to a host as a clock of yesterday."""
    certificate = certificate_for("127.0.0.1", tmp_path, begins=timedelta(days=1))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, tmp_path / "key.pem")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    with contextlib.suppress(OSError), client:
                        context.wrap_socket(client, server_side=True)

        threading.Thread(target=serve, daemon=True).start()
        registry = f"127.0.0.1:{server.getsockname()[1]}"
        argv = podman().pull(f"{registry}/hello@sha256:{'0' * 64}", plain_http=False)
        (tmp_path / "trusted").mkdir()
        certificate.rename(tmp_path / "trusted" / "ca.crt")
        argv.insert(-1, f"--cert-dir={tmp_path / 'trusted'}")
        with pytest.raises(CommandFailed) as failed:
            commands.run(argv, timeout=30, stdin=b"{}")
        server.shutdown(socket.SHUT_RDWR)
    assert str(failed.value).endswith(
        "Set the host's clock right, or renew that certificate, then deploy again."
    )


@pytest.fixture
def loaded(tmp_path: Path) -> Callable[..., str]:
    """What nft lists after such scripts were loaded, in a network of its own."""

    def load(*scripts: str) -> str:
        for number, text in enumerate(scripts):
            (tmp_path / str(number)).write_text(text)
        loads = [f"nft -f {tmp_path}/{number}" for number in range(len(scripts))]
        line = " && ".join([*loads, f"nft list table {firewall.TABLE}"])
        return commands.run(["unshare", "--net", "sh", "-c", line], timeout=20).out

    return load


def test_the_firewall_holds_for_the_bridges_it_was_given(loaded: Callable[..., str]) -> None:
    one = firewall.script("podman", {"gantry-1": "podman7", "gantry-2": "podman8"})
    two = firewall.script("docker", {"gantry-1": "gtd1"})
    none = firewall.script("podman", {}, gone=["podman7", "podman8"])
    podman = loaded(one, one)
    assert firewall.guarded(podman, "podman") == {"podman7": "gantry-1", "podman8": "gantry-2"}
    assert firewall.guarded(podman, "docker") == {}
    for chain in podman.split("\tchain ")[1:]:
        first = chain.splitlines()[2].strip()
        assert first == "iifname != @podman iifname != @docker accept", "before any other rule"
    assert podman.count("reject with icmpx") == 5, "loaded twice it is there once"
    both = loaded(one, two, one, two)
    assert firewall.guarded(both, "docker") == {"gtd1": "gantry-1"}
    assert firewall.guarded(both, "podman"), "neither engine takes out the other's"
    assert both.count("reject with icmpx") == 5
    assert firewall.guards_others(both, "podman") and firewall.guards_others(both, "docker")
    left = loaded(one, two, none)
    assert "podman7" not in left and "gtd1" in left
    assert firewall.guards_others(left, "podman") and not firewall.guards_others(left, "docker")


def test_who_looked_before_another_added_a_bridge_does_not_take_it_out(
    loaded: Callable[..., str],
) -> None:
    """One machine may be two hosts by our record, whose workers do not wait for one another."""
    early = firewall.script("podman", {"gantry-1": "podman1"}, gone=["podman0"])
    late = firewall.script("podman", {"gantry-1": "podman1", "gantry-2": "podman2"})
    both = {"podman1": "gantry-1", "podman2": "gantry-2"}
    assert firewall.guarded(loaded(late, early), "podman") == both


def test_a_bridge_that_another_network_has_now_is_told_by_that_ones_name(
    loaded: Callable[..., str],
) -> None:
    before = firewall.script("podman", {"gantry-1": "podman1"})
    after = firewall.script("podman", {"gantry-2": "podman1"})
    assert firewall.guarded(loaded(before, after), "podman") == {"podman1": "gantry-2"}


@pytest.mark.parametrize("chain", ["forward", "input"])
def test_bridges_without_rules_are_not_guarded(loaded: Callable[..., str], chain: str) -> None:
    flushed = f"flush chain {firewall.TABLE} {chain}"
    said = loaded(firewall.script("podman", {"gantry-1": "podman1"}), flushed)
    assert "podman1" in said
    assert firewall.guarded(said, "podman") == {}


def test_what_is_the_machines_own_is_known_from_its_addresses(tmp_path: Path) -> None:
    every = """1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever
2: eth0    inet 192.0.2.7/24 brd 192.0.2.255 scope global eth0\\       valid_lft forever
2: eth0    inet6 2001:db8::7/64 scope global \\       valid_lft forever
2: eth0    inet6 fe80::1/64 scope link \\       valid_lft forever
3: ppp0    inet 198.51.100.9 peer 198.51.100.1/32 scope global ppp0
4: docker0    inet 172.17.0.1/16 brd 172.17.255.255 scope global docker0
"""
    own = firewall.networks_of(every, every.splitlines()[-1])
    assert own == ["172.17.0.0/16", "192.0.2.7/32", "198.51.100.9/32", "2001:db8::7/128"]
    (tmp_path / "rules").write_text(firewall.script("podman", {"gantry-1": "podman1"}, machine=own))
    load = ["unshare", "--net", "sh", "-c", f"nft -f {tmp_path}/rules && nft list ruleset"]
    said = commands.run(load, timeout=20).out
    assert "ip daddr { 172.17.0.0/16, 192.0.2.7, 198.51.100.9 } reject" in said
    assert "ip6 daddr 2001:db8::7 reject" in said or "ip6 daddr { 2001:db8::7 } reject" in said


def test_variables_are_never_on_a_command_line() -> None:
    for program in ("podman", "docker"):
        argv = choose(program, facts()).run(WANTED, host_port=34567)
        assert "--env-file=/dev/stdin" in argv
        assert "hunter2" not in " ".join(argv)
    assert engine.env_file(WANTED.env) == b"PORT=8080\nGREETING=hunter2 # $x\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [("A", "x\nLD_PRELOAD=y"), ("A", "x\r"), ("A", "\0"), ("A=B", "x"), ("#A", "x"), ("", "x")],
)
def test_a_variable_that_would_become_another_is_refused(name: str, value: str) -> None:
    with pytest.raises(TargetError, match="variable"):
        engine.env_file({name: value})


def test_a_hybrid_host_uses_runc() -> None:
    assert "--runtime=runc" in podman(hybrid=True).run(WANTED, host_port=34567)
    assert "--runtime=runc" not in podman(hybrid=False).run(WANTED, host_port=34567)


def test_limits_are_set_low_only_where_they_cannot_be_raised() -> None:
    assert not any(
        option.startswith("--ulimit") for option in podman().run(WANTED, host_port=34567)
    )
    low = [
        option
        for option in podman(raise_limits=False).run(WANTED, host_port=34567)
        if "ulimit" in option
    ]
    assert len(low) == 2
    for option in low:
        soft, _, hard = option.rpartition("=")[2].partition(":")
        assert soft == hard
        assert int(hard) <= 8192


def test_docker_takes_the_same_words() -> None:
    argv = choose("docker", facts(hybrid=True, raise_limits=False)).run(WANTED, host_port=34567)
    assert argv[0] == "docker"
    assert not any("ulimit" in option or "runtime" in option for option in argv)


def test_credentials_are_never_on_a_command_line_and_gone_after_it(tmp_path: Path) -> None:
    config = credentials.config("127.0.0.1:5055", ("gantry-deploy", "hunter2"))
    for program in ("podman", "docker"):
        (tmp_path / program).write_text(f"#!/bin/sh\nstat -c %a config.json; pwd; cat {READ}\n")
        (tmp_path / program).chmod(0o755)
        argv = choose(program, facts()).pull("r@d", plain_http=True)
        assert "hunter2" not in " ".join(argv)
        said = commands.run([*argv[:4], str(tmp_path / program)], timeout=20, stdin=config).out
        mode, folder, content = said.splitlines()
        assert (mode, content) == ("600", config.decode())
        assert not Path(folder).exists()


def test_what_a_killed_pull_left_goes_with_a_later_one(tmp_path: Path) -> None:
    env = os.environ | {"TMPDIR": str(tmp_path)}
    words = ["sh", "-c", engine.WITH_CREDENTIALS, "pull", "sh", "-c"]
    found: list[Path] = []
    passwords: list[Path] = []

    def begun() -> subprocess.Popen[bytes]:
        """One that goes on; its folder is the next in ``found``."""
        waits = [*words, "echo $TMPDIR $PWD; exec sleep 60"]
        process = subprocess.Popen(
            waits, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert process.stdin and process.stdout
        process.stdin.close()
        disk, memory = map(Path, process.stdout.readline().decode().split())
        found.append(disk)
        passwords.append(memory)
        return process

    def aged(seconds: float, *folders: Path) -> None:
        for folder in folders:
            os.utime(folder, (time.time() - seconds,) * 2)

    killed, halved, goes_on, young = (begun() for _ in range(4))
    try:
        for process in (killed, young):
            os.killpg(process.pid, signal.SIGKILL)
        halved.kill()  # its shell alone: what that ran is at it yet
        for process in (killed, young, halved):
            process.wait()
        aged(90, *found[:3])
        pulled = [*words, "ls -d $TMPDIR"]
        said = subprocess.run(pulled, env=env, input=b"{}", capture_output=True, check=True).stdout
        assert said.startswith(f"{tmp_path}/gantry-pull-".encode())
        assert set(tmp_path.iterdir()) == set(found[1:])
        assert all(folder.exists() for folder in passwords[1:])
        aged(7200, found[3])
        subprocess.run(pulled, env=env, input=b"{}", capture_output=True, check=True)
        assert set(tmp_path.iterdir()) == set(found[1:3])
    finally:
        for process in (halved, goes_on):
            os.killpg(process.pid, signal.SIGKILL)
        goes_on.wait()
        for process in (killed, halved, goes_on, young):
            assert process.stdout
            process.stdout.close()
        for folder in passwords:
            shutil.rmtree(folder, ignore_errors=True)


def test_one_command_lists_and_inspects_and_one_stops_and_removes(tmp_path: Path) -> None:
    script = tmp_path / "podman"
    script.write_text(f"""#!/bin/sh
echo "$@" >> {tmp_path}/asked
case "$*" in
  *status=removing) echo half;;
  ps*) cat {tmp_path}/ids;;
  "container inspect two") echo '[{{"two": 2}}]';;
  container*) echo []; exit 125;;
  stop*) exit 1;;
esac
""")
    script.chmod(0o755)

    def ran(argv: list[str]) -> list[str]:
        (tmp_path / "asked").write_text("")
        argv[4] = str(script)
        said = commands.run(argv, timeout=20).out
        return [said.strip(), *(tmp_path / "asked").read_text().splitlines()]

    listed = "ps --all --quiet --no-trunc --filter=label=gantry.a=b"
    (tmp_path / "ids").write_text("")
    assert ran(podman().inspect_all({"a": "b"})) == ["", listed], "none: nothing to inspect"
    (tmp_path / "ids").write_text("one\ntwo\n")
    said, *asked = ran(podman().inspect_all({"a": "b"}))
    assert said == '[]\n[{"two": 2}]', "one has gone meanwhile, or half"
    assert asked == [
        listed, "container inspect one two", f"{listed} --filter=status=removing",
        "rm --force half", listed, "container inspect one", "container inspect two",
    ]  # fmt: skip
    docker = choose("docker", facts())
    said = ran(docker.end("one", 7))
    assert said == ["", "stop --time=7 one", "rm --force --volumes one"]
    assert podman().end("one", 7) == ["podman", "rm", "--force", "--volumes", "--time=7", "one"]
    for known in (podman(), docker):
        assert known.end("one", 0) == known.remove("one")
    assert "--time=0" in podman().remove("one")
    assert str(CommandFailed(docker.end("one", 7), 1, "")).startswith("'docker rm' failed")
    assert str(CommandFailed(podman().inspect_all({}), 1, "")).startswith("'podman ps' failed")


def test_what_is_listed_is_read_from_one_list_or_from_several() -> None:
    raw = {"Id": "a", "Name": "n", "Image": "i", "State": {"Running": True}, "Config": {}}
    one, two = json.dumps([raw]), json.dumps([raw | {"Id": "b"}])
    assert [c.id for c in engine.parse_containers(f"[]\n{one}\n{two}\n")] == ["a", "b"]
    assert engine.parse_containers("[]", some=False) == []


def test_only_a_registry_on_this_machine_may_speak_plain_http() -> None:
    assert "--tls-verify=false" in podman().pull("r@d", plain_http=True)
    assert "--tls-verify=false" not in podman().pull("r@d", plain_http=False)


def test_an_inspected_container_is_understood() -> None:
    raw = {
        "Id": "abc",
        "Name": "/one",
        "Image": "sha256:cc",
        "State": {"Running": True, "OOMKilled": False, "Pid": 7},
        "RestartCount": 2,
        "Config": {"Labels": {"gantry.project": "hello", "maintainer": "x"}},
        "NetworkSettings": {
            "Ports": {
                "53/udp": None,
                "8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "34567"}],
            }
        },
    }
    container = parse_container(raw)
    assert container.name == "one"
    assert container.address == "127.0.0.1:34567"
    assert container.labels == {"project": "hello"}
    assert container.restarts == 2


def test_a_container_runs_an_image_only_if_the_bytes_are_the_same() -> None:
    raw = {
        "Id": "abc",
        "Name": "one",
        "Image": "cc",
        "State": {"Running": True},
        "Config": {"Labels": None},
        "NetworkSettings": {"Ports": {}},
    }
    container = parse_container(raw)

    def image(config: str) -> ImageFacts:
        return ImageFacts(
            digest="sha256:mm", config_digest=config, layers=(), port=None, check=Check()
        )

    assert container.runs(image("sha256:cc"))
    assert not container.runs(image("sha256:cd"))


def test_the_last_exit_code_is_read_from_either_engines_events() -> None:
    podman = '{"ContainerExitCode":1,"Status":"died"}\n{"ContainerExitCode":4,"Status":"died"}\n'
    docker = '{"status":"die","Actor":{"Attributes":{"exitCode":"137"}}}\n'
    assert parse_exit_code(podman) == 4
    assert parse_exit_code(docker) == 137
    assert parse_exit_code("") is None
