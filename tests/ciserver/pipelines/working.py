"""Run as ``python -m tests.ciserver.pipelines.working ID AREA REGISTRY``: a worker to be killed."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import django


def workshop_in(area: Path, registry: str) -> Any:
    """A worker's workshop whose store, sandboxes and caches are in ``area``."""
    from django.conf import settings

    from builders.images.store import Store
    from builders.registry import Registry
    from builders.resolve import Resolver
    from ciserver.pipelines.runner.workshop import Workshop
    from runtime.state import StateDirectory

    (area / "run").mkdir(exist_ok=True)
    store = Store(area / "store")
    return Workshop(
        config=replace(settings.GANTRY, home=area, registry=registry),
        store=store,
        state=StateDirectory(area / "sandboxes"),
        registry=Registry(registry),
        resolver=Resolver(store, upstream=False),
    )


def main(pipeline_id: int, area: Path, registry: str) -> None:
    django.setup()
    from ciserver.pipelines.runner import story

    workshop = workshop_in(area, registry)
    story.open_workshop = lambda: workshop  # type: ignore[assignment]
    story.run(pipeline_id)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
