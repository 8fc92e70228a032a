"""Repositories whose branches move on, and webhooks that tell of it: twice, late, in disorder."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.faults.installation import Installation

USER = "gantry"  # who owns the repositories that the service hosts
BUSYBOX = Path("/bin/busybox")
LINES = 200  # that each build writes
DOCKERFILE = (
    b"""FROM scratch
COPY busybox /bin/sh
COPY busybox /bin/busybox
COPY number /number
RUN /bin/busybox seq %d && /bin/busybox sleep 0.3 && /bin/busybox cp /number /made
"""
    % LINES
)
DEFINITION = b"""tests:
  unit: {command: "/bin/busybox cmp /number /made && /bin/busybox sleep 0.2", memory: 64m}
"""


@dataclass(frozen=True)
class Told:
    """What one webhook says, and under which id."""

    slug: str
    ref: str
    sha: str
    delivery: str


@dataclass
class Repository:
    slug: str
    secret: str
    path: Path
    shas: dict[str, list[str]]  # of each ref, in Git's order

    def move(self, step: int) -> None:
        """Every branch goes to its commit number ``step``."""
        lines = "".join(f"update {ref} {shas[step]}\n" for ref, shas in self.shas.items())
        _git(self.path, "update-ref", "--stdin", given=lines.encode())


def make_repository(service: Installation, slug: str, branches: int, steps: int) -> Repository:
    """A project hosted by the service, with all commits and none of the branches yet."""
    with service.api() as api:
        made = api.post("projects/", json={"slug": slug})
        assert made.status_code == 201, made.text
        secret = api.post(f"projects/{slug}/hook-secret/").json()["secret"]
        if int(slug.rpartition("-")[2]) % 2:
            answer = api.patch(f"projects/{slug}/", json={"cancel_superseded": True})
            assert answer.status_code == 200, answer.text
    path = service.home / "repositories" / f"{made.json()['id']}.git"
    subprocess.run(["git", "init", "--quiet", "--bare", "--template=", str(path)], check=True)
    (path / "spool").mkdir(mode=0o700)
    for place in (path, *path.rglob("*")):
        shutil.chown(place, USER, USER)
    marks = path / "marks"
    words = ("fast-import", "--quiet", f"--export-marks={marks}")
    _git(path, *words, given=_stream(slug, branches, steps))
    by_mark = dict(line.split(" ") for line in marks.read_text().splitlines())
    refs = [f"refs/heads/b{branch}" for branch in range(branches)]
    return Repository(
        slug,
        secret,
        path,
        {
            ref: [by_mark[f":{1000 + number * steps + step}"] for step in range(steps)]
            for number, ref in enumerate(refs)
        },
    )


def _stream(slug: str, branches: int, steps: int) -> bytes:
    """git-fast-import(1)."""
    parts = []
    for mark, content in ((1, BUSYBOX.read_bytes()), (2, DOCKERFILE), (3, DEFINITION)):
        parts.append(b"blob\nmark :%d\ndata %d\n%b\n" % (mark, len(content), content))
    for branch in range(branches):
        for step in range(steps):
            words = f"{slug} b{branch} step {step}".encode()
            mark = 1000 + branch * steps + step
            parts.append(b"commit refs/import/b%d\nmark :%d\n" % (branch, mark))
            parts.append(b"committer A <a@example.org> %d +0000\n" % (1_700_000_000 + step))
            parts.append(b"data %d\n%b\n" % (len(words), words))
            if step == 0:
                parts.append(
                    b"M 100755 :1 busybox\nM 100644 :2 Dockerfile\nM 100644 :3 gantry.yml\n"
                )
            parts.append(b"M 100644 inline number\ndata %d\n%b\n" % (len(words), words))
    return b"".join(parts)


def _git(path: Path, *words: str, given: bytes = b"") -> bytes:
    done = subprocess.run(
        ["git", *words], cwd=path, input=given, capture_output=True, check=False,
        user=USER, group=USER, extra_groups=[], env={"PATH": "/usr/bin:/bin", "HOME": "/"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def webhooks(
    repositories: Sequence[Repository], step: int, count: int, dice: random.Random
) -> list[Told]:
    """``count`` of one step: each branch's move at least once; the rest is twins and old news."""
    first = [
        Told(repo.slug, ref, shas[step], f"{ref}-{step}")
        for repo in repositories
        for ref, shas in repo.shas.items()
    ]
    more = []
    while len(first) + len(more) < count:
        told = dice.choice(first)
        match dice.randrange(3):
            case 0:  # the same once more, as after a time-out
                more.append(told)
            case 1:  # replayed under a new id
                more.append(Told(told.slug, told.ref, told.sha, f"twin-{dice.getrandbits(64):x}"))
            case _:  # an earlier step, late
                repo = next(repo for repo in repositories if repo.slug == told.slug)
                sha = repo.shas[told.ref][dice.randint(0, step)]
                more.append(Told(told.slug, told.ref, sha, f"late-{dice.getrandbits(64):x}"))
    found = [*first, *more]
    dice.shuffle(found)
    return found


@dataclass
class Answers:
    """What the service said: ``seconds`` of those it answered with 2xx, and what it took."""

    seconds: list[float] = field(default_factory=list)
    taken: set[tuple[str, str, str]] = field(default_factory=set)
    sent: int = 0
    unanswered: int = 0
    refused: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def tell(
    service: Installation, secrets: dict[str, str], told: Sequence[Told], answers: Answers,
    *, per_second: float, senders: int = 8,
) -> None:  # fmt: skip
    """POST them at a steady rate. Nobody sends again what was not answered, like most forges."""
    began = time.monotonic()
    numbers = iter(range(len(told)))
    turn = threading.Lock()

    def send() -> None:
        with httpx.Client(trust_env=False, timeout=10) as client:
            while True:
                with turn:
                    number = next(numbers, None)
                if number is None:
                    return
                time.sleep(max(0.0, began + number / per_second - time.monotonic()))
                _post(client, service.url, secrets, told[number], answers)

    threads = [threading.Thread(target=send) for _ in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _post(
    client: httpx.Client, url: str, secrets: dict[str, str], told: Told, answers: Answers
) -> None:
    body = json.dumps({"ref": told.ref, "after": told.sha, "sender": {"login": "robot"}}).encode()
    mac = hmac.new(secrets[told.slug].encode(), body, hashlib.sha256).hexdigest()
    headers = {
        "X-GitHub-Event": "push",
        "X-GitHub-Delivery": told.delivery,
        "X-Hub-Signature-256": f"sha256={mac}",
        "Content-Type": "application/json",
    }
    began = time.monotonic()
    try:
        answer = client.post(f"{url}/hooks/github/{told.slug}/", content=body, headers=headers)
    except httpx.HTTPError:
        answer = None
    with answers.lock:
        answers.sent += 1
        if answer is None:
            answers.unanswered += 1
        elif answer.is_success:
            answers.seconds.append(time.monotonic() - began)
            answers.taken.add((told.slug, told.ref, told.sha))
        else:
            answers.refused += 1
