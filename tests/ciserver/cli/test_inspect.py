"""``gantry inspect`` waits for a worker's answer and shows it."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
from django.db import connection

from ciserver.pipelines.models import Inspection
from tests.ciserver.cli.conftest import Gantry, Ran

pytestmark = pytest.mark.django_db(transaction=True)


def test_it_shows_what_the_program_said_and_ends_as_it_did(logged_in: Gantry, history: Any) -> None:
    step = history.pipelines.get(number=2).jobs.get(name="unit").steps.last()
    step.receipt = {"kept": "run-1", "kept_until": time.time() + 60}
    step.save()

    def worker() -> None:
        end = {"state": "passed", "exit_code": 4, "output": "all of it\n"}
        while not Inspection.objects.filter(state="queued").update(**end):
            time.sleep(0.05)
        connection.close()

    def inspect(*words: str) -> Ran:
        thread = threading.Thread(target=worker)
        thread.start()
        ran = logged_in("inspect", "hello", "unit", *words)
        thread.join()
        return ran

    ran = inspect("--", "sh", "-c", "ls")
    assert (ran.exit_code, ran.out) == (4, "all of it\n")
    assert Inspection.objects.get().command == ["sh", "-c", "ls"]
    ran = inspect("--json")
    told = json.loads(ran.out)
    assert (ran.exit_code, told["exit_code"], told["output"]) == (4, 4, "all of it\n")


def test_what_is_not_there_is_one_sentence(logged_in: Gantry, history: Any) -> None:
    ran = logged_in("inspect", "hello", "nothing")
    assert ran.exit_code == 4 and "has no job nothing" in ran.err
    ran = logged_in("inspect", "hello", "unit")
    assert ran.exit_code == 4 and "nothing is kept" in ran.err
