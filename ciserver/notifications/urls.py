"""Addresses of commit statuses."""

from __future__ import annotations

from django.urls import path

from ciserver.notifications import views

urlpatterns = [
    path("projects/<slug:slug>/statuses/", views.statuses, name="statuses"),
    path("projects/<slug:slug>/statuses/remove/", views.remove, name="remove-statuses"),
]
