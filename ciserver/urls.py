"""Every address of the service: pages, API, Git and webhooks."""

from __future__ import annotations

from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView

from ciserver.dashboard.views import api_docs
from ciserver.lib.health import healthz, readyz

urlpatterns = [
    path("healthz", healthz),
    path("readyz", readyz),
    path("api/v1/", include("ciserver.api_urls")),
    path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
    path("git/", include("ciserver.repositories.urls")),
    path("hooks/", include("ciserver.webhooks.urls")),
    path("", include("ciserver.accounts.urls")),
    path("", include("ciserver.pipelines.urls")),
    path("", include("ciserver.releases.urls")),
    path("", include("ciserver.dashboard.urls")),
]
