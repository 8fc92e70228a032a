"""The API: every app's viewsets under one router."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, include, path
from rest_framework.routers import DefaultRouter

from ciserver.accounts.api import Me, TokenViewSet
from ciserver.accounts.guard import guard
from ciserver.accounts.people_api import (
    OneSession,
    Password,
    Sessions,
    TeamViewSet,
    UserViewSet,
)
from ciserver.dashboard.audit import AuditViewSet
from ciserver.dashboard.discovery import HttpSd
from ciserver.dashboard.image_api import ImageViewSet
from ciserver.dashboard.search_pages import Search
from ciserver.notifications.api import Statuses
from ciserver.notifications.outgoing_api import WebhookViewSet
from ciserver.pipelines.api import PipelineViewSet
from ciserver.pipelines.artifact_api import ArtifactViewSet
from ciserver.pipelines.case_api import CaseViewSet
from ciserver.pipelines.inspection_api import InspectionViewSet
from ciserver.pipelines.job_api import JobViewSet
from ciserver.pipelines.lint_api import Lint, json_schema
from ciserver.pipelines.start_api import ScheduleViewSet
from ciserver.projects.member_api import Members, OneMember, OneTeam
from ciserver.projects.registry import token
from ciserver.releases.api import (
    DeploymentViewSet,
    EnvironmentViewSet,
    HostViewSet,
    ReleaseViewSet,
    StopViewSet,
)
from ciserver.releases.daytwo.api import CommandViewSet
from ciserver.releases.daytwo.api import stream as command_stream
from ciserver.releases.event_stream import events
from ciserver.releases.project_api import ProjectViewSet
from ciserver.repositories.api import AccessView, HostKeysView, KeyView, LoginView, Rules
from ciserver.webhooks.api import DeliveryViewSet
from ciserver.webhooks.pulls_api import PullRequestViewSet
from ciserver.webhooks.trial_views import HookTest

router = DefaultRouter()
router.register("projects", ProjectViewSet)
router.register("pipelines", PipelineViewSet)
router.register("jobs", JobViewSet)
router.register("inspections", InspectionViewSet)
router.register("artifacts", ArtifactViewSet)
router.register("schedules", ScheduleViewSet)
router.register("cases", CaseViewSet)
router.register("releases", ReleaseViewSet)
router.register("environments", EnvironmentViewSet)
router.register("hosts", HostViewSet)
router.register("commands", CommandViewSet)
router.register("deployments", DeploymentViewSet)
router.register("stops", StopViewSet)
router.register("images", ImageViewSet)
router.register("audit", AuditViewSet)
router.register("tokens", TokenViewSet)
router.register("users", UserViewSet)
router.register("teams", TeamViewSet)
router.register("deliveries", DeliveryViewSet)
router.register("pull-requests", PullRequestViewSet)
router.register("projects/(?P<slug>[a-z0-9-]+)/webhooks", WebhookViewSet, basename="webhook")

urlpatterns: list[URLPattern | URLResolver] = [
    path("events/", events, name="events"),
    path("http_sd/", HttpSd.as_view(), name="http-sd"),
    path("search/", Search.as_view(), name="api-search"),
    path("me/", Me.as_view(), name="me"),
    path("me/password/", Password.as_view(), name="my-password"),
    path("me/sessions/", Sessions.as_view(), name="my-sessions"),
    path("me/sessions/<str:name>/", OneSession.as_view()),
    path("lint/", Lint.as_view(), name="lint"),
    path("gantry.schema.json", json_schema, name="gantry-schema"),
    path("registry/token", token, name="registry-token"),
    path("commands/<int:pk>/stream/", command_stream, name="command-stream"),
    path("projects/<slug:slug>/statuses/", Statuses.as_view(), name="project-statuses"),
    path("projects/<slug:slug>/members/", Members.as_view(), name="project-members"),
    path("projects/<slug:slug>/members/<str:username>/", OneMember.as_view()),
    path("projects/<slug:slug>/teams/<slug:name>/", OneTeam.as_view()),
    path("projects/<slug:slug>/repository/access/", AccessView.as_view(), name="git-access"),
    path("projects/<slug:slug>/repository/access/key/", KeyView.as_view()),
    path("projects/<slug:slug>/repository/access/login/", LoginView.as_view()),
    path("projects/<slug:slug>/repository/access/host-keys/", HostKeysView.as_view()),
    path("projects/<slug:slug>/repository/", Rules.as_view(), name="repository-rules"),
    path("projects/<slug:slug>/hook-test/", HookTest.as_view(), name="api-test-hook"),
    path("", include(router.urls)),
]
guard(urlpatterns)
