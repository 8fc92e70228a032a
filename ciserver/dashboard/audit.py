"""Who did what: the audit log as a page and over the API."""

from __future__ import annotations

import json
from typing import Any

from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db.models import (
    CharField,
    Exists,
    ExpressionWrapper,
    F,
    OuterRef,
    Q,
    QuerySet,
    TextField,
    Value,
)
from django.db.models.functions import Cast, Concat
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import serializers, viewsets

from ciserver.accounts.models import AuditCheck, AuditEntry
from ciserver.lib import live
from ciserver.projects.models import Project, Role

PAGE_SIZE = 50


def entries_for(user: Any) -> QuerySet[AuditEntry]:
    """An administrator sees all, others what was done in the projects they maintain."""
    if user.is_superuser:
        return AuditEntry.objects.all()
    return of_projects(Project.objects.with_role(user, Role.MAINTAINER))


def of_projects(projects: QuerySet[Project]) -> QuerySet[AuditEntry]:
    """Targets begin with their project: ``hello``, ``hello v3``, ``hello@prod``, ``hello/x``. What
    was done in an earlier one of that name, which was deleted, is none of its people's business."""
    target = ExpressionWrapper(OuterRef("target"), output_field=CharField())
    fits = Q(of=F("slug"))
    for sign in " @/":
        fits |= Q(of__startswith=Concat(F("slug"), Value(sign)))
    there = projects.order_by().filter(created_at__lte=OuterRef("at"))
    found = Exists(there.annotate(of=target).filter(fits))
    return AuditEntry.objects.filter(found).exclude(_of_people())


def of_project(slug: str) -> QuerySet[AuditEntry]:
    """As ``of_projects``, with words that the database need not put together for each row."""
    fits = Q(target=slug)
    for sign in " @/":
        fits |= Q(target__startswith=f"{slug}{sign}")
    return AuditEntry.objects.filter(fits).exclude(_of_people())


def _of_people() -> Q:
    """The targets of these are names that people chose, which may be those of projects."""
    found = Q()
    for kind in ("token.", "user.", "team.", "account."):
        found |= Q(action__startswith=kind)
    return found


@login_required
@require_safe
def page(request: HttpRequest, slug: str = "") -> HttpResponse:
    """The log of one project for its maintainers, or all of it for administrators."""
    project = None
    if slug:
        maintained = Project.objects.with_role(request.user, Role.MAINTAINER)
        project = get_object_or_404(maintained, slug=slug)
        entries = of_project(project.slug)
        if not request.user.is_superuser:  # as of_projects has it
            entries = entries.filter(at__gte=project.created_at)
    elif request.user.is_superuser:
        entries = AuditEntry.objects.all()
    else:
        raise Http404
    asked = request.GET.get("q", "").strip()[:100]
    entries = about(entries, asked)
    shown = Paginator(entries, PAGE_SIZE).get_page(request.GET.get("page", "1"))
    rows = [(entry, in_words(entry.detail)) for entry in shown]
    context: dict[str, Any] = {"project": project, "page": shown, "rows": rows, "asked": asked}
    if live.wanted(request):
        return live.answer(request, "dashboard/_audit_live.html", context)
    if request.user.is_superuser:
        context["check"] = AuditCheck.objects.first()
    return render(request, "dashboard/audit.html", context)


def about(entries: QuerySet[AuditEntry], words: str) -> QuerySet[AuditEntry]:
    """Those that hold ``words`` anywhere; all of them without any."""
    if not words:
        return entries
    return entries.alias(words=Cast("detail", TextField())).filter(
        Q(actor__icontains=words)
        | Q(action__icontains=words)
        | Q(target__icontains=words)
        | Q(words__icontains=words)
    )


def in_words(detail: dict[str, Any]) -> list[tuple[str, str]]:
    """A change is written down as old and new value."""

    def shown(value: Any) -> str:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    found = []
    for key, value in detail.items():
        changed = isinstance(value, list) and len(value) == 2
        text = " \u2192 ".join(map(shown, value)) if changed else shown(value)
        found.append((key.replace("_", " "), text))
    return found


class AuditEntrySerializer(serializers.ModelSerializer[AuditEntry]):
    """``digest`` covers the entry and the digest of the one before it."""

    class Meta:
        model = AuditEntry
        fields = ["id", "at", "actor", "action", "target", "detail", "digest"]


FILTERS = [
    OpenApiParameter("project", str, description="slug of a project"),
    OpenApiParameter("actor", str, description="who did it"),
    OpenApiParameter("action", str, description="such as deployment.approve"),
    OpenApiParameter("q", str, description="words of the actor, action, target or detail"),
]


@extend_schema_view(list=extend_schema(parameters=FILTERS))
class AuditViewSet(viewsets.ReadOnlyModelViewSet[AuditEntry]):
    """Who did what in the projects that the caller maintains, newest first."""

    queryset = AuditEntry.objects.all()
    serializer_class = AuditEntrySerializer

    def get_queryset(self) -> QuerySet[AuditEntry]:
        entries = entries_for(self.request.user)
        given = self.request.query_params
        if slug := given.get("project"):
            entries &= of_project(slug)
        exact = {key: given[key] for key in ("actor", "action") if key in given}
        return about(entries.filter(**exact), given.get("q", "").strip()[:100])
