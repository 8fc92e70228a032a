"""Addresses of release pages."""

from __future__ import annotations

from django.urls import path

from ciserver.releases import views

_PAGE = "projects/<slug:slug>/releases/<int:number>/"

urlpatterns = [
    path(_PAGE, views.release, name="release"),
    path(f"{_PAGE}promote/<slug:environment>/", views.promote, name="promote"),
    path(f"{_PAGE}roll-back/<slug:environment>/", views.roll_back, name="roll-back"),
]
