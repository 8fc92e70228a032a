"""The Celery application. Messages carry ids only; the rows they name are the truth."""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ciserver.settings")
# Django's checks load every page and the API, which no worker answers: half of a worker's start.
os.environ.setdefault("CELERY_SKIP_CHECKS", "1")

app = Celery("gantry")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()  # of every app: one that is left out drops its work without a word
