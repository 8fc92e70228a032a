"""Deployments with a real engine, a real registry and a real proxy, probed all the while."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.db import connection
from django.utils import timezone

from ciserver.accounts import registry_tokens
from ciserver.lib.crypto import Secret
from ciserver.lib.models import OutboxEntry
from ciserver.releases import (
    archiving,
    domains,
    drift,
    environments,
    health,
    host_images,
    naming,
    queue,
    restoring,
    retention,
    runner,
    services,
    tasks,
    watch,
)
from ciserver.releases.leases import Lease
from ciserver.releases.models import (
    Deployment,
    DeploymentState,
    Environment,
    Host,
    Release,
    Running,
)
from ciserver.releases.one_host import HostDeployment
from ciserver.releases.secrets import set_secret
from ciserver.releases.targets import commands, images
from ciserver.releases.targets.errors import CommandFailed
from ciserver.releases.targets.images import Location
from ciserver.releases.targets.local import LocalTarget
from ciserver.releases.targets.proxy import Proxy
from ciserver.releases.targets.spec import Check, ImageFacts
from tests.ciserver.releases.conftest import free_port, wait_for
from tests.ciserver.releases.deploying import Doomed
from tests.ciserver.releases.test_domains import Browser
from tests.ciserver.releases.test_proxy import answering
from tests.home import HOME
from tests.together import together

pytestmark = [pytest.mark.root, pytest.mark.django_db(transaction=True)]
STEPS = ["pull", "start", "check", "switch", "retire"]


class Probe:
    """20 requests a second, from outside, with a connection each as strangers would."""

    def __init__(self, url: str) -> None:
        self.answers: list[str] = []
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Probe:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def failures(self) -> list[str]:
        return [answer for answer in self.answers if not answer.startswith("200 ")]

    def _ask(self) -> None:
        each_alone = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(limits=each_alone, timeout=2, trust_env=False, verify=False) as client:
            while not self._stop.wait(0.05):
                try:
                    answer = client.get(self._url)
                    self.answers.append(f"{answer.status_code} {answer.text}")
                except httpx.HTTPError as error:
                    self.answers.append(repr(error))


class Shop:
    """The project with qa on this machine, and a way to make and deploy its releases."""

    def __init__(self, project: Any, passed: Any, registry: Any) -> None:
        self.project, self._passed, self.registry = project, passed, registry
        project.environments.update(stable_seconds=0)
        self.qa: Environment = project.environments.get(name="qa")
        self.url = f"http://127.0.0.1:{self.qa.port}/"
        self.qa.hosts.add(Host.objects.get_or_create(name="local")[0])

    def release(self, page: str, **image: Any) -> Release:
        digest = self.registry.push("hello", page=page, **image)
        return self.of_image(digest, f"{self.registry.address}/hello")

    def of_image(self, digest: str, repository: str) -> Release:
        return services.make_release(self._passed(digest, repository=repository))

    def deploy(self, page: str, **image: Any) -> Deployment:
        return self.run(self.release(page, **image).deployments.get())

    def run(self, deployment: Deployment) -> Deployment:
        runner.deploy(deployment.pk)
        return Deployment.objects.get(pk=deployment.pk)

    def page(self) -> str:
        return httpx.get(self.url, timeout=5, verify=False).text

    def containers(self) -> list[Any]:
        return target().containers({"installation": naming.installation()})


def target() -> LocalTarget:
    return LocalTarget.here(HOME / "run")


@pytest.fixture
def quick_gate(monkeypatch: Any) -> None:
    monkeypatch.setattr(health, "BETWEEN_TRIES", 0.1)


@pytest.fixture
def no_lock_meanwhile(monkeypatch: Any) -> None:
    """Nobody else could write while an engine or a proxy is spoken to in a transaction."""

    def outside_transactions(real: Any) -> Any:
        def spoken_to(*args: Any, **options: Any) -> Any:
            assert not connection.in_atomic_block
            return real(*args, **options)

        return spoken_to

    for place, name in ((commands, "attempt"), (Proxy, "_request"), (Proxy, "_look")):
        monkeypatch.setattr(place, name, outside_transactions(getattr(place, name)))


@pytest.fixture
def shop(
    hello: Any,
    passed: Any,
    registry: Any,
    caddy_socket: Path,
    quick_gate: None,
    no_lock_meanwhile: None,
) -> Iterator[Shop]:
    with _opened(hello, passed, registry) as shop:
        yield shop


@contextmanager
def _opened(hello: Any, passed: Any, registry: Any) -> Iterator[Shop]:
    opened = Shop(hello, passed, registry)
    try:
        yield opened
    finally:
        _clear(opened)


def _clear(opened: Shop) -> None:
    here = target()
    for container in opened.containers():
        here.remove(container, grace=0)
    here.proxy.forget(naming.server_name(opened.qa))
    facts = Release.objects.exclude(image={}).values_list("image", flat=True)
    opened.registry.brought.update(one["config_digest"].removeprefix("sha256:") for one in facts)


def test_a_release_is_deployed_and_what_runs_is_what_was_recorded(shop: Shop) -> None:
    deployment = shop.deploy("one")
    assert (deployment.state, deployment.reason) == ("succeeded", "")
    assert [(s.name, s.state) for s in deployment.steps.all()] == [
        (name, "succeeded") for name in STEPS
    ]
    assert shop.page() == "one"
    running = Running.objects.get()
    assert (running.digest, running.release) == (deployment.release.digest, deployment.release)
    (container,) = shop.containers()
    assert container.id == running.container_id
    inspected = json.loads(commands.run(target().engine.inspect([container.id]), timeout=30).out)[0]
    assert inspected["ImageDigest"] == deployment.release.digest
    assert inspected["HostConfig"]["Memory"] == 512 << 20
    assert inspected["HostConfig"]["PidsLimit"] == 512
    status = Path(f"/proc/{container.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    environ = Path(f"/proc/{container.pid}/environ").read_bytes().split(b"\0")
    assert b"GANTRY_COMMIT=" + deployment.release.commit.encode() in environ
    assert {b"GANTRY_RELEASE=v1", b"GANTRY_ENVIRONMENT=qa", b"PORT=8080"} <= set(environ)


def test_secrets_of_the_environment_are_in_its_containers_and_in_no_record(
    shop: Shop, alice: Any
) -> None:
    value = "hunter2-hunter2"
    key = f"-----BEGIN KEY-----\n{value}\n"
    set_secret(environment=shop.qa, user=alice, name="TOKEN", value=Secret(value))
    set_secret(environment=shop.qa, user=alice, name="KEY", value=Secret(key))
    deployment = shop.deploy("one")
    assert deployment.state == "succeeded", deployment.reason
    (container,) = shop.containers()
    root = Path(f"/proc/{container.pid}/root/run/secrets")
    assert {one.name: one.read_text() for one in root.iterdir()} == {"TOKEN": value, "KEY": key}
    inspected = commands.run([target().engine.program, "inspect", container.id], timeout=30).out
    assert f"TOKEN={value}" in inspected and "BEGIN KEY" not in inspected
    told = f"{container.name} {container.labels} {deployment.configuration}"
    assert "hunter2" not in told + str(list(deployment.steps.values()))
    kept = [*Path("/var/tmp").glob("*"), *Path("/dev/shm").glob("gantry-copy-*/*")]
    assert not [one for one in kept if one.is_file() and value.encode() in one.read_bytes()]


def test_a_second_release_loses_no_request_and_moves_only_what_changed(shop: Shop) -> None:
    first = shop.deploy("one")
    with Probe(shop.url) as probe:
        second = shop.deploy("two")
        time.sleep(0.3)
    assert second.state == "succeeded"
    assert probe.failures == []
    assert probe.answers[0] == "200 one"
    assert probe.answers[-1] == "200 two"
    assert len(shop.containers()) == 1
    assert first.bytes_pulled is not None
    assert second.bytes_pulled is not None
    assert first.bytes_pulled > 500_000, "busybox's layer travelled"
    assert 0 < second.bytes_pulled < 2_000, "and did not travel again"
    _only_ways_back_stay_on_the_host(shop, first, second)


def _only_ways_back_stay_on_the_host(shop: Shop, first: Deployment, second: Deployment) -> None:
    old, new = (Release.objects.get(pk=one.release_id).image for one in (first, second))
    assert OutboxEntry.objects.filter(topic=queue.DEPLOYED, object_id=shop.qa.pk).exists()
    tasks.prune_images(shop.qa.pk)
    both = {old["config_digest"], new["config_digest"]}
    assert target().images(both) == both, "there is a way back to it"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(retention, "WAYS_BACK", 0)
        queued = services.roll_back(
            environment=shop.qa, release=first.release, user=shop.project.members.first()
        )
        assert host_images.prune(shop.qa.pk) == 0, "while something is on its way nothing goes"
        Deployment.objects.filter(pk=queued.pk).update(state="cancelled")
        assert host_images.prune(shop.qa.pk) == 1
    assert target().images(both) == {new["config_digest"]}


def test_an_environment_that_is_removed_serves_no_more_and_leaves_nothing(
    shop: Shop, alice: Any
) -> None:
    shop.deploy("one")
    assert shop.page() == "one"
    archiving.remove(environment=shop.qa, user=alice, confirm="hello@qa")
    assert shop.page() == "one", "until a worker comes"
    tasks.remove_environment(shop.qa.pk)
    assert shop.containers() == []
    with pytest.raises(httpx.HTTPError):
        shop.page()
    assert not Environment.objects.filter(name="qa").exists()
    assert Release.objects.count() == 1


FLAPS = "cd /www; if [ -e odd ]; then /bin/busybox rm odd; exit 1; fi; echo > odd"
SICK: dict[str, tuple[dict[str, Any], str]] = {
    "dies": ({"command": "echo boom; exit 3"}, "it ended with exit code 3. Its last words: boom"),
    "never answers": (
        {"command": "sleep 60"},
        "not healthy within 2 s: nothing answers on its port",
    ),
    "says it is sick": (
        {"Healthcheck": {"Test": ["CMD-SHELL", "echo sick; exit 1"]}},
        "not healthy within 2 s: the HEALTHCHECK ended with exit code 1: sick",
    ),
    "flaps": (
        {"Healthcheck": {"Test": ["CMD-SHELL", FLAPS]}},
        "the HEALTHCHECK did not pass 2 times in a row",
    ),
    "passes, then dies": (
        {"command": "/bin/busybox httpd -p 8080 -h /www; sleep 5; exit 4"},
        "it ended with exit code 4",
    ),
}


@pytest.mark.timeout(300)  # several deployments, on a machine that may be busy
def test_a_release_that_is_not_healthy_leaves_the_old_one_serving(shop: Shop) -> None:
    shop.deploy("one")
    with Probe(shop.url) as probe:
        for case, (image, reason) in SICK.items():
            quick = {"health_timeout": 2, "stable_seconds": 0}
            usual = {name: Environment._meta.get_field(name).get_default() for name in quick}
            wanted = usual if case == "passes, then dies" else quick
            Environment.objects.filter(pk=shop.qa.pk).update(**wanted)
            began = time.monotonic()
            failed = shop.deploy(case, **image)
            took = time.monotonic() - began
            assert failed.state == "failed", case
            assert took < wanted["health_timeout"] + wanted["stable_seconds"] + 10, case
            assert reason in failed.reason, case
            assert failed.reason.endswith(f". {runner.MEND_IT}; v1 still serves qa."), case
    assert set(probe.answers) == {"200 one"}
    (container,) = shop.containers()
    assert container.id == Running.objects.get().container_id


def test_one_that_is_cancelled_is_withdrawn_within_seconds(
    shop: Shop, api: Any, alice: Any
) -> None:
    shop.deploy("one")
    # Its check is one long try, not many short ones.
    Environment.objects.filter(pk=shop.qa.pk).update(health_timeout=120)
    slow = {"Test": ["CMD-SHELL", "sleep 100"], "Timeout": 100 * 10**9}
    bad = shop.release("two", Healthcheck=slow).deployments.get()

    def work(_: object) -> float:
        runner.deploy(bad.pk)
        return time.monotonic()

    def cancel(_: object) -> float:
        wait_for(lambda: bad.steps.filter(name="check").exists(), seconds=60)
        time.sleep(0.5)
        back = services.roll_back(
            environment=shop.qa, release=Release.objects.get(number=1), user=alice
        )
        assert "gantry cancel hello@qa" in back.reason
        asked = api.post(
            f"/api/v1/deployments/{bad.pk}/cancel/", {"reason": "hangs"}, format="json"
        )
        assert asked.status_code == 200
        return time.monotonic()

    with Probe(shop.url) as probe:
        ended, asked = together(lambda act: act(None), [work, cancel])
    assert ended - asked < 10
    bad.refresh_from_db()
    assert (bad.state, bad.reason) == (
        "cancelled",
        "Cancelled by alice: hangs; v1 still serves qa.",
    )
    assert [(s.name, s.state) for s in bad.steps.all()][-1] == ("check", "cancelled")
    assert set(probe.answers) == {"200 one"}
    (left,) = shop.containers()
    assert left.id == Running.objects.get().container_id
    back = Deployment.objects.get(kind="rollback")
    assert OutboxEntry.objects.filter(topic=queue.TOPIC, object_id=back.pk).exists()
    assert shop.run(back).state == "succeeded"


def test_one_that_is_cancelled_ends_a_pull_that_goes_on(shop: Shop, api: Any, alice: Any) -> None:
    shop.deploy("one")
    digest = shop.registry.push("hello", page="two")
    location = Location(shop.registry.address, "hello")
    before = of_pulls()
    with silent() as (address, asked):  # in place of the registry: a layer that never comes
        bad = shop.of_image(digest, f"{address}/hello").deployments.get()
        bad.release.image = images.read_facts(location, digest, token=None).as_json()
        bad.release.save(update_fields=["image"])

        def work(_: object) -> float:
            runner.deploy(bad.pk)
            return time.monotonic()

        def cancel(_: object) -> float:
            assert asked.wait(60), "it never pulled"
            assert api.post(f"/api/v1/deployments/{bad.pk}/cancel/").status_code == 200
            return time.monotonic()

        with Probe(shop.url) as probe:
            ended, told = together(lambda act: act(None), [work, cancel])
    assert ended - told < 10
    bad.refresh_from_db()
    assert (bad.state, bad.reason) == ("cancelled", "Cancelled by alice; v1 still serves qa.")
    assert [(s.name, s.state) for s in bad.steps.all()] == [("pull", "cancelled")]
    assert set(probe.answers) == {"200 one"}
    assert len(shop.containers()) == 1
    left = of_pulls() - before
    assert not {one for one in left if one.name.startswith("gantry-pull-")}, "no password is left"
    # Nor half a layer: those of other engines' pulls, in other tests, go.
    wait_for(lambda: not any(map(Path.exists, left)), seconds=30)


def of_pulls() -> set[Path]:
    """What pulls have for a while."""
    places = {Path("/dev/shm"): "gantry-pull-*", Path("/var/tmp"): "*"}
    return {
        one for place, name in places.items() for one in place.glob(name)
        if one.name.startswith(("gantry-pull-", "storage"))
    }  # fmt: skip


@contextmanager
def silent() -> Iterator[tuple[str, threading.Event]]:
    """An address that takes connections and says nothing, and whether one came."""
    came = threading.Event()
    taken = []

    def take() -> None:
        with suppress(OSError):
            while True:
                taken.append(listener.accept())
                came.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=take, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", came
        listener.shutdown(socket.SHUT_RDWR)
    for one, _ in taken:
        one.close()


def test_a_container_of_another_image_gets_no_traffic_whatever_its_name(shop: Shop) -> None:
    first = shop.deploy("one")
    second = shop.release("two").deployments.get()
    location = Location.parse(second.release.repository)
    with Lease(second) as lease:
        wanted = HostDeployment(
            deployment=second,
            location=location,
            image=images.read_facts(location, second.release.digest, token=None),
            host=shop.qa.hosts.get(),
            target=target(),
            lease=lease,
        ).wanted
    evil = wanted.reference.replace(second.release.digest, first.release.digest)
    other = target().start(replace(wanted, reference=evil))
    with Probe(shop.url) as probe:
        refused = shop.run(second)
    assert refused.state == "failed"
    tested = second.release.digest[:19]
    assert f"which is not {tested}, the one that was tested. Look at who changed it there" in (
        refused.reason
    )
    assert refused.reason.endswith("; v1 still serves qa.")
    assert [(s.name, s.state) for s in refused.steps.all()][-1] == ("check", "failed")
    assert set(probe.answers) == {"200 one"}
    (left,) = shop.containers()
    assert left.id == Running.objects.get().container_id != other.id, "it was removed"


def test_the_healthcheck_of_the_image_decides(shop: Shop) -> None:
    check = {"Test": ["CMD", "/bin/busybox", "test", "-f", "/www/index.html"]}
    deployment = shop.deploy("one", Healthcheck=check, ExposedPorts={})
    assert deployment.state == "succeeded"
    details = dict(deployment.steps.values_list("name", "detail"))
    assert details["check"].startswith("the HEALTHCHECK passed 2 times")
    assert details["switch"] == "it has no port"


IS_THERE, IS_NOT = (f"/bin/busybox test -f /www/{name}" for name in ("index.html", "nothing"))
# What lets a good image through.
PASSES: dict[str, dict[str, Any]] = {
    "http /": {},
    "tcp": {},
    f"exec {IS_THERE}": {},
    "": {"Healthcheck": {"Test": ["CMD-SHELL", IS_THERE]}},
}
# What does not; of those that SICK has not.
FAILS: dict[str, dict[str, Any]] = {"tcp": {"command": "sleep 60"}, f"exec {IS_NOT}": {}}


@pytest.mark.timeout(300)  # seven deployments, on a machine that may be busy
def test_no_request_is_lost_whatever_kind_of_check_lets_a_release_through_or_not(
    shop: Shop,
) -> None:
    shop.deploy("first")
    with Probe(shop.url) as probe:
        place = Environment.objects.filter(pk=shop.qa.pk)
        for passes, good in PASSES.items():
            place.update(health=passes, health_timeout=60)
            assert shop.deploy(f"good by {passes}", **good).state == "succeeded", passes
            assert shop.page() == f"good by {passes}"
        for fails, bad in FAILS.items():
            place.update(health=fails, health_timeout=1)
            failed = shop.deploy("bad", **bad)
            assert failed.state == "failed", fails
            assert "not healthy within 1 s: " in failed.reason
            assert shop.page() == f"good by {passes}"
    assert probe.failures == []
    assert "200 bad" not in probe.answers
    assert len(probe.answers) > 20


def test_going_back_to_an_earlier_release_moves_no_bytes_and_needs_no_registry(
    shop: Shop, alice: Any, monkeypatch: Any
) -> None:
    first = shop.deploy("one")
    shop.deploy("two")

    def away(*_: Any, **__: Any) -> Any:
        raise AssertionError("the registry was asked")

    monkeypatch.setattr(images, "read_facts", away)
    with Probe(shop.url) as probe:
        queued = services.roll_back(environment=shop.qa, release=first.release, user=alice)
        back = shop.run(queued)
        time.sleep(0.2)
    assert (back.state, back.kind, back.bytes_pulled) == ("succeeded", "rollback", 0)
    assert probe.failures == []
    assert shop.page() == "one"


@pytest.mark.timeout(300)  # several deployments, on a machine that may be busy
def test_workers_killed_in_every_step_leave_nothing_half_done(shop: Shop, doomed: Doomed) -> None:
    shop.deploy("one")
    deployment = shop.release("two").deployments.get()
    with Probe(shop.url) as probe:
        for step in STEPS:
            Deployment.objects.filter(pk=deployment.pk).update(attempt=0)
            assert doomed.deploy(deployment.pk, step) == -9, step
            restoring.restore_routes()  # while the lease is alive it keeps its hands off
            Deployment.objects.filter(pk=deployment.pk).update(lease_until=timezone.now())
            assert runner.recover_deployments() == [deployment.pk]
            shown = Running.objects.get().release.title
            assert probe.answers[-1] == ("200 two" if shown == "Change 2" else "200 one"), step
        again = shop.run(deployment)
        time.sleep(0.2)
    assert (again.state, again.attempt) == ("succeeded", 2)
    assert probe.failures == []
    assert probe.answers[-1] == "200 two"
    (container,) = shop.containers()
    running = Running.objects.get()
    assert (container.id, running.release) == (running.container_id, deployment.release)
    assert list(deployment.steps.filter(state="failed").values_list("name", flat=True)) == STEPS


def test_what_three_dead_workers_left_is_tidied_away_and_traffic_and_record_agree_again(
    shop: Shop, doomed: Doomed
) -> None:
    shop.deploy("one")
    for step, served in (("check", "one"), ("record", "two")):
        deployment = shop.release("two").deployments.get()
        assert doomed.deploy(deployment.pk, step) == -9
        assert len(shop.containers()) == 2
        assert (shop.page(), Running.objects.get().release.name) == (served, "v1")
        Deployment.objects.filter(pk=deployment.pk).update(lease_until=timezone.now(), attempt=3)
        runner.recover_deployments()
        restoring.restore_routes()
        assert (shop.page(), Running.objects.get().release.name) == ("one", "v1")
        assert len(shop.containers()) == 1


@pytest.mark.timeout(300)  # a whole lease passes
def test_within_a_minute_of_a_kill_pages_show_what_serves(
    shop: Shop, doomed: Doomed, alice: Any, client: Any
) -> None:
    """With the lease as it is and rounds as the scheduler makes them, nothing is hurried on."""
    shop.deploy("one")
    deployment = shop.release("two").deployments.get()
    client.force_login(alice)
    url = f"/api/v1/environments/{shop.qa.pk}/"
    with Probe(shop.url) as probe:
        assert doomed.deploy(deployment.pk, "record") == -9
        killed = time.monotonic()
        shown = client.get(url).json()["running"][0]["release"]
        assert (shown, shop.page()) == ("v1", "two"), "it died between the two"
        while Deployment.objects.get(pk=deployment.pk).state != DeploymentState.SUCCEEDED:
            time.sleep(2)
            runner.recover_deployments()
            for promised in OutboxEntry.objects.filter(topic=queue.TOPIC):
                runner.deploy(promised.object_id)
        took = time.monotonic() - killed
    shown = client.get(url).json()["running"][0]["release"]
    assert (shown, shop.page()) == ("v2", "two")
    assert took < 60
    assert probe.failures == []


def test_what_somebody_changed_on_the_host_is_found_told_and_comes_back(shop: Shop) -> None:
    shop.deploy("one")
    assert drift.look() == 0
    assert (Running.objects.get().drift, Running.objects.get().seen_at is None) == ("", False)
    here = target()
    (container,) = shop.containers()
    here.proxy.forget(naming.server_name(shop.qa))
    assert drift.look() == 1
    assert f"its traffic goes to nowhere, not to {container.address}" == Running.objects.get().drift
    commands.run(here.engine.stop(container.id, 0), timeout=30)  # as after a restart
    restoring.restore_routes()
    assert shop.page() == "one"
    assert Running.objects.get().healthy
    assert (drift.look(), Running.objects.get().drift) == (1, "")
    here.remove(container, grace=0)
    drift.look()
    assert Running.objects.get().drift == "its container is gone"
    again = services.promote(
        release=shop.project.releases.get(), environment=shop.qa, user=shop.project.members.first()
    )
    assert shop.run(again).state == "succeeded"
    assert (drift.look(), Running.objects.get().drift) == (1, "")
    assert shop.page() == "one"


def test_an_environment_answers_to_its_domains_from_the_moment_that_they_are_its_own(
    shop: Shop, alice: Any, settings: Any
) -> None:
    ports = {"http_port": free_port(), "https_port": free_port()}
    settings.GANTRY = replace(settings.GANTRY, **ports)
    environments.change(environment=shop.qa, user=alice, domains=["a.example"], https="internal")
    deployed = shop.deploy("one")
    assert deployed.steps.get(name="switch").detail.endswith(f":{shop.qa.port}, a.example")
    browser = Browser(HOME / "run" / "caddy.sock", domains.edge())
    assert browser.until("a.example").text == "one"
    environments.change(environment=shop.qa, user=alice, domains=["b.example", "c.example"])
    drift.look()
    assert Running.objects.get().drift.startswith("it is not served as b.example, c.example")
    tasks.restore_environment(shop.qa.pk)
    assert browser.until("b.example").text == "one"
    drift.look()
    assert Running.objects.get().drift == ""
    port = services.create_environment(project=shop.project, name="more").port
    shop.project.environments.get(name="more").delete()
    moved = environments.change(environment=shop.qa, user=alice, port=port)
    drift.look()
    assert f"not on {port}: see that this one is free" in Running.objects.get().drift
    tasks.restore_environment(shop.qa.pk)
    with pytest.raises(httpx.ConnectError):
        shop.page()
    shop.qa, shop.url = moved, f"http://127.0.0.1:{port}/"
    drift.look()
    assert (shop.page(), browser.get("b.example").text) == ("one", "one")
    assert Running.objects.get().drift == ""
    environments.change(environment=shop.qa, user=alice, domains=["d.example"])
    with answering("somebody else") as other:
        taken = int(other.rpartition(":")[2])
        settings.GANTRY = replace(settings.GANTRY, https_port=taken)
        second = shop.deploy("two")
    assert second.state == "succeeded", "it serves, if not under a name"
    assert "; not under d.example: The proxy refused" in second.steps.get(name="switch").detail
    assert shop.page() == "two"


def test_a_container_that_crashes_later_is_started_again(shop: Shop) -> None:
    shop.deploy("one")
    for _ in range(2):
        (container,) = shop.containers()
        died = watch.deaths(target().engine)
        assert next(died) == ""
        time.sleep(0.5)  # podman does not say when it listens
        os.kill(container.pid, 9)
        assert container.id[:12] in next(died)
        died.close()
        restoring.restore_routes()
        assert shop.page() == "one"
        assert Running.objects.get().healthy


def test_a_registry_or_a_proxy_that_is_away_fails_the_deployment_and_the_old_one_stays(
    shop: Shop, settings: Any
) -> None:
    shop.deploy("one")
    pipeline = shop._passed(repository="127.0.0.1:1/hello")
    failed = shop.run(services.make_release(pipeline).deployments.get())
    assert failed.state == "failed"
    assert "127.0.0.1:1 does not answer" in failed.reason
    assert failed.reason.endswith("v1 still serves qa.")
    deployment = shop.release("two").deployments.get()
    elsewhere = HOME / "elsewhere"
    keys = settings.GANTRY.keys
    (elsewhere / "run").mkdir(parents=True, exist_ok=True)
    if not (elsewhere / "keys").exists():
        (elsewhere / "keys").symlink_to(keys)
    settings.GANTRY = replace(settings.GANTRY, home=elsewhere)
    failed = shop.run(deployment)
    assert failed.state == DeploymentState.FAILED
    assert "The proxy at" in failed.reason
    assert shop.page() == "one"
    assert [(s.name, s.state) for s in failed.steps.all()][-1] == ("switch", "failed")


def test_a_host_gets_a_password_for_one_repository_and_a_short_time(
    hello: Any, passed: Any, guarded_registry: Any, caddy_socket: Path, quick_gate: None
) -> None:
    with _opened(hello, passed, guarded_registry) as shop:
        deployment = shop.deploy("one")
        assert (deployment.state, deployment.reason) == ("succeeded", "")
        digest = guarded_registry.push("other/secret", page="not yours")
    image = ImageFacts(digest=digest, config_digest="", layers=(), port=None, check=Check())
    other = Location(guarded_registry.address, "other/secret")
    password = registry_tokens.pull_password("hello")
    for credentials in (None, (registry_tokens.PULL_USER, password)):
        with pytest.raises(CommandFailed, match=r"unauthorized|denied"):
            target().pull(image, other, lambda given=credentials: given)
