"""ASGI entry point: pages, API, Git over HTTP and event streams."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ciserver.settings")
django = get_asgi_application()

# Models may be imported only now that Django is set up.
from ciserver.lib import outbox  # noqa: E402
from ciserver.lib.bodies import LimitBodies  # noqa: E402
from ciserver.repositories.http import GitHttp  # noqa: E402
from ciserver.webhooks.following import follow  # noqa: E402
from ciserver.webhooks.one_thread import OneThread, Split  # noqa: E402
from ciserver.webhooks.services import ingest_push  # noqa: E402
from ciserver.webhooks.views import MAX_BODY  # noqa: E402

outbox.wake_in_background()
pages_and_hooks = Split(django, OneThread(), "/hooks/")
limited = LimitBodies(pages_and_hooks, {"/hooks/": MAX_BODY})
application = GitHttp(limited, ingest=ingest_push, follow=follow)
