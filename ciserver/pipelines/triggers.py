"""The facts of a pipeline that ``when`` and ``concurrency`` ask for, and its tests are told."""

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


def told(pipeline: Pipeline) -> dict[str, str]:
    """Variables that every test has, unless it sets them itself."""
    names = trigger_of(pipeline, {}).names
    return {
        "CI": "true",  # many programs ask nobody anything then
        "GANTRY_PROJECT": pipeline.project.slug,
        "GANTRY_PIPELINE": str(pipeline.number),
        "GANTRY_COMMIT": pipeline.commit,
        "GANTRY_REF": pipeline.ref,
        "GANTRY_BRANCH": names["branch"] if pipeline.ref.startswith("refs/heads/") else "",
        "GANTRY_TAG": names["tag"],
        "GANTRY_EVENT": pipeline.event,
        "GANTRY_PULL_REQUEST": str(pipeline.pull_request or ""),
    }
