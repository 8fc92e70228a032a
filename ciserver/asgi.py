"""ASGI entry point: pages, API, Git over HTTP and event streams."""

from __future__ import annotations

import os
from importlib import import_module

from django.conf import settings
from django.core.asgi import get_asgi_application

from ciserver.lib.asgi import App

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ciserver.settings")


def _application() -> App:
    django = get_asgi_application()
    # Models may be imported only now that Django is set up.
    from ciserver.lib import outbox
    from ciserver.lib.bodies import LimitBodies
    from ciserver.repositories.http import GitHttp
    from ciserver.webhooks.asgi import Hooks
    from ciserver.webhooks.following import follow
    from ciserver.webhooks.intake import MAX_BODY
    from ciserver.webhooks.services import ingest_push

    import_module(settings.ROOT_URLCONF)  # now, and not while the first who comes waits
    outbox.wake_in_background()
    limited = LimitBodies(Hooks(django), {"/hooks/": MAX_BODY})
    return GitHttp(limited, ingest=ingest_push, follow=follow)


application = _application()
