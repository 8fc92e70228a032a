"""What is deployed is listed, read, entered, stopped and started, on a real engine."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from ciserver.accounts.models import AuditEntry
from ciserver.lib.crypto import Secret
from ciserver.lib.problems import Refused
from ciserver.releases import drift, leases, restoring, services
from ciserver.releases.daytwo import asking, attending, verbs, wire
from ciserver.releases.daytwo.asking import Options
from ciserver.releases.models import (
    CommandState,
    ContainerCommand,
    Deployment,
    DeploymentState,
    Running,
)
from ciserver.releases.secrets import set_secret
from ciserver.releases.targets import commands
from ciserver.releases.targets.spec import Container
from tests.ciserver.releases.test_deploy import Shop, _opened, target
from tests.home import HOME
from tests.webserver import redis, wait_until

pytestmark = [pytest.mark.root, pytest.mark.django_db(transaction=True)]
TALKS = (
    "echo ready; echo it is $WORD >&2; trap 'exit 0' TERM;"
    " /bin/busybox httpd -f -p 8080 -h /www & wait"
)


@pytest.fixture(scope="module")
def messages() -> Iterator[None]:
    """The Redis that the settings name; its connections are made anew."""
    wire._client.cache_clear()
    with redis(HOME):
        yield
    wire._client.cache_clear()


@pytest.fixture
def shop(
    hello: Any,
    passed: Any,
    registry: Any,
    caddy_socket: Path,
    messages: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Shop]:
    monkeypatch.setattr("ciserver.releases.health.BETWEEN_TRIES", 0.1)
    with _opened(hello, passed, registry) as shop:
        yield shop


@dataclass
class Heard:
    """What a reader got of one command."""

    out: bytes = b""
    err: bytes = b""
    end: dict[str, Any] = field(default_factory=dict)


class Desk:
    """Asks as alice, and has each command done in a thread, as the watcher does."""

    def __init__(self, shop: Shop, user: Any) -> None:
        self.shop, self.user = shop, user

    def ask(self, verb: str, *words: str, **options: Any) -> ContainerCommand:
        return asking.ask(
            environment=self.shop.qa,
            user=self.user,
            verb=verb,
            words=list(words),
            options=Options(**options),
        )

    def begin(self, row: ContainerCommand) -> threading.Thread:
        assert attending.claim() == [row.pk]
        thread = threading.Thread(target=attending._apart, args=(attending.carry_out, row.pk))
        thread.start()
        return thread

    def do(self, verb: str, *words: str, given: bytes | None = None, **options: Any) -> Heard:
        row = self.ask(verb, *words, stdin=given is not None, **options)
        if given is not None:
            wire.give(row.pk, given, end=True)
        thread = self.begin(row)
        heard = asyncio.run(listen(row.pk))
        thread.join(20)
        row.refresh_from_db()
        assert row.state == (CommandState.FAILED if heard.end["reason"] else CommandState.ENDED)
        return heard


async def listen(number: int, until: bytes = b"") -> Heard:
    """Read to the end, or to where ``until`` was said, and leave."""
    heard = Heard()
    async for kind, data in wire.frames(number, lambda: False):
        if kind == b"o":
            heard.out += data
        elif kind == b"e":
            heard.err += data
        elif kind == b"x":
            heard.end = json.loads(data)
        if until and until in heard.out:
            break
    return heard


@pytest.fixture
def desk(shop: Shop, alice: Any) -> Desk:
    shop.deploy("one")
    return Desk(shop, alice)


def test_it_is_listed_and_takes_programs_and_files(desk: Desk) -> None:
    [row] = json.loads(desk.do("ps").out)
    [there] = desk.shop.containers()
    assert (row["host"], row["id"], row["release"]) == ("local", there.id, "v1")
    assert (row["state"], row["serves"], row["restarts"]) == ("running", True, 0)
    assert row["cpu"].endswith("%") and "/" in row["memory"]
    assert not AuditEntry.objects.filter(action="container.ps").exists()

    given = bytes(range(256)) * 1000
    heard = desk.do("exec", "/bin/sh", "-c", "/bin/busybox cat; echo no >&2; exit 3", given=given)
    assert (heard.out == given, heard.err, heard.end) == (
        True, b"no\n", {"exit_code": 3, "reason": ""},
    )  # fmt: skip
    entry = AuditEntry.objects.get(action="container.exec")
    assert (entry.actor, entry.target) == ("alice", "hello@qa on local")
    assert "busybox cat" in entry.detail["words"]
    none = desk.do("exec", "/bin/none")
    assert none.end["exit_code"] in {126, 127} and b"none" in none.err

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        member = tarfile.TarInfo("note.txt")
        member.size = 5
        tar.addfile(member, io.BytesIO(b"hello"))
    assert desk.do("put", "/www", given=packed.getvalue()).end == {"exit_code": 0, "reason": ""}
    heard = desk.do("get", "/www/note.txt")
    with tarfile.open(fileobj=io.BytesIO(heard.out)) as tar:
        file = tar.extractfile("note.txt")
        assert file and file.read() == b"hello"
    lost = desk.do("get", "/no/such")
    assert lost.end["exit_code"] != 0 and b"/no/such" in lost.err


def test_a_log_has_no_secret_in_it_and_is_followed_until_its_reader_leaves(
    shop: Shop, alice: Any
) -> None:
    word = "swordfish-9000"
    set_secret(environment=shop.qa, user=alice, name="WORD", value=Secret(word))
    shop.deploy("one", command=TALKS)
    desk = Desk(shop, alice)
    heard = desk.do("logs")
    assert (heard.out, heard.err) == (b"ready\n", b"it is ***\n")
    assert b"ready" not in desk.do("logs", tail=0).out
    said = desk.do("logs", tail=-1).out
    assert desk.do("logs", tail=1).out == said.splitlines(keepends=True)[-1]
    assert desk.do("logs", tail=1000).out == said
    row = desk.ask("logs", follow=True)
    thread = desk.begin(row)
    assert b"ready" in asyncio.run(listen(row.pk, until=b"ready")).out
    assert ContainerCommand.objects.get(pk=row.pk).state == CommandState.RUNNING
    thread.join(10)
    assert not thread.is_alive()
    assert ContainerCommand.objects.get(pk=row.pk).reason == "Nobody reads it any more."


SAYS_WHEN_ASKED = (
    "echo ready; trap 'exit 0' TERM; /bin/busybox httpd -f -p 8080 -h /www &"
    " while :; do [ -e /say ] && echo now; /bin/busybox rm -f /say; /bin/busybox sleep 0.1; done"
)


def test_who_attaches_hears_what_is_said_from_then_on_and_is_written_down(
    shop: Shop, alice: Any
) -> None:
    shop.deploy("one", command=SAYS_WHEN_ASKED)
    desk = Desk(shop, alice)
    row = desk.ask("attach")
    thread = desk.begin(row)
    [container] = shop.containers()
    here = target()

    def say() -> None:
        time.sleep(2)  # the engine does not say when it listens
        said = here.engine.execute(container.id, ["/bin/busybox", "touch", "/say"])
        commands.run(said, timeout=20)

    saying = threading.Thread(target=say)
    saying.start()
    heard = asyncio.run(listen(row.pk, until=b"now"))
    saying.join()
    thread.join(15)
    assert (heard.out, thread.is_alive()) == (b"now\n", False)
    entry = AuditEntry.objects.get(action="container.attach")
    assert (entry.actor, entry.target) == ("alice", "hello@qa on local")
    assert shop.page() == "one", "it goes on without who was attached"


def processes_with(mark: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                environ = (entry / "environ").read_bytes()
            except OSError:
                continue
            if f"GANTRY_COMMAND={mark}".encode() in environ.split(b"\0"):
                found.append(int(entry.name))
    return found


def test_a_program_ends_with_its_reader_and_a_killed_watchers_with_the_next_one(desk: Desk) -> None:
    script = "/bin/busybox setsid /bin/busybox sleep 900 & echo on; /bin/busybox sleep 900"
    row = desk.ask("exec", "/bin/sh", "-c", script)
    thread = desk.begin(row)
    asyncio.run(listen(row.pk, until=b"on"))
    thread.join(15)
    assert not thread.is_alive()
    assert processes_with(verbs.mark_of(row)) == []
    assert desk.shop.page() == "one"

    # A watcher that is killed ends nothing; the next one does.
    row = desk.ask("exec", "/bin/busybox", "sleep", "900")
    [container] = desk.shop.containers()
    here = target()
    argv = here.engine.enter(container.id, row.words, mark=verbs.mark_of(row), stdin=False)
    client = here.machine.stream(argv, stdin=-3, stdout=-3)
    wait_until(lambda: processes_with(verbs.mark_of(row)))
    client.kill()
    client.wait()
    assert processes_with(verbs.mark_of(row))
    long_ago = timezone.now() - timedelta(minutes=1)
    ContainerCommand.objects.update(state=CommandState.RUNNING, beat_at=long_ago)
    attending.sweep()
    row.refresh_from_db()
    assert (row.state, "is gone" in row.reason) == (CommandState.FAILED, True)
    wait_until(lambda: not processes_with(verbs.mark_of(row)), 5)


def test_what_is_stopped_stays_so_until_it_is_started_or_deployed_again(desk: Desk) -> None:
    assert desk.do("stop").out == b"local: v1 is stopped\n"
    row = Running.objects.get()
    assert (row.stopped_by, row.healthy) == ("alice", False)
    restoring.restore_routes()
    drift.look()
    [container] = desk.shop.containers()
    row.refresh_from_db()
    assert (container.running, row.drift, row.stopped_by) == (False, "", "alice")
    refused = desk.do("exec", "/bin/sh").end["reason"]
    assert refused == "The container is stopped by alice. Start it first."
    [listed] = json.loads(desk.do("ps").out)
    assert (listed["state"], listed["stopped_by"]) == ("stopped", "alice")

    assert desk.do("start").out == b"local: v1 serves\n"
    assert desk.shop.page() == "one"
    assert desk.do("restart").out == b"local: v1 serves\n"
    row.refresh_from_db()
    assert (desk.shop.page(), row.stopped_by, row.healthy) == ("one", "", True)

    desk.do("stop")
    [container] = desk.shop.containers()
    target().resume(container)
    drift.look()
    assert Running.objects.get().drift == "it runs, though alice stopped it"
    restoring.restore_routes()
    assert not desk.shop.containers()[0].running
    assert desk.shop.deploy("two").state == "succeeded"
    assert (desk.shop.page(), Running.objects.get().stopped_by) == ("two", "")


def kill_with_its_monitor(container: Container) -> None:
    """As when somebody kills all of its processes: podman cannot start it again."""
    asked = ["podman", "inspect", "--format", "{{.State.ConmonPid}}", container.id]
    os.kill(int(commands.run(asked, timeout=30).out), signal.SIGKILL)
    os.kill(container.pid, signal.SIGKILL)


def test_a_chore_is_waited_for_and_what_cannot_be_done_now_is_told(desk: Desk) -> None:
    with leases.tend(desk.shop.qa) as chore:
        assert chore
        row = desk.ask("restart")
        thread = desk.begin(row)
        time.sleep(1)
        assert thread.is_alive()
    heard = asyncio.run(listen(row.pk))
    thread.join(20)
    assert (heard.out, heard.end["reason"]) == (b"local: v1 serves\n", "")
    _what_cannot_be_done_now_is_told_with_the_next_step(desk)


def _what_cannot_be_done_now_is_told_with_the_next_step(desk: Desk) -> None:
    Deployment.objects.update(state=DeploymentState.RUNNING)
    end = desk.do("stop").end
    assert end["reason"].startswith("A deployment to hello@qa is under way.")
    assert desk.shop.page() == "one"
    Deployment.objects.update(state=DeploymentState.SUCCEEDED)
    [container] = desk.shop.containers()
    kill_with_its_monitor(container)
    drift.look()
    assert Running.objects.get().drift == "its container has stopped"
    again = services.promote(
        release=desk.shop.project.releases.get(), environment=desk.shop.qa, user=desk.user
    )
    deployment = desk.shop.run(again)
    assert (deployment.state, deployment.reason, desk.shop.page()) == ("succeeded", "", "one")
    [container] = desk.shop.containers()
    target().remove(container, grace=0)
    for verb in ("logs", "stop"):
        reason = desk.do(verb).end["reason"]
        assert reason.endswith("is gone. Deploy its release again."), reason


@pytest.mark.parametrize(
    ("verb", "words", "options", "said"),
    [
        ("dance", [], {}, "'dance' is nothing that can be asked"),
        ("exec", [], {}, "No command is given"),
        ("exec", ["a\0b"], {}, "no NUL"),
        ("exec", ["x" * 9000], {}, "at most 8192"),
        ("get", ["etc/passwd"], {}, "begins with '/'"),
        ("put", [], {}, "A path inside"),
        ("logs", [], {"since": "yesterday; rm"}, "is no time to begin at"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anybody_is_asked(
    hello: Any, alice: Any, verb: str, words: list[str], options: dict[str, Any], said: str
) -> None:
    qa = hello.environments.get(name="qa")
    with pytest.raises(Refused, match=said):
        asking.ask(environment=qa, user=alice, verb=verb, words=words, options=Options(**options))
    assert not ContainerCommand.objects.exists()


def test_viewers_list_developers_read_and_only_who_may_promote_enters(
    hello: Any, bob: Any, charlie: Any
) -> None:
    qa = hello.environments.get(name="qa")
    assert asking.ask(environment=qa, user=bob, verb="ps")
    with pytest.raises(Refused, match="Nothing runs in hello@qa yet"):
        asking.ask(environment=qa, user=bob, verb="logs")
    for verb in ("exec", "stop", "start", "restart", "get", "put"):
        with pytest.raises(Refused, match="Only who may promote"):
            asking.ask(environment=qa, user=bob, verb=verb, words=["/bin/sh"])
    with pytest.raises(Refused):
        asking.ask(environment=qa, user=charlie, verb="ps")


def test_what_nobody_does_is_told_to_whoever_reads(messages: None, monkeypatch: Any) -> None:
    monkeypatch.setattr(wire, "SILENCE", 0.5)
    began = time.monotonic()
    with pytest.raises(Refused, match="No worker does this"):
        asyncio.run(listen(987654))
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("skip", "pieces", "left"),
    [
        (0, [b"a\nb"], b"a\nb"),
        (1, [b"a", b"a\n", b"b\nc"], b"b\nc"),
        (2, [b"a\nb\n", b"c"], b"c"),
        (3, [b"a\nb\nc"], b""),
    ],
)
def test_lines_before_those_asked_for_are_left_out(
    skip: int, pieces: list[bytes], left: bytes
) -> None:
    assert b"".join(verbs._after(skip, iter(pieces))) == left
