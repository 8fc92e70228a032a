"""Pages of a repository. Git itself is served before Django, by ``ciserver.repositories.http``."""

from __future__ import annotations

from django.urls import path

from ciserver.repositories import views

urlpatterns = [path("projects/<slug:slug>/repository/", views.repository, name="repository")]
