"""The Celery application. Messages carry ids only; the rows they name are the truth."""

from __future__ import annotations

import os

from celery import Celery
from celery.signals import import_modules, worker_init

from ciserver.lib import loading

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ciserver.settings")
# Django's checks load every page and the API, which no worker answers: half of a worker's start.
os.environ.setdefault("CELERY_SKIP_CHECKS", "1")

import_modules.connect(loading.begin)  # before what it announces is connected
worker_init.connect(loading.done)

app = Celery("gantry")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()  # of every app: one that is left out drops its work without a word
