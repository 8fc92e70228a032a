"""Where forges POST to."""

from __future__ import annotations

from django.urls import path

from ciserver.webhooks.views import receive

urlpatterns = [path("<slug:forge>/<slug:slug>/", receive, name="hook")]
