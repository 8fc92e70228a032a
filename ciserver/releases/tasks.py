"""Celery tasks of releases: each loads by id and calls on."""

from __future__ import annotations

from celery.signals import worker_ready, worker_shutdown
from django.conf import settings

from ciserver.celery import app
from ciserver.lib import outbox
from ciserver.pipelines.models import Pipeline
from ciserver.releases import (
    domains,
    drift,
    garbage,
    host_images,
    orphans,
    queue,
    removal,
    restoring,
    retention,
    runner,
    services,
    visits,
)
from ciserver.releases.targets import masters


@app.task(name="ciserver.releases.tasks.release")
def release(pipeline_id: int) -> None:
    """Make the release of a pipeline that passed."""
    if pipeline := Pipeline.objects.filter(pk=pipeline_id).first():
        services.make_release(pipeline)
    outbox.keep("pipeline.passed", pipeline_id)


@app.task(name="ciserver.releases.tasks.deploy")
def deploy(deployment_id: int) -> None:
    """Do a queued deployment."""
    runner.deploy(deployment_id)


@app.task(name="ciserver.releases.tasks.restore_routes")
def restore_routes() -> None:
    """Make hosts serve what their rows say."""
    restoring.restore_routes()


@app.task(name="ciserver.releases.tasks.restore_environment")
def restore_environment(environment_id: int) -> None:
    """Make the hosts of one environment serve what its rows say, its domains among them."""
    outbox.keep(domains.TOPIC, environment_id)  # what is changed from now on is asked for anew
    restoring.restore_environment(environment_id)


@app.task(name="ciserver.releases.tasks.prune_images")
def prune_images(environment_id: int) -> None:
    """Take images of earlier releases from an environment's hosts."""
    outbox.keep(queue.DEPLOYED, environment_id)
    host_images.prune(environment_id)


@app.task(name="ciserver.releases.tasks.look")
def look() -> None:
    """Find what runs and should not, or should and does not."""
    drift.look()


@app.task(name="ciserver.releases.tasks.visit_host")
def visit_host(host_id: int) -> None:
    """Check or prepare a host."""
    visits.visit(host_id)


@app.task(name="ciserver.releases.tasks.retire")
def retire() -> None:
    """Take images that nothing needs any more out of the registry, and off its disk."""
    garbage.tidy(deleted=retention.retire() + orphans.remove())


@app.task(name="ciserver.releases.tasks.remove_environment")
def remove_environment(environment_id: int) -> None:
    """Take an environment from its hosts, and forget it."""
    removal.remove_environment(environment_id)


@app.task(name="ciserver.releases.tasks.delete_project")
def delete_project(project_id: int) -> None:
    """Delete a project whose time has come, with all that it has."""
    removal.delete_project(project_id)


@app.task(name="ciserver.releases.tasks.remove_all")
def remove_all() -> None:
    """Whatever is wanted gone and is still there."""
    removal.remove_all()


@worker_ready.connect
def _restore_at_start(**_: object) -> None:
    restore_routes.delay()


@worker_shutdown.connect
def _leave_hosts(**_: object) -> None:
    masters.end_kept(settings.GANTRY.run)
