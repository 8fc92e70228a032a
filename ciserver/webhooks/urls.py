"""Where forges POST to, and what a page of theirs asks."""

from __future__ import annotations

from django.urls import path

from ciserver.webhooks.pulls_views import approve_pull
from ciserver.webhooks.views import receive

urlpatterns = [
    path("hooks/<slug:forge>/<slug:slug>/", receive, name="hook"),
    path("projects/<slug:slug>/pulls/<int:pk>/approve/", approve_pull, name="approve-pull"),
]
