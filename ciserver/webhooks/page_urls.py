"""Addresses of the ledger's pages."""

from __future__ import annotations

from django.urls import path

from ciserver.webhooks import pages, trial_views

urlpatterns = [
    path("projects/<slug:slug>/hook-test/", trial_views.test_hook, name="test-hook"),
    path("projects/<slug:slug>/deliveries/", pages.listing, name="deliveries"),
    path("projects/<slug:slug>/deliveries/<int:number>/", pages.detail, name="delivery"),
    path(
        "projects/<slug:slug>/deliveries/<int:number>/redeliver/",
        pages.redeliver,
        name="redeliver",
    ),
]
