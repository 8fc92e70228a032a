"""Whatever a log, a branch, a title, an author or a test holds is text, never markup."""

from __future__ import annotations

import re
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from django.utils import timezone

from ciserver.accounts.models import AuditEntry
from ciserver.dashboard.listing import Listing, packed
from ciserver.dashboard.models import LayerRecord
from ciserver.pipelines.logs import LogWriter
from ciserver.pipelines.models import Artifact, CoverageFile, Job, Pipeline, Step, TestCase
from ciserver.releases.models import (
    CommandState,
    ContainerCommand,
    DeploymentStep,
    Environment,
    Host,
    Release,
    Running,
)
from ciserver.webhooks.models import Delivery
from tests.ciserver.pages import seeding

PAYLOADS = [
    "<script>window.pwned=1</script>",
    '"><img src=x onerror="window.pwned=1">',
    "'><svg/onload=window.pwned=1>",
    "</title></pre></code><iframe src=javascript:window.pwned=1>",
    "{{ 7|add:7 }}{% debug %}",
    "javascript:window.pwned=1",
    "<!--\u2028--><style>*{display:none}</style>",
    "\x1b[31m<b onmouseover=window.pwned=1>\x1b[0m",
]


class Elements(HTMLParser):
    """Collects what a page's markup could do."""

    def __init__(self) -> None:
        super().__init__()
        self.bad: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        badge = tag == "img" and "/badge/" in (values.get("src") or "")
        if tag in {"img", "iframe", "style", "b1", "object", "base"} and not badge:
            self.bad.append(tag)
        if tag == "script" and not (values.get("src") or "").startswith("/static/"):
            self.bad.append("script")
        for name, value in attrs:
            if name.startswith("on") or name == "style":
                self.bad.append(f"{tag} {name}")
            if name in {"href", "src", "action"} and not (value or "").startswith(("/", "#", "?")):
                self.bad.append(f"{tag} {name}={value}")


@pytest.fixture(params=PAYLOADS)
def poisoned(request: Any, alice: Any) -> Any:
    """A project every text of which is the payload."""
    text = request.param
    project = seeding.make_project("hello", alice, description=text[:200])
    project.default_branch = text[:200]
    project.save()
    pipeline = seeding.make_pipeline(
        project, 1, state="failed", title=text, author=text, ref=f"refs/heads/{text}",
        reason=text, place=text,
    )  # fmt: skip
    job = seeding.make_test(pipeline, failing=1, reason=text, place=text, hint=text)
    Step.objects.filter(job=job).update(text=text, stage=text[:100], place=text)
    TestCase.objects.filter(job=job).update(name=text, suite=text, message=text)
    with LogWriter(job.log_path) as log:
        log.write(1, "out", f"{text}\n".encode())
        log.say(text)
    passed = seeding.make_passed(project, 2, title=text, author=text)
    qa, prod = seeding.make_environments(project, "qa", "prod")
    release = seeding.make_release(passed, 1)
    Release.objects.filter(pk=release.pk).update(tags=[{"name": text, "pipeline": 2}])
    seeding.deploy(release, qa, by=text)
    seeding.deploy(release, prod, state="failed", reason=text)
    seeding.make_delivery(
        project, passed, 1, forge="git", event=text[:60], ref=text, detail=text,
        sender=text[:100], headers={text: text}, body=text.encode(),
    )  # fmt: skip
    assert Delivery.objects.count() == 1
    AuditEntry.record(actor=text[:150], action="x", target="hello", words=text)
    _poison_files(passed, job, text)
    _poison_hosts(qa, text)
    return project


def _poison_files(pipeline: Pipeline, job: Job, text: str) -> None:
    """Artifacts, covered files, and what an image holds."""
    later = timezone.now() + timedelta(days=1)
    Artifact.objects.create(job=job, path=text, size=1, sha256="a" * 64, expires_at=later)
    CoverageFile.objects.create(job=job, path=text, covered_lines="1-3", missed_lines="4")
    Pipeline.objects.filter(pk=job.pipeline_id).update(coverage_lines=4, coverage_covered=3)
    image = seeding.make_image(pipeline, **{text: text})
    found = packed(Listing(files={f"{text}/{text}": (1000, "x")}))
    packages = {"dpkg": {text: text}}
    own = image.layers.latest("position").layer_id
    LayerRecord.objects.filter(pk=own).update(listing=found, packages=packages, trouble=text)
    image.layers.update(instruction=text)
    image.config |= {"Cmd": [text], "Env": [f"{text}={text}"], "User": text, "WorkingDir": text}
    image.trouble = text
    image.save()
    seeding.make_image(seeding.make_passed(pipeline.project, 3))  # to be compared with


def _poison_hosts(environment: Environment, text: str) -> None:
    """What ssh, engines and proxies say."""
    environment.variables = {"WORD": text}
    environment.save()
    report = dict.fromkeys(("engine", "user", "system", "kernel", "machine", "traffic"), text)
    report |= {"warnings": [text], "registry": text, "clock": text, "disk_free": 1, "disk_total": 2}
    Host.objects.update(
        problem=text, report=report, checked_at=timezone.now(), offered_key=text[:100],
        engine=text[:10], address=text, public_key=text,
    )  # fmt: skip
    DeploymentStep.objects.update(name=text[:40], detail=text)
    Running.objects.update(container_id=text[:80], drift=text, stopped_by=text[:150])
    ContainerCommand.objects.create(
        environment=environment, host=environment.hosts.get(), verb="logs", words=[text],
        asked_by="alice", state=CommandState.FAILED, reason=text,
    )  # fmt: skip


OF_PROJECT = [
    "",
    "pipelines/",
    "pipelines/1/",
    "pipelines/1/coverage/",
    "pipelines/1/jobs/2/lines",
    "pipelines/2/",
    "releases/",
    "releases/1/",
    "releases/1/promote/prod/",
    "environments/qa/",
    "environments/qa/edit/",
    "environments/qa/deployments/",
    "deliveries/",
    "deliveries/{delivery}/",
    "tests/",
    "images/",
    f"images/{seeding.digest_of('hello2')}/",
    f"images/compare/?old={seeding.digest_of('hello2')}&new={seeding.digest_of('hello3')}",
    "building/",
    "repository/",
    "audit/",
]
SHOWN = re.compile("pwned|add:7|display:none")  # each of PAYLOADS has one
OTHERS = ["/", "/hosts/", "/hosts/local/", "/commands/{command}/", "/search/?q=hello"]


def test_it_stays_text_on_every_page(poisoned: Any, alice: Any, sign_in: Any) -> None:
    alice.is_superuser = True
    alice.save()
    client = sign_in(alice)
    names = {"delivery": Delivery.objects.get().pk, "command": ContainerCommand.objects.get().pk}
    bad = {}
    for path in (*OTHERS, *(f"/projects/hello/{path}" for path in OF_PROJECT)):
        answer = client.get(path.format(**names))
        assert answer.status_code == 200, path
        html = answer.content.decode()
        elements = Elements()
        elements.feed(html)
        bad[path] = elements.bad + ["not shown"] * (SHOWN.search(html) is None)
    assert {path: found for path, found in bad.items() if found} == {}


def test_it_stays_text_in_the_event_stream(poisoned: Any) -> None:
    from ciserver.pipelines.stream import Progress, _Page

    pipeline = Pipeline.objects.get(number=1)
    page = _Page(pipeline.pk, Progress(1))
    elements = Elements()
    for frame in page.read():
        elements.feed(frame)
    assert elements.bad == []
