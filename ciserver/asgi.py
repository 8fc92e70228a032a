"""ASGI entry point: pages, API, Git over HTTP and event streams."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ciserver.settings")
application = get_asgi_application()
