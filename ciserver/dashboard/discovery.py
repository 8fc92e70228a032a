"""What other tools ask about: Prometheus's HTTP service discovery, and CCTray for build lamps."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

from django.conf import settings
from django.db.models import F, Max, QuerySet, Value
from django.db.models.functions import Concat
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from ciserver.accounts.authentication import reader
from ciserver.lib.problems import problem_response
from ciserver.pipelines.models import FINISHED, Pipeline, State
from ciserver.projects.models import Project
from ciserver.releases.models import Host, Running

# https://cctray.org/v1/: the status of the last build that ended, and what goes on now.
LAST = {State.PASSED: "Success", State.FAILED: "Failure", State.CANCELLED: "Unknown"}


class TargetGroupSerializer(serializers.Serializer[Any]):
    """One target of https://prometheus.io/docs/prometheus/latest/http_sd/."""

    targets = serializers.ListField(child=serializers.CharField())
    labels = serializers.DictField(child=serializers.CharField())


class HttpSd(APIView):
    """Where the deployed containers of the caller's projects are served, for Prometheus."""

    @extend_schema(responses=TargetGroupSerializer(many=True))
    def get(self, request: Request) -> Response:
        """Always the whole list, as the format asks; environments without a port are not in it."""
        rows = Running.objects.filter(
            environment__project__in=Project.objects.visible_to(request.user),
            environment__port__isnull=False,
        ).select_related("environment__project", "host", "release")
        shown = (
            "digest",
            "release__number",
            "environment__name",
            "environment__port",
            "environment__project__slug",
            "host__name",
            "host__address",
        )
        order = ("environment__project__slug", "environment__position", "host__name")
        return Response([_target(row) for row in rows.only(*shown).order_by(*order)])


def _target(row: Running) -> dict[str, Any]:
    place = row.environment
    labels = {
        "project": place.project.slug,
        "environment": place.name,
        "host": row.host.name,
        "release": row.release.name,
        "digest": row.digest,
    }
    address = f"{address_of(row.host)}:{place.port}"
    return {
        "targets": [address],
        "labels": {f"__meta_gantry_{name}": value for name, value in labels.items()},
    }


def address_of(host: Host) -> str:
    """The name under which others reach ``host``; this machine's is that of our own address."""
    if not host.address:
        return urlsplit(settings.GANTRY.url).hostname or "127.0.0.1"
    return urlsplit(f"ssh://{host.address.removeprefix('ssh://')}").hostname or host.address


@require_safe
def cctray(request: HttpRequest) -> HttpResponse:
    """The default branches of the caller's projects; Basic with a token as password will do."""
    user = reader(request)
    if user is None:
        answer = problem_response(
            401,
            code="not-authenticated",
            detail="Who asks? Nobody is signed in and there is no token.",
            hint="Give any name, and a token as the password. Tokens are made on /tokens/.",
        )
        answer.headers["WWW-Authenticate"] = 'Basic realm="gantry"'
        return answer
    root = ElementTree.Element("Projects")
    url = settings.GANTRY.url
    for project, last, busy in _lamps(Project.objects.visible_to(user).order_by("slug")):
        attributes = {
            "name": project.slug,
            "activity": "Building" if busy else "Sleeping",
            "lastBuildStatus": LAST[State(last.state)] if last else "Unknown",
            "webUrl": url + (busy or last or project).get_absolute_url(),
        }
        if last:
            attributes["lastBuildLabel"] = str(last.number)
            attributes["lastBuildTime"] = (last.finished_at or last.created_at).isoformat(
                timespec="seconds"
            )
        ElementTree.SubElement(root, "Project", attributes)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return HttpResponse(text, content_type="application/xml")


def _lamps(
    projects: QuerySet[Project],
) -> list[tuple[Project, Pipeline | None, Pipeline | None]]:
    """Each project with the last pipeline of its default branch that ended, and the newest that
    has not; in three queries."""
    branch = Concat(Value("refs/heads/"), F("project__default_branch"))
    here = Pipeline.objects.filter(project__in=projects, ref=branch).order_by()

    def newest(pipelines: QuerySet[Pipeline]) -> dict[int, Pipeline]:
        last = pipelines.values("project").annotate(last=Max("pk")).values("last")
        found = Pipeline.objects.filter(pk__in=last).select_related("project")
        return {pipeline.project_id: pipeline for pipeline in found}

    ended = newest(here.filter(state__in=FINISHED))
    busy = newest(here.exclude(state__in=FINISHED))
    return [(project, ended.get(project.pk), busy.get(project.pk)) for project in projects]
