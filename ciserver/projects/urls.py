"""Addresses of a project's settings."""

from __future__ import annotations

from django.urls import path

from ciserver.projects import views

urlpatterns = [
    path("projects/<slug:slug>/building/", views.building, name="building"),
    path("projects/<slug:slug>/secrets/", views.secrets, name="secrets"),
    path("projects/<slug:slug>/secrets/remove/", views.remove_secret, name="remove-secret"),
]
