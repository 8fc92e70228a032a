"""Addresses of commit statuses and of webhooks that go out."""

from __future__ import annotations

from django.urls import path

from ciserver.notifications import views, webhook_views

urlpatterns = [
    path("projects/<slug:slug>/statuses/", views.statuses, name="statuses"),
    path("projects/<slug:slug>/statuses/remove/", views.remove, name="remove-statuses"),
    path("projects/<slug:slug>/webhooks/", webhook_views.webhooks, name="webhooks"),
    path("projects/<slug:slug>/webhooks/<int:pk>/", webhook_views.act, name="webhook"),
]
