"""The Celery application. Messages carry ids only; the rows they name are the truth."""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ciserver.settings")

app = Celery("gantry")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(
    [
        "ciserver.repositories",
        "ciserver.webhooks",
        "ciserver.pipelines",
        "ciserver.releases",
        "ciserver.dashboard",
        "ciserver.lib",
    ]
)
