"""Every address of the service: pages, API, Git and webhooks."""

from __future__ import annotations

from django.urls import include, path

from ciserver.lib import api_docs
from ciserver.lib.health import healthz, readyz

urlpatterns = [
    path("healthz", healthz),
    path("readyz", readyz),
    path("api/v1/", include("ciserver.api_urls")),
    path("api/schema/", api_docs.Document.as_view(), name="schema"),
    path("api/docs/", api_docs.docs, name="api-docs"),
    path("api/docs/<slug:tag>/", api_docs.group, name="api-docs-of"),
    path("", include("ciserver.repositories.urls")),
    path("", include("ciserver.notifications.urls")),
    path("", include("ciserver.webhooks.urls")),
    path("", include("ciserver.accounts.urls")),
    path("", include("ciserver.projects.urls")),
    path("", include("ciserver.pipelines.urls")),
    path("", include("ciserver.releases.urls")),
    path("", include("ciserver.webhooks.page_urls")),
    path("", include("ciserver.dashboard.urls")),
]

handler404 = "ciserver.lib.problems.not_found"
handler500 = "ciserver.lib.error_pages.broken"
