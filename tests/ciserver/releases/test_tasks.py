"""What is short and waited for never stands in line behind a build."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings

from ciserver.celery import app
from ciserver.lib import outbox

CHORES = [
    "ciserver.releases.tasks.restore_routes",
    "ciserver.releases.tasks.look",
    "ciserver.releases.tasks.retire",
    "ciserver.pipelines.tasks.tidy",
]


def queue_of(task: str) -> str:
    return str(app.amqp.router.route({}, task)["queue"].name)


def test_every_promise_wakes_the_worker_of_its_queue(db: None) -> None:
    queues = {topic: queue_of(task) for topic, task in settings.OUTBOX_TASKS.items()}
    assert queues == {
        "delivery.accepted": "planning",
        "pipeline.queued": "default",
        "pipeline.passed": "chores",
        "deployment.queued": "deployments",
        "host.asked": "deployments",
        "inspection.asked": "chores",
        "environment.routes": "chores",
        "environment.deployed": "chores",
        "environment.remove": "chores",
        "project.delete": "chores",
        "image.pushed": "planning",
    }


@pytest.mark.parametrize("task", CHORES)
def test_chores_do_not_wait_for_builds(task: str) -> None:
    app.loader.import_default_modules()
    assert task in app.tasks
    assert queue_of(task) == "chores"


def test_a_promise_is_sent_by_name_and_routed_all_the_same(
    db: None, monkeypatch: Any, django_capture_on_commit_callbacks: Any
) -> None:
    sent: list[str] = []

    def send(producer: Any, name: str, message: Any, **options: Any) -> None:
        sent.append(options["queue"].name)

    monkeypatch.setattr(app.amqp, "send_task_message", send)
    with django_capture_on_commit_callbacks(execute=True):
        outbox.promise("deployment.queued", 1)
    assert sent == ["deployments"]
