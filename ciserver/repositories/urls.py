"""No pages yet. Git itself is served before Django, by ``ciserver.repositories.http``."""

from __future__ import annotations

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []
