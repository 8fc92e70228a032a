"""Celery tasks of the dashboard: each loads by id and calls on."""

from __future__ import annotations

from ciserver.celery import app
from ciserver.dashboard import image_reading
from ciserver.lib import outbox
from ciserver.pipelines.models import Pipeline


@app.task(name="ciserver.dashboard.tasks.read_images")
def read_images(pipeline_id: int) -> None:
    """Write down what the images of a pipeline hold."""
    row = Pipeline.objects.select_related("project").filter(pk=pipeline_id).first()
    if row is not None:
        image_reading.read(row)
    outbox.keep(image_reading.TOPIC, pipeline_id)
