"""The facts of a pipeline that ``when`` and ``concurrency`` ask for."""

from __future__ import annotations

from collections.abc import Mapping

from ciserver.pipelines.models import Pipeline
from ciserver.pipelines.when import Trigger


def trigger_of(
    pipeline: Pipeline, inputs: Mapping[str, str], paths: frozenset[str] | None = None
) -> Trigger:
    return Trigger(
        ref=pipeline.ref,
        event=pipeline.event,
        protected=pipeline.protected,
        fork=pipeline.from_fork,
        by=pipeline.started_by,
        inputs=inputs,
        paths=paths,
    )
