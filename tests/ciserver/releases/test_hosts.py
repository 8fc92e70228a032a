"""Deployments to other machines by ssh: two of qa and two of prod, each with its own sshd."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.utils import timezone

from ciserver.accounts.models import AuditEntry
from ciserver.releases import (
    drift,
    environments,
    fleet,
    health,
    moving,
    naming,
    restoring,
    runner,
    services,
    tasks,
    visits,
)
from ciserver.releases.hosts import opened
from ciserver.releases.models import Deployment, DeploymentStep, Environment, Host, Release, Running
from ciserver.releases.one_host import HostDeployment
from ciserver.releases.targets import masters
from ciserver.releases.targets.connection import fingerprint
from tests.ciserver.releases import test_acme
from tests.ciserver.releases.conftest import wait_for
from tests.ciserver.releases.deploying import Doomed
from tests.ciserver.releases.test_acme import SHOP
from tests.ciserver.releases.test_deploy import Probe
from tests.home import HOME
from tests.machines import Machine
from tests.together import together

pytestmark = [
    pytest.mark.root,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(300),  # several deployments, on a machine that may be busy
]
STEPS = ["connect", "pull", "start", "check", "switch", "retire"]


class Fleet:
    """The project with qa and prod on two machines each."""

    def __init__(
        self,
        project: Any,
        passed: Any,
        registry: Any,
        ships: list[Machine],
        admin: Any,
        known: dict[tuple[str, str], dict[str, str]],
    ) -> None:
        self.project, self._passed, self.registry = project, passed, registry
        self.ships = dict(zip(("qa-1", "qa-2", "prod-1", "prod-2"), ships, strict=True))
        self.admin, self._known = admin, known
        project.environments.update(stable_seconds=0)
        self.qa: Environment = project.environments.get(name="qa")
        self.prod: Environment = project.environments.get(name="prod")
        for name, ship in self.ships.items():
            host = fleet.add(user=admin, name=name, address=f"root@{ship.ip}")
            if there := known.get((name, host.address)):
                Host.objects.filter(pk=host.pk).update(**there, engine="podman")
            else:
                ship.allow(host.public_key)
            (self.qa if name.startswith("qa") else self.prod).hosts.add(host)

    def host(self, name: str) -> Host:
        return Host.objects.get(name=name)

    def only(self, *names: str) -> None:
        """Let qa have these hosts and no other."""
        self.qa.hosts.set([self.host(name) for name in names])

    def release(self, page: str, **image: Any) -> Release:
        digest = self.registry.push("hello", page=page, **image)
        pipeline = self._passed(digest, repository=f"{self.registry.address}/hello")
        return services.make_release(pipeline)

    def deploy(self, page: str, **image: Any) -> Deployment:
        return self.run(self.release(page, **image).deployments.get())

    def run(self, deployment: Deployment) -> Deployment:
        runner.deploy(deployment.pk)
        return Deployment.objects.get(pk=deployment.pk)

    def url(self, name: str, environment: Environment | None = None) -> str:
        return f"http://{self.ships[name].ip}:{(environment or self.qa).port}/"

    def page(self, name: str, environment: Environment | None = None) -> str:
        return httpx.get(self.url(name, environment), timeout=5, trust_env=False, verify=False).text

    def seen_first(self, *names: str) -> None:
        """As these hosts are before they are reached for the first time, also for later tests."""
        rows = Host.objects.filter(name__in=names)
        rows.update(host_key="", engine="")
        for row in rows:
            self._known.pop((row.name, row.address), None)

    def clear(self) -> None:
        """Away with everything that runs on the machines, however a test left them."""
        for row in Host.objects.filter(address__startswith="root@").exclude(host_key=""):
            there = {"sealed": row.sealed, "public_key": row.public_key, "host_key": row.host_key}
            self._known[row.name, row.address] = there
        with ThreadPoolExecutor(len(self.ships)) as pool:
            list(pool.map(_clear, self.ships.values()))


def _clear(ship: Machine) -> None:
    ship.show()
    ship.plug_in()
    ship.sh(CLEAR)


# Podman writes to its database whenever it is used.
CLEAR = """
rm -f /usr/local/sbin/date /usr/local/sbin/podman
if [ ! -e /tmp/clear ] || [ /var/lib/containers/storage/libpod/bolt_state.db -nt /tmp/clear ]; then
  podman rm --force --all --time 0
  pkill -x caddy
  rm -rf /var/lib/gantry-host
fi
touch /tmp/clear
"""


@pytest.fixture
def harbour(
    hello: Any,
    passed: Any,
    registry: Any,
    ships: list[Machine],
    admin_user: Any,
    monkeypatch: Any,
    known: dict[tuple[str, str], dict[str, str]],
) -> Iterator[Fleet]:
    monkeypatch.setattr(health, "BETWEEN_TRIES", 0.1)
    made = Fleet(hello, passed, registry, ships, admin_user, known)
    try:
        yield made
    finally:
        made.clear()


def test_a_release_travels_to_two_hosts_and_on_to_two_others_as_the_same_digest(
    harbour: Fleet,
) -> None:
    harbour.seen_first(*harbour.ships)
    first = harbour.deploy("one")
    assert first.reason == ""
    assert [harbour.page(name) for name in ("qa-1", "qa-2")] == ["one", "one"]
    steps = list(first.steps.values_list("host__name", "name"))
    assert steps == [(host, step) for host in ("qa-1", "qa-2") for step in STEPS]
    # Somebody pushes something else under the tag that qa's image has: no tag is ever asked for.
    other = harbour.registry.push("hello", page="not this")
    harbour.registry.tag("hello", other, "main")
    asked = services.promote(release=first.release, environment=harbour.prod, user=harbour.admin)
    Environment.objects.filter(pk=harbour.prod.pk).update(batch_size=2)
    promoted = harbour.run(asked)
    assert (promoted.state, promoted.reason) == ("succeeded", "")
    assert [harbour.page(name, harbour.prod) for name in ("prod-1", "prod-2")] == ["one", "one"]
    rows = Running.objects.all()
    assert {row.digest for row in rows} == {first.release.digest}
    assert rows.count() == 4
    for name, ship in harbour.ships.items():
        said = ship.sh("podman inspect --format '{{.ImageDigest}}' $(podman ps -q)")
        assert said.strip() == first.release.digest, name
        assert harbour.host(name).host_key.startswith("ssh-ed25519 ")
    assert drift.look() == 0
    assert set(rows.values_list("drift", flat=True)) == {""}


@pytest.mark.timeout(600)
def test_deploy_failure_rollback_and_killed_workers_lose_no_request(
    harbour: Fleet, doomed: Doomed
) -> None:
    harbour.only("qa-1")
    first = harbour.deploy("one")
    with Probe(harbour.url("qa-1")) as probe:
        failed = harbour.deploy("bad", command="exit 3")
        assert failed.state == "failed"
        assert failed.reason.endswith("v1 still serves qa.")
        deployment = harbour.release("three").deployments.get()
        for step in [*STEPS[:-1], "record", "retire"]:
            Deployment.objects.filter(pk=deployment.pk).update(attempt=0)
            assert doomed.deploy(deployment.pk, step) == -9, step
            Deployment.objects.filter(pk=deployment.pk).update(lease_until=timezone.now())
            assert runner.recover_deployments() == [deployment.pk]
        assert harbour.run(deployment).state == "succeeded"
        back = services.roll_back(environment=harbour.qa, release=first.release, user=harbour.admin)
        returned = harbour.run(back)
        assert (returned.state, returned.bytes_pulled) == ("succeeded", 0)
        time.sleep(0.2)
    assert probe.failures == []
    assert probe.answers[-1] == "200 one"
    assert len(harbour.ships["qa-1"].sh("podman ps --all -q").split()) == 1
    masters.end_kept(HOME / "run")
    left = [one for one in (HOME / "run" / "ssh").iterdir() if one.is_dir()]
    assert left == [], "no socket is left of the killed ones"


@pytest.mark.timeout(600)
def test_what_serves_moves_to_another_host_through_killed_workers(
    harbour: Fleet, doomed: Doomed
) -> None:
    harbour.only("qa-1")
    first = harbour.deploy("one")
    asked = moving.move(environment=harbour.qa, user=harbour.admin, to="qa-2")
    served = harbour.url("qa-1")
    with Probe(served) as old:
        for step in [*STEPS[:-1], "record", "retire"]:
            Deployment.objects.filter(pk=asked.pk).update(attempt=0)
            assert doomed.deploy(asked.pk, step) == -9, step
            Deployment.objects.filter(pk=asked.pk).update(lease_until=timezone.now())
            assert runner.recover_deployments() == [asked.pk]
    assert old.failures == [], "it serves until the new one does"
    with Probe(harbour.url("qa-2")) as new:
        Deployment.objects.filter(pk=asked.pk).update(attempt=0)
        assert doomed.deploy(asked.pk, "leave") == -9
        assert harbour.page("qa-1") == "one"
        Deployment.objects.filter(pk=asked.pk).update(lease_until=timezone.now())
        runner.recover_deployments()
        moved = harbour.run(asked)
    assert (moved.state, moved.reason, new.failures) == ("succeeded", "", [])
    assert [step.host.name for step in moved.steps.filter(name="leave")] == ["qa-1", "qa-1"]
    assert [host.name for host in harbour.qa.hosts.all()] == ["qa-2"]
    running = Running.objects.get()
    assert (running.host.name, running.digest) == ("qa-2", first.release.digest)
    with pytest.raises(httpx.ConnectError):
        harbour.page("qa-1")
    assert harbour.ships["qa-1"].sh("podman ps --all -q") == ""
    assert (drift.look(), Running.objects.get().drift) == (0, "")
    image = Release.objects.get(pk=first.release_id).image["config_digest"]
    listed = "podman images --quiet --no-trunc"
    assert image in harbour.ships["qa-1"].sh(listed)
    tasks.prune_images(harbour.qa.pk)
    assert image not in harbour.ships["qa-1"].sh(listed), "nothing goes back to it there"
    assert image in harbour.ships["qa-2"].sh(listed)
    assert harbour.deploy("two").state == "succeeded"
    assert harbour.page("qa-2") == "two"


def test_what_serves_moves_away_from_a_host_that_is_down_and_is_gone_there_once_it_is_up(
    harbour: Fleet, monkeypatch: Any
) -> None:
    monkeypatch.setattr(masters, "CONNECT", 3)
    harbour.only("qa-1")
    harbour.deploy("one")
    harbour.ships["qa-1"].unplug()
    asked = moving.move(environment=harbour.qa, user=harbour.admin, to="qa-2")
    moved = harbour.run(asked)
    assert moved.state == "succeeded"
    assert moved.reason.startswith("qa-1 could not be left: qa-1 cannot be reached: ")
    assert moved.reason.endswith("What runs there goes as soon as it answers.")
    assert moved.steps.get(name="leave").state == "failed"
    assert harbour.page("qa-2") == "one"
    drift.look()
    assert Running.objects.get(host__name="qa-1").drift.startswith("qa-1 cannot be looked at")
    harbour.ships["qa-1"].plug_in()
    restoring.restore_routes()
    assert Running.objects.get().host.name == "qa-2"
    assert harbour.ships["qa-1"].sh("podman ps --all -q") == ""
    assert harbour.page("qa-2") == "one"


def test_a_host_that_an_environment_no_longer_has_is_left_by_a_deployment_that_succeeds(
    harbour: Fleet,
) -> None:
    harbour.only("qa-1")
    first = harbour.deploy("one")
    harbour.ships["qa-2"].hide("podman")
    asked = moving.move(environment=harbour.qa, user=harbour.admin, to="qa-2")
    failed = harbour.run(asked)
    assert (failed.state, "No container engine works" in failed.reason) == ("failed", True)
    assert failed.reason.endswith("; v1 still serves qa.")
    assert [host.name for host in harbour.qa.hosts.all()] == ["qa-1"]
    assert harbour.page("qa-1") == "one"
    harbour.ships["qa-2"].show()
    harbour.only("qa-2")
    restoring.restore_routes()
    assert harbour.page("qa-1") == "one", "hosts hold from the next deployment on"
    again = services.promote(release=first.release, environment=harbour.qa, user=harbour.admin)
    assert harbour.run(again).reason == ""
    assert Running.objects.get().host.name == "qa-2"
    assert harbour.ships["qa-1"].sh("podman ps --all -q") == ""


def test_batches_stop_at_the_first_that_fails_and_the_record_says_where_what_serves(
    harbour: Fleet,
) -> None:
    harbour.only("prod-1", "qa-1", "qa-2")
    Environment.objects.filter(pk=harbour.qa.pk).update(batch_size=2)
    first = harbour.deploy("one")
    assert first.reason == ""
    harbour.ships["qa-2"].hide("podman")
    # By name: prod-1 and qa-1 first.
    stopped = harbour.deploy("two")
    assert stopped.state == "failed"
    assert stopped.reason.startswith("qa-2: No container engine works on this host (podman is not")
    assert stopped.reason.endswith(
        "qa is served by v2 on prod-1 and qa-1, v1 on qa-2: deploy again, or roll back."
    )
    harbour.ships["qa-2"].show()
    harbour.ships["prod-1"].hide("podman")
    again = harbour.deploy("three")
    assert again.reason.endswith(
        "qa is served by v2 on prod-1, v3 on qa-1, v1 on qa-2: deploy again, or roll back."
    )
    Environment.objects.filter(pk=harbour.qa.pk).update(stop_on_failure=False)
    goes_on = harbour.deploy("four")
    assert "v4 on qa-1 and qa-2" in goes_on.reason
    pages = {name: harbour.page(name) for name in ("prod-1", "qa-1", "qa-2")}
    assert pages == {"prod-1": "two", "qa-1": "four", "qa-2": "four"}


BAD: dict[str, str] = {
    "host down": "qa-1 cannot be reached: ",
    "disk full": "Make room on the host, then deploy again",
    "changed key": "The host key of qa-1 is not the one that was pinned, but SHA256:",
    "engine missing": "(podman is not installed; docker is not installed). Install podman",
    "registry gone": "127.0.0.1:1 does not answer",
    "our key unknown": "qa-1 does not let root in with our key. Add this line there to",
    "banner lies": "qa-1 does not let root in with our key. Add this line there to",
    "engine lies": "answered to 'container inspect' is no answer that podman",
}


LIAR = """#!/bin/sh
case "$*" in
  *"container inspect"*) echo "[{}]" ;;
  *) exec /usr/bin/podman "$@" ;;
esac
"""


def test_each_way_a_host_can_be_bad_is_told_and_the_old_version_serves_on(
    harbour: Fleet,
) -> None:
    """qa-2 is the only host under test here, since qa-1's machine has docker as well."""
    harbour.ships["qa-1"], harbour.ships["qa-2"] = harbour.ships["qa-2"], harbour.ships["qa-1"]
    ship = harbour.ships["qa-1"]
    Host.objects.filter(name="qa-1").update(address=f"root@{ship.ip}")
    harbour.seen_first("qa-1", "qa-2")  # its host key changes
    ship.allow(harbour.host("qa-1").public_key)
    harbour.only("qa-1")
    harbour.deploy("one")
    for case, reason in BAD.items():
        failed, took = _with_bad(harbour, ship, case)
        assert failed.state == "failed", case
        assert reason in failed.reason, case
        assert failed.reason.endswith("; v1 still serves qa."), case
        assert took < 25, case
        last = failed.steps.last()
        if case != "registry gone":
            assert last is not None
            at = {"disk full": "pull", "engine lies": "check"}.get(case, "connect")
            assert (last.state, last.name) == ("failed", at)
        assert harbour.page("qa-1") == "one", case


def _with_bad(harbour: Fleet, ship: Machine, case: str) -> tuple[Deployment, float]:
    release = harbour.release(case) if case != "registry gone" else None
    keys = ship.sh("cat /etc/ssh/allowed/root")
    match case:
        case "host down":
            ship.unplug()
        case "disk full":
            ship.sh("mkdir -p /tmp/images && mount -t tmpfs -o size=200k tmpfs /tmp/images")
            ship.sh("printf '[storage]\\ndriver=\"vfs\"\\ngraphroot=\"/tmp/images\"\\n"
                    "runroot=\"/tmp/run\"\\n' > /etc/containers/storage.conf")  # fmt: skip
        case "changed key":
            ship.new_host_key()
        case "engine missing":
            ship.hide("podman", "docker")
        case "registry gone":
            pipeline = harbour._passed(repository="127.0.0.1:1/hello")
            release = services.make_release(pipeline)
        case "our key unknown":
            ship.sh("echo > /etc/ssh/allowed/root")
            ship.restart_sshd()  # a connection that is kept lasts for minutes
        case "banner lies":
            said = "REMOTE HOST IDENTIFICATION HAS CHANGED! Now: SHA256:" + "x" * 43
            ship.sh(f"echo '{said}' > /etc/banner; echo > /etc/ssh/allowed/root")
            ship.sh("echo 'Banner /etc/banner' >> /etc/ssh/gantry_sshd")
            ship.restart_sshd()
        case "engine lies":
            ship.sh(f"cat > /usr/local/sbin/podman <<'END'\n{LIAR}END")
            ship.sh("chmod 755 /usr/local/sbin/podman")
    assert release is not None
    with pytest.MonkeyPatch.context() as patched:
        if case == "host down":
            patched.setattr(masters, "CONNECT", 3)
        started = time.monotonic()
        failed = harbour.run(release.deployments.get())
        took = time.monotonic() - started
        if case in {"host down", "engine lies"}:
            drift.look()
            assert Running.objects.get().drift.startswith("qa-1 cannot be looked at: ")
            restoring.restore_routes()
    match case:
        case "host down":
            ship.plug_in()
        case "disk full":
            ship.sh("rm /etc/containers/storage.conf; umount -l /tmp/images")
        case "changed key":
            _accept(harbour, ship)
        case "our key unknown":
            ship.allow(keys.strip())
        case "banner lies":
            assert harbour.host("qa-1").offered_key == "", "a host's own words are no key"
            ship.sh("sed -i /^Banner/d /etc/ssh/gantry_sshd")
            ship.restart_sshd()
            ship.allow(keys.strip())
        case "engine lies":
            ship.sh("rm /usr/local/sbin/podman")
            restoring.restore_routes()
            assert len(ship.sh("podman ps --all --quiet").split()) == 1, "the new one is gone"
    ship.show()
    return failed, took


def _accept(harbour: Fleet, ship: Machine) -> None:
    host = harbour.host("qa-1")
    mine = ship.sh("ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub").split()[1]
    assert host.offered_key == mine
    assert fingerprint(host.host_key) != mine
    stranger = "SHA256:" + "x" * 43
    fleet.accept_key(user=harbour.admin, host=host, fingerprint=stranger)
    visits.visit(host.pk)
    host = harbour.host("qa-1")
    assert (host.host_key, host.offered_key) == ("", mine), "another than was accepted"
    assert "is not the one that was pinned" in host.problem
    fleet.accept_key(user=harbour.admin, host=host, fingerprint=mine)
    visits.visit(host.pk)
    host = harbour.host("qa-1")
    assert (host.problem, fingerprint(host.host_key), host.accepted_key) == ("", mine, "")


NEXT = {
    "_pull": masters.CHECK_IT,
    "_check": masters.CHECK_IT,
    "_switch": "'gantry hosts check qa-2'",  # Caddy is given up sooner than the connection
}


@pytest.mark.timeout(600)
def test_a_host_that_goes_away_in_the_middle_is_told_and_what_was_begun_there_goes(
    harbour: Fleet,
) -> None:
    """No answer, no refusal: packets are lost from one moment to the next."""
    harbour.only("qa-2")
    harbour.deploy("one")
    for number, (step, next_step) in enumerate(NEXT.items()):
        _goes_away(harbour, step, next_step, serving=Release.objects.get(number=number + 1))


def _goes_away(harbour: Fleet, step: str, next_step: str, *, serving: Release) -> None:
    ship, page = harbour.ships["qa-2"], harbour.page("qa-2")
    real = getattr(HostDeployment, step)

    def cut_off(deployment: HostDeployment, *args: Any) -> str:
        ship.unplug()
        return real(deployment, *args)

    release = harbour.release(step)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(HostDeployment, step, cut_off)
        began = time.monotonic()
        failed = harbour.run(release.deployments.get())
        took = time.monotonic() - began
    assert failed.state == "failed", step
    assert took < 3 * masters.ALIVE + 2 * masters.CONNECT + 10, step
    last = failed.steps.last()
    assert last is not None and (last.name, last.state) == (step[1:], "failed")
    assert failed.reason.endswith(f"; {serving.name} still serves qa."), step
    assert next_step.rstrip(".") in failed.reason, step
    ship.plug_in()
    assert harbour.page("qa-2") == page, step
    restoring.restore_routes()
    assert harbour.page("qa-2") == page, step
    assert len(ship.sh("podman ps --all --quiet").split()) == 1, step
    again = services.promote(release=release, environment=harbour.qa, user=harbour.admin)
    assert harbour.run(again).state == "succeeded", step
    assert harbour.page("qa-2") == step


def test_what_a_next_release_sends_is_its_changed_layer_and_a_cancel_ends_what_travels(
    harbour: Fleet, api: Any, alice: Any
) -> None:
    harbour.only("qa-2")
    harbour.deploy("one")
    ship, page = harbour.ships["qa-2"], os.urandom(100_000).hex()
    counter = Path(f"/sys/class/net/{ship.device}/statistics/tx_bytes")
    before = int(counter.read_text())
    second = harbour.deploy(page)
    sent = int(counter.read_text()) - before
    assert second.state == "succeeded"
    assert second.bytes_pulled is not None
    assert 100_000 < second.bytes_pulled < sent < second.bytes_pulled + 20_000 + sent * 0.1, (
        "the layer, what ssh, TCP and Ethernet add to it, and 20 KB"
    )
    slow = harbour.release(os.urandom(4_000_000).hex()).deployments.get()  # a minute and more

    def work(_: object) -> float:
        with harbour.ships["qa-2"].narrow("400kbit"):
            runner.deploy(slow.pk)
            return time.monotonic()

    def cancel(_: object) -> float:
        wait_for(lambda: slow.steps.filter(name="pull").exists(), seconds=60)
        time.sleep(3)
        # Asked there: the layers fill the way from here.
        assert ship.sh(f"curl -sm 5 {harbour.url('qa-2')}") == page
        assert api.post(f"/api/v1/deployments/{slow.pk}/cancel/").status_code == 200
        return time.monotonic()

    ended, asked = together(lambda act: act(None), [work, cancel])
    assert ended - asked < 10
    slow.refresh_from_db()
    assert (slow.state, slow.reason) == ("cancelled", "Cancelled by alice; v2 still serves qa.")
    last = slow.steps.last()
    assert last is not None and (last.name, last.state) == ("pull", "cancelled")
    assert harbour.page("qa-2") == page
    assert harbour.deploy("three").state == "succeeded"


def test_a_check_tells_what_a_deployment_there_depends_on(harbour: Fleet) -> None:
    ship = harbour.ships["qa-2"]
    ship.sh("printf '#!/bin/sh\\necho 1000000000\\n' > /usr/local/sbin/date")
    ship.sh("chmod 755 /usr/local/sbin/date")
    ship.hide("caddy")
    host = harbour.host("qa-2")
    fleet.ask(user=harbour.admin, host=host, verb="check")
    visits.visit(host.pk)
    host = harbour.host("qa-2")
    assert (host.problem, host.asked, host.checked_at is None) == ("", "", False)
    assert host.report["engine"].startswith("podman ")
    assert host.report["registry"] == "through the connection"
    assert host.report["disk_free"] > 0
    said = " ".join(host.report["warnings"])
    assert "behind: let it keep time" in said
    assert "It has no caddy. Prepare the host." in said
    harbour.only("qa-2")
    failed = harbour.deploy("one")
    assert "has no Caddy, which sends traffic to containers" in failed.reason
    assert "gantry hosts prepare qa-2" in failed.reason
    connect = DeploymentStep.objects.filter(deployment=failed).first()
    assert connect is not None
    assert "behind" in connect.detail
    ship.sh("printf '#!/bin/sh\\necho 4000000000\\n' > /usr/local/sbin/date")
    worker = harbour.deploy("worker", ExposedPorts={}, command="/bin/busybox sleep 600")
    assert (worker.state, worker.reason) == ("succeeded", ""), "without a port it needs no Caddy"
    assert "ahead" in worker.steps.get(name="connect").detail


@pytest.fixture
def authority(harbour: Fleet, settings: Any, tmp_path: Path) -> Iterator[Path]:
    """An authority that speaks ACME, on qa-2 itself, where it finds the name; its certificate."""
    folder = Path("/tmp/authority")
    ship = harbour.ships["qa-2"]
    ship.sh(f"rm -rf {folder}; mkdir {folder}; echo '127.0.0.1 localhost {SHOP}' > /etc/hosts")
    ship.sh(f"cat > {folder}/config.json <<'END'\n{json.dumps(test_acme.authority(folder))}\nEND")
    ship.sh(
        f"cd {folder}; export HOME={folder} XDG_DATA_HOME={folder} XDG_CONFIG_HOME={folder};"
        " setsid caddy run --config config.json > log 2>&1 < /dev/null &"
    )
    made = f"{folder}/caddy/pki/authorities/local/root.crt"
    wait_for(lambda: ship.sh(f"cat {made} 2>/dev/null; true").startswith("-----BEGIN"), 60)
    root = tmp_path / "root.crt"
    root.write_text(ship.sh(f"cat {made}"))
    settings.GANTRY = replace(
        settings.GANTRY,
        http_port=80,
        https_port=443,
        acme_url="https://localhost:9443/acme/local/directory",
        acme_root=root,
    )
    yield root
    ship.sh("echo '127.0.0.1 localhost' > /etc/hosts")


def test_a_deployment_serves_its_domain_with_a_certificate_that_its_host_gets_by_itself(
    harbour: Fleet, authority: Path
) -> None:
    harbour.only("qa-2")
    ship = harbour.ships["qa-2"]
    environments.change(environment=harbour.qa, user=harbour.admin, domains=[SHOP], https="acme")
    deployed = harbour.deploy("one")
    assert (deployed.state, deployed.reason) == ("succeeded", "")
    assert deployed.steps.get(name="switch").detail == f"*:{harbour.qa.port}, {SHOP}"
    ship.sh(f"cat > /tmp/root.crt <<'END'\n{authority.read_text()}END")
    ask = f"curl -sS --max-time 5 --cacert /tmp/root.crt https://{SHOP}/ 2>&1; true"
    wait_for(lambda: ship.sh(ask) == "one", 60)
    shown = f"openssl s_client -connect 127.0.0.1:443 -servername {SHOP} </dev/null 2>/dev/null"
    said = ship.sh(f"{shown} | openssl x509 -noout -issuer -ext subjectAltName")
    assert "The company's own" in said and f"DNS:{SHOP}" in said
    assert (drift.look(), Running.objects.get().drift) == (0, "")
    assert harbour.deploy("two").reason == ""
    assert ship.sh(ask) == "two", "names are no matter of what is deployed"


def test_what_a_host_ran_before_it_was_removed_is_nobodys_and_goes_when_it_is_prepared(
    harbour: Fleet,
) -> None:
    harbour.only("qa-2")
    harbour.deploy("one")
    ship, old, url = harbour.ships["qa-2"], harbour.qa, harbour.url("qa-2")
    old.running.all().delete()
    old.hosts.clear()
    fleet.remove(user=harbour.admin, host=harbour.host("qa-2"))  # while it was away
    Environment.objects.filter(pk=old.pk).delete()
    harbour.qa = services.create_environment(project=harbour.project, name="qa")
    again = fleet.add(user=harbour.admin, name="qa-2", address=f"root@{ship.ip}")
    ship.allow(again.public_key)
    harbour.only("qa-2")
    with opened(harbour.host("qa-2")) as target:
        assert target.containers(naming.labels_of(harbour.qa)) == [], "another of its name"
    visits.check(harbour.host("qa-2"))
    [warning] = harbour.host("qa-2").report["warnings"]
    assert warning.startswith(f"No environment here knows of gantry-{naming.installation()}-hello-")
    assert warning.endswith(" To take that away: gantry hosts prepare qa-2.")
    restoring.restore_routes()
    assert httpx.get(url, trust_env=False, verify=False).text == "one", (
        "nobody has said that it should go"
    )
    host = harbour.host("qa-2")
    host.asked = visits.PREPARING
    visits.check(host)
    assert harbour.host("qa-2").report["warnings"] == []
    assert ship.sh("podman ps --all -q") == ""
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False, verify=False)
    audited = AuditEntry.objects.get(action="host.clear")
    assert (audited.target, len(audited.detail["containers"])) == ("qa-2", 1)


def test_a_wrong_clock_is_told_with_what_to_do_while_caddy_serves_on(harbour: Fleet) -> None:
    """As ``date`` tells it, which is what is asked; the engine and Caddy go by the kernel's."""
    harbour.only("qa-2")
    harbour.deploy("one")
    ship = harbour.ships["qa-2"]
    ship.sh("printf '#!/bin/sh\\necho 1000000000\\n' > /usr/local/sbin/date")
    ship.sh("chmod 755 /usr/local/sbin/date")
    with Probe(harbour.url("qa-2")) as probe:
        failed = harbour.deploy("bad", command="exit 3")
        assert failed.state == "failed"
        assert "exit code 3" in failed.reason
        assert failed.reason.endswith(
            "behind: let it keep time (systemd-timesyncd); v1 still serves qa."
        )
        deployed = harbour.deploy("two")
    assert (deployed.state, deployed.reason) == ("succeeded", "")
    told = deployed.steps.get(name="connect").detail
    assert told.endswith("behind: let it keep time (systemd-timesyncd)")
    assert probe.failures == []
    assert harbour.page("qa-2") == "two"
    assert (drift.look(), Running.objects.get().drift) == (0, "")
    assert len(ship.sh("podman ps --all --quiet").split()) == 1


def test_a_host_without_root_serves_a_release(harbour: Fleet) -> None:
    ship = harbour.ships["qa-1"]
    host = harbour.host("qa-1")
    Host.objects.filter(pk=host.pk).update(address=f"deploy@{ship.ip}")
    harbour.seen_first("qa-1")
    ship.allow(host.public_key, "deploy")
    harbour.only("qa-1")
    try:
        deployed = harbour.deploy("one")
        assert (deployed.state, deployed.reason) == ("succeeded", "")
        with Probe(harbour.url("qa-1")) as probe:
            assert harbour.deploy("two").reason == ""
            failed = harbour.deploy("bad", command="exit 3")
            assert failed.reason.endswith("v2 still serves qa.")
            back = services.roll_back(
                environment=harbour.qa, release=deployed.release, user=harbour.admin
            )
            assert harbour.run(back).reason == ""
            time.sleep(0.2)
        assert probe.failures == []
        assert probe.answers[0] == probe.answers[-1] == "200 one"
        assert "200 two" in probe.answers
        left = ship.run("podman", "ps", "--all", "--quiet", user="deploy").split()
        assert len(left) == 1
        with opened(harbour.host("qa-1")) as target:
            assert visits.look(target)["rootless"]
    finally:
        ship.run("podman", "rm", "-faf", "-t", "0", user="deploy", check=False)
        ship.sh("pkill -u deploy; true")
