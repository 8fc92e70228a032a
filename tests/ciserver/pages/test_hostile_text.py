"""Whatever a log, a branch, a title, an author or a test holds is text, never markup."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest

from ciserver.pipelines.logs import LogWriter
from ciserver.pipelines.models import Step, TestCase
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
    seeding.deploy(release, qa, by=text)
    seeding.deploy(release, prod, state="failed", reason=text)
    seeding.make_delivery(project, passed, 1, forge="git", event=text[:60], ref=text, detail=text)
    assert Delivery.objects.count() == 1
    return project


@pytest.mark.parametrize(
    "url",
    [
        "/",
        "/projects/hello/",
        "/projects/hello/pipelines/1/",
        "/projects/hello/pipelines/2/",
        "/projects/hello/releases/1/",
        "/projects/hello/releases/1/promote/prod/",
    ],
)
def test_it_stays_text(poisoned: Any, alice: Any, sign_in: Any, url: str) -> None:
    answer = sign_in(alice).get(url)
    assert answer.status_code == 200
    elements = Elements()
    elements.feed(answer.content.decode())
    assert elements.bad == []


def test_it_stays_text_in_the_event_stream(poisoned: Any) -> None:
    from ciserver.pipelines.models import Pipeline
    from ciserver.pipelines.stream import Progress, _Page

    pipeline = Pipeline.objects.get(number=1)
    page = _Page(pipeline.pk, Progress(1))
    elements = Elements()
    for frame in page.read():
        elements.feed(frame)
    assert elements.bad == []
