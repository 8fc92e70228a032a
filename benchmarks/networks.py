"""What a container's network costs to set up and to remove: ours beside what else there is.

    sudo .venv/bin/python benchmarks/networks.py [--rounds 20] [--cni DIR] [--pasta PROGRAM]

All in a network namespace of its own, so that no bridge and no rule comes to the machine. Each
contestant is given an empty namespace and must leave it with a way out; ours also closes the
host and all that is private. Removal counts; what ours does in the background is waited for in a
row of its own. netavark comes with podman; Debian has CNI's plugins in
containernetworking-plugins and pasta in passt.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from runtime.network import later, open_network, open_private
from runtime.spec import Network
from runtime.state import StateDirectory

NAME = "bench"
NETNS = Path("/run/netns") / NAME
NETAVARK = Path("/usr/lib/podman/netavark")
OWN_PLACE = "GANTRY_BENCH_OWN_PLACE"
PREPARE = """
mount -t tmpfs none /run && mount -t sysfs sysfs /sys && mkdir -p /run/netns &&
ip link set lo up && ip link add uplink type veth peer name far &&
ip addr add 192.0.2.2/24 dev uplink &&
ip link set uplink up && ip link set far up && ip route add default via 192.0.2.1 &&
exec "$@"
"""


def main() -> None:
    if OWN_PLACE not in os.environ:
        command = ["unshare", "--net", "--mount", "sh", "-c", PREPARE, "sh", sys.executable]
        os.execvpe(command[0], [*command, *sys.argv], {**os.environ, OWN_PLACE: "1"})
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--cni", type=Path, default=Path("/usr/lib/cni"))
    parser.add_argument("--pasta", default=shutil.which("pasta") or "")
    arguments = parser.parse_args()
    area = Path(tempfile.mkdtemp(prefix="gantry-networks-"))
    try:
        report(measure(contestants(area, arguments), arguments.rounds))
    finally:
        later.settle()
        shutil.rmtree(area)


def contestants(area: Path, arguments: argparse.Namespace) -> dict[str, Callable[[], None]]:
    state = StateDirectory(area / "state")
    found: dict[str, Callable[[], None]] = {
        "ours, egress": lambda: ours(state),
        "ours, egress, its removal waited for": lambda: (ours(state), later.settle())[0],
        "ours, private network with one member": lambda: ours_private(state),
    }
    if NETAVARK.exists():
        found["netavark, bridge"] = lambda: netavark(area)
    if (arguments.cni / "bridge").exists():
        found["CNI: bridge, host-local, firewall"] = lambda: cni(arguments.cni, area)
    if arguments.pasta:
        found["pasta"] = lambda: pasta(arguments.pasta, area)
    return found


def ours(state: StateDirectory) -> None:
    with open_network(Network.EGRESS, state=state):
        pass


def ours_private(state: StateDirectory) -> None:
    with open_private(state=state) as network, network.member("one"):
        pass


def run(*command: str, given: str = "", **env: str) -> str:
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, check=False,
        env={**os.environ, **env},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:3])}: {done.stderr or done.stdout}")
    return done.stdout


def in_namespace(work: Callable[[], None]) -> None:
    run("ip", "netns", "add", NAME)
    try:
        work()
    finally:
        run("ip", "netns", "delete", NAME)


def netavark(area: Path) -> None:
    asked = json.dumps({
        "container_id": NAME,
        "container_name": NAME,
        "networks": {NAME: {"static_ips": ["10.99.1.2"], "interface_name": "eth0"}},
        "network_info": {NAME: {
            "name": NAME, "id": "a" * 64, "driver": "bridge", "network_interface": "bench1",
            "subnets": [{"subnet": "10.99.1.0/24", "gateway": "10.99.1.1"}],
            "ipv6_enabled": False, "internal": False, "dns_enabled": False,
            "ipam_options": {"driver": "host-local"},
        }},
    })  # fmt: skip

    def work() -> None:
        for verb in ("setup", "teardown"):
            run(str(NETAVARK), "--config", str(area), verb, str(NETNS), given=asked)

    in_namespace(work)


def cni(plugins: Path, area: Path) -> None:
    common = {"cniVersion": "0.4.0", "name": NAME}
    bridge = {
        **common, "type": "bridge", "bridge": "bench2", "isGateway": True, "ipMasq": True,
        "ipam": {"type": "host-local", "subnet": "10.99.2.0/24", "dataDir": str(area / "cni")},
    }  # fmt: skip
    env = {
        "CNI_CONTAINERID": NAME, "CNI_NETNS": str(NETNS), "CNI_IFNAME": "eth0",
        "CNI_PATH": str(plugins),
    }  # fmt: skip

    def call(verb: str, config: dict[str, object]) -> str:
        program = str(plugins / str(config["type"]))
        return run(program, given=json.dumps(config), CNI_COMMAND=verb, **env)

    def work() -> None:
        result = json.loads(call("ADD", bridge))
        firewall = {**common, "type": "firewall", "prevResult": result}
        call("ADD", firewall)
        call("DEL", firewall)
        call("DEL", bridge)

    in_namespace(work)


def pasta(program: str, area: Path) -> None:
    pid = area / "pasta.pid"

    def work() -> None:
        run(
            program, "--config-net", "--no-map-gw", "--quiet", "--runas", "0", "--pid", str(pid),
            "--netns", str(NETNS),
        )  # fmt: skip
        os.kill(int(pid.read_text()), signal.SIGTERM)

    in_namespace(work)


def measure(found: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each, after one round that is not counted; what does not work here is left out."""
    times: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        for name, once in list(found.items()):
            started = time.perf_counter()
            try:
                once()
            except SystemExit as error:
                print(f"{name} does not work here: {error}", file=sys.stderr)
                del found[name]
                continue
            if number:
                times.setdefault(name, []).append(time.perf_counter() - started)
            later.settle()
    return times


def report(times: dict[str, list[float]]) -> None:
    print(f"{'a network, set up and removed':<40}{'median':>10}{'best':>10}")
    for name, seconds in times.items():
        print(
            f"{name:<40}{statistics.median(seconds) * 1000:>7.1f} ms{min(seconds) * 1000:>7.1f} ms"
        )


if __name__ == "__main__":
    main()
