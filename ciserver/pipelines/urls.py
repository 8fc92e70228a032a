"""Addresses of pipeline pages."""

from __future__ import annotations

from django.urls import path

from ciserver.pipelines import (
    artifacts,
    case_pages,
    coverage_page,
    log_page,
    next_page,
    start_page,
    views,
)

_PAGE = "projects/<slug:slug>/pipelines/<int:number>/"

urlpatterns = [
    path("projects/<slug:slug>/tests/", case_pages.tests, name="project-tests"),
    path("projects/<slug:slug>/start/", start_page.page, name="start-pipeline"),
    path("projects/<slug:slug>/pipelines/next/", next_page.next_pipeline, name="next-pipeline"),
    path(
        "projects/<slug:slug>/pipelines/next/events",
        next_page.next_events,
        name="next-pipeline-events",
    ),
    path(_PAGE, views.pipeline, name="pipeline"),
    path(f"{_PAGE}events", views.pipeline_events, name="pipeline-events"),
    path(f"{_PAGE}jobs/<int:job>/log", views.log_before, name="pipeline-log"),
    path(f"{_PAGE}jobs/<int:job>/lines", log_page.lines, name="pipeline-lines"),
    path(f"{_PAGE}artifacts/<int:pk>", artifacts.download, name="artifact"),
    path(f"{_PAGE}run-again/", views.run_again, name="pipeline-run-again"),
    path(f"{_PAGE}coverage/", coverage_page.coverage_page, name="pipeline-coverage"),
    path(f"{_PAGE}cancel/", views.cancel, name="pipeline-cancel"),
]
