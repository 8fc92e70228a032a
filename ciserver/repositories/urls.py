"""Pages of a repository. Git itself is served before Django, by ``ciserver.repositories.http``."""

from __future__ import annotations

from django.urls import path

from ciserver.repositories import views

urlpatterns = [
    path("projects/<slug:slug>/repository/", views.repository, name="repository"),
    path("projects/<slug:slug>/repository/key/", views.new_key, name="repository-key"),
    path("projects/<slug:slug>/repository/login/", views.login, name="repository-login"),
    path("projects/<slug:slug>/repository/forget/", views.forget_host, name="repository-forget"),
]
