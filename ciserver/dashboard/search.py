"""Finding anything by a few words: projects, environments, pipelines, releases, hosts, actions.

For the palette, the search page and the API. Nothing is found that the caller may not see, and no
action is offered that the caller may not take.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from django.db.models import Max, Q, QuerySet
from django.urls import reverse

from ciserver.dashboard import images
from ciserver.dashboard.matrix import Row, rows_for
from ciserver.pipelines.models import Pipeline
from ciserver.projects.models import Project, Role
from ciserver.releases import fleet
from ciserver.releases.models import Environment, Release

OF_EACH = 5  # hits of a kind
ACTED_ON = 3  # projects whose actions are offered
NUMBER = re.compile(r"#?([0-9]{1,9})")
VERSION = re.compile(r"v([0-9]{1,9})")
COMMIT = re.compile(r"[0-9a-f]{7,64}")


@dataclass(frozen=True, slots=True)
class Hit:
    """``kind`` is one word; ``digest`` or ``state`` tell how it is drawn, if they are there."""

    kind: str
    title: str
    url: str
    detail: str = ""
    digest: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was typed, taken apart. ``words`` are what is neither a number nor a version."""

    text: str
    words: list[str] = field(default_factory=list)
    number: int | None = None
    version: int | None = None
    commit: str = ""

    @classmethod
    def parse(cls, text: str) -> Asked:
        words: list[str] = []
        found: dict[str, Any] = {}
        for word in text.lower().split()[:8]:
            if match := VERSION.fullmatch(word):
                found["version"] = int(match[1])
            elif match := NUMBER.fullmatch(word):
                found["number"] = int(match[1])
            elif COMMIT.fullmatch(word):
                found["commit"] = word
                words.append(word)
            else:
                words.append(word)
        return cls(text, words, **found)

    @property
    def exact(self) -> bool:
        """Something was named that is no project."""
        return self.number is not None or self.version is not None


def find(user: Any, text: str) -> list[Hit]:
    """What ``text`` fits, the likeliest first: a few of each kind. Without it, where one might
    want to go."""
    asked = Asked.parse(text)
    projects = Project.objects.visible_to(user)
    kinds: list[Iterable[Hit]] = [_projects(projects, asked)]
    if asked.words or asked.exact:
        kinds += [_environments(projects, asked), _hosts(user, asked)]
        named = [_releases(projects, asked), _pipelines(projects, asked), _images(user, asked)]
        kinds = [*named, *kinds] if asked.exact or asked.commit else [*kinds, *named]
    kinds.append(_actions(user, projects, asked))
    return [hit for kind in kinds for hit in islice(kind, OF_EACH * 2)]


def _named(words: Iterable[str], *fields: str) -> Q:
    """Each word is part of one of the fields."""
    fits = Q()
    for word in words:
        either = Q()
        for name in fields:
            either |= Q(**{f"{name}__icontains": word})
        fits &= either
    return fits


def _projects(projects: QuerySet[Project], asked: Asked) -> Iterator[Hit]:
    if asked.exact:
        return
    rows = projects.filter(_named(asked.words, "slug", "description"))
    if not asked.words:
        rows = rows.annotate(last=Max("pipelines__pk")).order_by("-last")
    for row in rows[:OF_EACH]:
        yield Hit("project", row.slug, row.get_absolute_url(), row.description)


def _environments(projects: QuerySet[Project], asked: Asked) -> Iterator[Hit]:
    if asked.exact:
        return
    rows = Environment.objects.filter(_named(asked.words, "project__slug", "name"))
    rows = rows.filter(project__in=projects).select_related("project")
    for row in rows.order_by("project__slug", "position")[:OF_EACH]:
        yield Hit("environment", f"{row.project.slug} {row.name}", row.get_absolute_url())


def _hosts(user: Any, asked: Asked) -> Iterator[Hit]:
    if asked.exact:
        return
    for row in fleet.visible_to(user).filter(_named(asked.words, "name", "address"))[:OF_EACH]:
        yield Hit("host", row.name, row.get_absolute_url(), row.address)


def _pipelines(projects: QuerySet[Project], asked: Asked) -> Iterator[Hit]:
    rows = Pipeline.objects.filter(project__in=projects).select_related("project")
    if asked.number is not None:
        rows = rows.filter(_named(asked.words, "project__slug"), number=asked.number)
    elif asked.version is not None:
        return
    elif asked.commit:
        others = [word for word in asked.words if word != asked.commit]
        rows = rows.filter(_named(others, "project__slug"), commit__startswith=asked.commit)
    else:
        rows = rows.filter(_named(asked.words, "project__slug", "title"))
        rows = rows.filter(_any(asked.words, "title"))
    for row in rows.order_by("-pk")[:OF_EACH]:
        title = f"{row.project.slug} #{row.number}"
        yield Hit("pipeline", title, row.get_absolute_url(), row.title, state=row.state)


def _releases(projects: QuerySet[Project], asked: Asked) -> Iterator[Hit]:
    rows = Release.objects.filter(project__in=projects).select_related("project")
    if asked.version is not None:
        rows = rows.filter(_named(asked.words, "project__slug"), number=asked.version)
    elif asked.number is not None:
        return
    else:
        rows = rows.filter(_named(asked.words, "project__slug", "title"))
        rows = rows.filter(_any(asked.words, "title"))
    for row in rows.order_by("-pk")[:OF_EACH]:
        title = f"{row.project.slug} {row.name}"
        yield Hit("release", title, row.get_absolute_url(), row.title, digest=row.digest)


def _any(words: Iterable[str], name: str) -> Q:
    fits = Q()
    for word in words:
        fits |= Q(**{f"{name}__icontains": word})
    return fits


def _images(user: Any, asked: Asked) -> Iterator[Hit]:
    digest = asked.commit or next((w for w in asked.words if w.startswith("sha256:")), "")
    if not digest:
        return
    digest = f"sha256:{digest.removeprefix('sha256:')}"
    for use in images.uses_for(user).filter(image__digest__startswith=digest)[:OF_EACH]:
        url = reverse("image", args=[use.project.slug, use.image.digest])
        title = f"{use.project.slug} {use.image.digest[7:19]}"
        yield Hit("image", title, url, use.pipeline.title, digest=use.image.digest)


def _actions(user: Any, projects: QuerySet[Project], asked: Asked) -> Iterator[Hit]:
    """Those whose words hold each word that was typed."""
    words = asked.text.lower().split()
    for hit in (*_everywhere(user), *_of_projects(user, projects, asked)):
        said = f"{hit.title} {hit.detail}".lower()
        if all(word in said for word in words):
            yield hit


def _everywhere(user: Any) -> list[Hit]:
    places = [
        ("What runs where", "matrix", "overview, home"),
        ("New project", "new-project", "make, add"),
        ("Registry", "registry", "images, layers"),
        ("Hosts", "hosts", "machines"),
        ("Your account", "account", "password, sessions"),
        ("Your tokens", "tokens", "passwords for Git and the API"),
        ("API documentation", "api-docs", ""),
    ]
    if user.is_superuser:
        places += [
            ("Users", "users", "people, administrators, reset a password"),
            ("Teams", "teams", "people, groups"),
            ("Who did what", "audit", "audit log"),
        ]
    return [Hit("action", title, reverse(name), detail) for title, name, detail in places]


def _of_projects(user: Any, projects: QuerySet[Project], asked: Asked) -> Iterator[Hit]:
    """Of the projects that a word names."""
    if not asked.words:
        return
    found = list(projects.filter(_any(asked.words, "slug"))[:ACTED_ON])
    for row in rows_for(found, user):
        slug = row.project.slug
        yield from _promotions(row)
        if row.pipeline and row.role >= Role.DEVELOPER:
            yield Hit(
                "action", f"Start a pipeline of {slug}", reverse("start-pipeline", args=[slug])
            )
        for title, name, least in (
            ("Tests over time", "project-tests", Role.VIEWER),
            ("Images", "images", Role.VIEWER),
            ("Deliveries", "deliveries", Role.VIEWER),
            ("Pipelines", "pipelines", Role.VIEWER),
            ("Releases", "releases", Role.VIEWER),
            ("Members", "members", Role.VIEWER),
            ("Description and building", "building", Role.VIEWER),
            ("Commit statuses", "statuses", Role.VIEWER),
            ("Secrets", "secrets", Role.MAINTAINER),
            ("Webhooks", "webhooks", Role.MAINTAINER),
            ("Repository", "repository", Role.MAINTAINER),
            ("New environment", "new-environment", Role.MAINTAINER),
            ("Audit log", "project-audit", Role.MAINTAINER),
            ("Archive or delete", "archive-project", Role.OWNER),
        ):
            if row.role >= least:
                yield Hit("action", f"{title} of {slug}", reverse(name, args=[slug]))


def _promotions(row: Row) -> Iterator[Hit]:
    """The same that the cells of the matrix offer."""
    for cell in row.chain:
        ready = cell.candidate if cell.may_promote else None
        if ready is not None:
            slug, name = row.project.slug, cell.environment.name
            url = reverse("promote", args=[slug, ready.number, name])
            title = f"Promote {slug} {ready.name} to {name}"
            yield Hit("action", title, url, "look at it first", digest=ready.digest)
