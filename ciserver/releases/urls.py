"""Addresses of release pages."""

from __future__ import annotations

from django.urls import path

from ciserver.releases import fleet_views, places, removal_pages, secret_pages, views
from ciserver.releases.daytwo import pages

_PAGE = "projects/<slug:slug>/releases/<int:number>/"

_PLACE = "projects/<slug:slug>/environments/<slug:name>/"

urlpatterns = [
    path(_PLACE, places.environment, name="environment"),
    path(f"{_PLACE}deployments/", places.deployments, name="deployments"),
    path(f"{_PLACE}secrets/", secret_pages.page, name="environment-secrets"),
    path(f"{_PLACE}secrets/remove/", secret_pages.remove, name="remove-environment-secret"),
    path(f"{_PLACE}containers/<slug:verb>/", pages.ask, name="ask-containers"),
    path("commands/<int:pk>/", pages.command, name="command"),
    path(f"{_PLACE}edit/", places.edit, name="edit-environment"),
    path(f"{_PLACE}remove/", removal_pages.environment, name="remove-environment"),
    path("projects/<slug:slug>/archive/", removal_pages.project, name="archive-project"),
    path("projects/<slug:slug>/new-environment/", places.new, name="new-environment"),
    path("deployments/<int:pk>/approve/", places.approve, name="approve"),
    path("deployments/<int:pk>/reject/", places.reject, name="reject"),
    path("deployments/<int:pk>/cancel/", places.cancel, name="cancel-deployment"),
    path("hosts/", fleet_views.hosts, name="hosts"),
    path("hosts/<slug:name>/", fleet_views.host, name="host"),
    path("hosts/<slug:name>/check/", fleet_views.visit, {"verb": "check"}, name="check-host"),
    path("hosts/<slug:name>/prepare/", fleet_views.visit, {"verb": "prepare"}, name="prepare-host"),
    path("hosts/<slug:name>/accept-key/", fleet_views.accept_key, name="accept-host-key"),
    path("hosts/<slug:name>/remove/", fleet_views.remove, name="remove-host"),
    path("line/stop/", places.stop, name="stop-line"),
    path("line/resume/", places.resume, name="resume-line"),
    path(_PAGE, views.release, name="release"),
    path(f"{_PAGE}promote/<slug:environment>/", views.promote, name="promote"),
    path(f"{_PAGE}roll-back/<slug:environment>/", views.roll_back, name="roll-back"),
]
