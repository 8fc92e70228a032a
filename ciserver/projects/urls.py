"""Addresses of a project's settings."""

from __future__ import annotations

from django.urls import path

from ciserver.projects import member_views, views

urlpatterns = [
    path("projects/<slug:slug>/members/", member_views.page, name="members"),
    path("projects/<slug:slug>/members/remove/", member_views.remove, name="remove-member"),
    path("projects/<slug:slug>/building/", views.building, name="building"),
    path("projects/<slug:slug>/secrets/", views.secrets, name="secrets"),
    path("projects/<slug:slug>/secrets/remove/", views.remove_secret, name="remove-secret"),
]
