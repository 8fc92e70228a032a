"""What pages and API show of images: repositories, tags, layer maps, and who uses what.

Everything begins at ``ImageUse``: whoever sees a project sees the images it pushed, and of
another project's, however many layers they share, nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.core.paginator import Page, Paginator
from django.db.models import Count, Exists, Max, OuterRef, Q, QuerySet
from django.http import Http404

from ciserver.dashboard.models import ImageLayer, ImageRecord, ImageUse
from ciserver.pipelines.models import JobKind, Pipeline, Step
from ciserver.projects.models import Project
from ciserver.releases.models import Release, Running

PAGE_SIZE = 30
LOOKED_AT = 50  # images that share a layer
MAP_WIDTH = 1000
LEAST_WIDTH = 3.0  # of a layer in the map, in its units
COMMIT = re.compile(r"[0-9a-f]{7,64}")
VERSION = re.compile(r"v([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Repository:
    """A project's images as a whole."""

    project: Project
    images: int
    newest: ImageUse


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer of an image. ``start`` and ``width`` place it in the map, ``lost`` is the part of
    ``width`` that is wasted. ``shared`` are (project, images) that have it too."""

    row: ImageLayer
    place: str
    start: float
    width: float
    lost: float
    shared: list[tuple[str, int]]
    more: bool  # there are more than were looked at

    @property
    def bytes(self) -> int:
        return weight(self.row)

    @property
    def base(self) -> bool:
        """It was there before the Dockerfile's first line."""
        return not self.place


@dataclass(frozen=True, slots=True)
class LayerMap:
    """Bytes per Dockerfile line."""

    image: ImageRecord
    use: ImageUse
    rows: list[LayerRow]

    @property
    def wasted_percent(self) -> float:
        return 100 * self.image.wasted / self.image.unpacked if self.image.unpacked else 0.0

    @property
    def shared_bytes(self) -> int:
        """Compressed bytes that other images have, too."""
        return sum(row.row.layer.size for row in self.rows if row.shared)

    @property
    def worst(self) -> LayerRow | None:
        """The layer that wastes most."""
        found = max(self.rows, key=lambda one: one.row.wasted, default=None)
        return found if found and found.row.wasted else None


def uses_for(user: Any) -> QuerySet[ImageUse]:
    """The images of the projects that ``user`` may see, newest first."""
    rows = ImageUse.objects.filter(project__in=Project.objects.visible_to(user))
    return rows.select_related("project", "image", "pipeline__project", "pipeline__release")


def repositories(user: Any, *, asked: str = "", page: str = "1") -> Page[Repository]:
    """The projects that pushed images, the newest first; those whose name holds ``asked``."""
    rows = ImageUse.objects.filter(project__in=Project.objects.visible_to(user))
    if asked:
        rows = rows.filter(Q(project__slug__icontains=asked) | Q(name__icontains=asked))
    found = (
        rows.order_by()
        .values("project")
        .annotate(images=Count("image", distinct=True), last=Max("pk"))
        .order_by("-last")
    )
    shown = Paginator(found, PAGE_SIZE).get_page(page)
    last = uses_for(user).in_bulk([row["last"] for row in shown])
    rows_of_page = [
        Repository(last[row["last"]].project, row["images"], last[row["last"]]) for row in shown
    ]
    shown.object_list = rows_of_page  # type: ignore[assignment]  # a page of what we make of it
    return shown  # type: ignore[return-value]  # the same


def found(rows: QuerySet[ImageUse], asked: str) -> QuerySet[ImageUse]:
    """Those of ``rows`` that every word of ``asked`` fits.

    A word is part of a name, a tag (a release, a commit's beginning), a digest's beginning, or a
    label: ``name=value``, or part of either.
    """
    for word in asked.split()[:8]:
        rows = rows.filter(_fits(word))
    return rows


def _fits(word: str) -> Q:
    name, sign, value = word.partition("=")
    if sign:
        label = Q(image__labels__name=name, image__labels__value__icontains=value)
        return Q(image__in=ImageRecord.objects.filter(_of_image(label)).values("pk"))
    fits = Q(project__slug__icontains=word) | Q(name__icontains=word)
    either = Q(labels__name__icontains=word) | Q(labels__value__icontains=word)
    fits |= Q(image__in=ImageRecord.objects.filter(either).values("pk"))
    if COMMIT.fullmatch(word):
        fits |= Q(pipeline__commit__startswith=word)
        fits |= Q(image__digest__startswith=f"sha256:{word}")
    if word.startswith("sha256:"):
        fits |= Q(image__digest__startswith=word)
    if version := VERSION.fullmatch(word):
        fits |= Q(pipeline__release__number=int(version[1]))
    return fits


def _of_image(label: Q) -> Q:
    """The same condition, asked of images and not of their uses."""
    children = [(str(key).removeprefix("image__"), value) for key, value in label.children]  # type: ignore[misc]  # pairs, as we made them
    return Q(*children)


def use_of(project: Project, digest: str) -> ImageUse:
    """The newest pipeline of ``project`` that pushed ``digest``. Raises Http404."""
    rows = ImageUse.objects.filter(project=project, image__digest=digest)
    use = rows.select_related("project", "image", "pipeline__project", "pipeline__release").first()
    if use is None:
        raise Http404
    return use


def tags_of(use: ImageUse) -> list[str]:
    """The names under which the image can be asked for: release, Git tags, commit."""
    release = getattr(use.pipeline, "release", None)
    names = [release.name, *(tag["name"] for tag in release.tags)] if release else []
    return [*names, use.pipeline.commit]


def removed(use: ImageUse) -> bool:
    """Whether the registry gave the image up."""
    release = getattr(use.pipeline, "release", None)
    return release is not None and release.removed_at is not None


def releases_of(use: ImageUse) -> list[Release]:
    """The releases of its project that hold the image."""
    uses = ImageUse.objects.filter(project=use.project_id, image=use.image_id)
    rows = Release.objects.filter(pipeline__in=uses.values("pipeline"))
    return list(rows.select_related("project"))


def running(releases: Iterable[Release]) -> dict[int, list[Running]]:
    """Where each release runs, by its key."""
    rows = Running.objects.filter(release__in=list(releases)).select_related(
        "environment__project", "host"
    )
    found: dict[int, list[Running]] = {}
    for row in rows.order_by("environment__position", "host__name"):
        found.setdefault(row.release_id, []).append(row)
    return found


def map_of(use: ImageUse, user: Any) -> LayerMap:
    """The layer map of an image, with what ``user`` may know of others that share layers."""
    rows = list(use.image.layers.select_related("layer"))
    places = _places(use.pipeline, use.name, [row.instruction for row in rows])
    total = sum(weight(row) for row in rows) or 1
    spare = MAP_WIDTH - LEAST_WIDTH * len(rows)
    visible = Project.objects.visible_to(user)
    made: list[LayerRow] = []
    start = 0.0
    for row, place in zip(rows, places, strict=True):
        width = LEAST_WIDTH + spare * weight(row) / total
        lost = width * row.wasted / row.layer.unpacked if row.layer.unpacked else 0.0
        shared, more = _shared(row, visible)
        made.append(
            LayerRow(row, place, round(start, 1), round(width, 1), round(lost, 1), shared, more)
        )
        start += width
    return LayerMap(use.image, use, made)


def weight(row: ImageLayer) -> int:
    """Unpacked bytes; compressed ones of a layer that was not looked through."""
    return row.layer.unpacked or (row.layer.size if row.layer.trouble else 0)


def _shared(row: ImageLayer, visible: QuerySet[Project]) -> tuple[list[tuple[str, int]], bool]:
    """The newest of the others first, and no more than is looked at: a base is in every image."""
    seen = ImageUse.objects.filter(image=OuterRef("image"), project__in=visible)
    others = ImageLayer.objects.filter(layer=row.layer_id).exclude(image=row.image_id)
    others = others.filter(Exists(seen)).order_by("-pk")
    found = list(others.values_list("image", flat=True)[: LOOKED_AT + 1])
    uses = ImageUse.objects.filter(image__in=found[:LOOKED_AT], project__in=visible)
    pairs = uses.order_by().values_list("project__slug", "image").distinct()
    counted = Counter(slug for slug, _ in pairs)
    return counted.most_common(), len(found) > LOOKED_AT


def _places(pipeline: Pipeline, name: str, instructions: list[str]) -> list[str]:
    """``Dockerfile:LINE`` of each instruction, as the build's steps tell; "" for the base's.

    Both are in the order of the Dockerfile, so each is looked for after the one before it.
    """
    jobs = {job.pk: job for job in pipeline.latest_jobs() if job.kind == JobKind.BUILD}
    steps = list(
        Step.objects.filter(job__in=jobs).order_by("job", "position").values_list("text", "place")
    )
    found: list[str] = []
    for instruction in instructions:
        at = next((i for i, (text, _) in enumerate(steps) if text == instruction), None)
        found.append(steps[at][1] if at is not None else "")
        if at is not None:
            del steps[: at + 1]
    return found


def before(use: ImageUse) -> ImageUse | None:
    """The image of the same name that its project pushed before it, from another content."""
    rows = ImageUse.objects.filter(
        project=use.project_id, name=use.name, pipeline__lt=use.pipeline_id
    )
    rows = rows.filter(pipeline__ref=use.pipeline.ref).exclude(image=use.image_id)
    return rows.select_related("image", "pipeline", "pipeline__release").first()


def variables(image: ImageRecord) -> list[str]:
    """The image's own, as ``NAME=value``."""
    env = image.config.get("Env", [])
    return [str(one) for one in env] if isinstance(env, list) else [f"Env={env}"]
