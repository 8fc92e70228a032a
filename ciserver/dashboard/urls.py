"""Addresses of the pages that cross apps."""

from __future__ import annotations

from django.urls import path

from ciserver.dashboard import (
    audit,
    badge,
    discovery,
    image_pages,
    lists,
    metrics,
    search_pages,
    views,
)

urlpatterns = [
    path("metrics", metrics.metrics, name="metrics"),
    path("cctray.xml", discovery.cctray, name="cctray"),
    path("", views.matrix, name="matrix"),
    path("new-project/", views.new_project, name="new-project"),
    path("projects/<slug:slug>/", views.project, name="project"),
    path("projects/<slug:slug>/pipelines/", lists.pipelines, name="pipelines"),
    path("projects/<slug:slug>/releases/", lists.releases, name="releases"),
    path("projects/<slug:slug>/hook-secret/", views.hook_secret, name="hook-secret"),
    path("projects/<slug:slug>/badge/<slug:key>.svg", badge.badge, name="badge"),
    path("search/", search_pages.page, name="search"),
    path("registry/", image_pages.registry, name="registry"),
    path("projects/<slug:slug>/images/", image_pages.project_images, name="images"),
    path("projects/<slug:slug>/images/compare/", image_pages.compare, name="compare-images"),
    path("projects/<slug:slug>/images/<str:digest>/", image_pages.image, name="image"),
    path("audit/", audit.page, name="audit"),
    path("projects/<slug:slug>/audit/", audit.page, name="project-audit"),
]
