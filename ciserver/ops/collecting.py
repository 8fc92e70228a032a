"""``gantry collect``: the registry's garbage, now and not when the chore comes to it."""

from __future__ import annotations

import os

from ciserver.config import Config
from ciserver.ops.errors import OpsError


def collect(config: Config, *, dry_run: bool) -> None:
    """Prints what went, or would go. Raises OpsError."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ciserver.settings")
    import django
    from django.apps import apps

    if not apps.ready:  # a second time it would tie the log to what stderr is at this moment
        django.setup()
    from ciserver.releases import garbage

    if os.geteuid() != 0:
        raise OpsError("This needs root, as the collector does.", next_step="Run it with sudo.")
    try:
        done = garbage.collect(dry_run=dry_run)
    except garbage.NotNow as why:
        sentence, _, next_step = str(why).partition(". ")
        raise OpsError(f"{sentence}.", next_step=next_step) from None
    print(done.words(dry_run=dry_run))
