"""The images that tests and services run in: built here, running somewhere, or known by name."""

from __future__ import annotations

import re
from collections.abc import Mapping

from builders.errors import BuildError
from builders.images.reference import Reference
from builders.images.store import Image
from ciserver.pipelines.definition import Test
from ciserver.pipelines.runner.jobs import JobFailed, JobRun
from ciserver.pipelines.runner.plan import Plan
from ciserver.pipelines.service_definition import Service
from ciserver.projects.models import SLUG, Project

# A digest has a colon in it, and an image's name before its digest may have what a slug has not.
PLACE = re.compile(rf"(?P<project>{SLUG})@(?P<environment>{SLUG})\Z")


def image_of(
    run: JobRun, plan: Plan, images: Mapping[tuple[str, str | None], Image], part: Test | Service
) -> Image:
    """The image of ``part``. Raises JobFailed, builders' errors for one that cannot be had."""
    own = plan.own_image(part)
    if own is not None:
        return images[own]
    name = part.image or ""
    if found := PLACE.match(name):
        return _running(run, found["project"], found["environment"])
    reference = Reference.parse(name)
    return run.workshop.resolver_for(run.job.pipeline.project)(reference)


def located(error: BuildError | JobFailed, place: str) -> JobFailed:
    """``error`` with the place in ``gantry.yml`` that named the image."""
    if isinstance(error, JobFailed):
        return JobFailed(error.reason, place=error.place or place, hint=error.hint)
    return JobFailed(error.message, place=place, hint=error.hint)


def _running(run: JobRun, slug: str, name: str) -> Image:
    """What runs in an environment now, by digest; of several hosts the one that changed last."""
    own = run.job.pipeline.project
    project = own if own.slug == slug else Project.objects.filter(slug=slug).first()
    if project is None or not _may_use(run, project):
        raise JobFailed(
            f"There is no project {slug!r} whose images this one may use.",
            hint="A project may use another's when all of its members are members there too,"
            " never for a pull request of a fork, and with a repository elsewhere only that of a"
            " project with the same repository.",
        )
    # The app of environments is above this one: it is reached by the rows' own relations.
    environment = project.environments.filter(name=name).first()
    if environment is None:
        known = ", ".join(project.environments.values_list("name", flat=True)) or "none yet"
        raise JobFailed(f"{project} has no environment {name!r}.", hint=f"It has {known}.")
    running = environment.running.select_related("release").order_by("-since").first()
    if running is None:
        raise JobFailed(f"Nothing runs in {environment} yet.", hint="Deploy a release there first.")
    release = running.release
    run.log.say(f"{environment} runs {release.name}, {release.digest}.")
    return run.workshop.resolver(Reference.parse(release.reference))


def _may_use(run: JobRun, project: Project) -> bool:
    """Whoever can make this project's pipelines could fetch that image by himself."""
    own = run.job.pipeline.project
    if own.pk == project.pk:
        return True
    if run.job.pipeline.from_fork:
        return False
    if not own.hosted and own.clone_url != project.clone_url:
        return False  # who may push there is no member here, whatever the members are
    here = own.people.filter(is_superuser=False)
    return here.exists() and not here.exclude(pk__in=project.people.values("pk")).exists()
