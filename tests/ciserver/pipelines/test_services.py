"""Services beside tests, in real sandboxes: by name, in order, waited for, told when they fail."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from django.db import connection

from ciserver.lib.crypto import Secret
from ciserver.pipelines import logs, services
from ciserver.pipelines.definition import parse
from ciserver.pipelines.models import Pipeline
from ciserver.pipelines.runner import services as service_runner
from ciserver.pipelines.runner import story
from ciserver.pipelines.runner.plan import planned
from ciserver.pipelines.runner.work import limits_of_job
from ciserver.projects.models import ProjectSecret
from runtime.spec import Limits
from tests.ciserver.pipelines.workplace import Workplace, log_of

pytestmark = [pytest.mark.root, pytest.mark.django_db(transaction=True)]

SMALL = "memory: 64m, cpus: 0.5, pids: 32"
# A name that glibc would look up at a name server first is found all the same by busybox.
DOCKERFILE = """
FROM busybox AS base
RUN echo 'hosts: files' > /etc/nsswitch.conf
FROM base AS web
COPY page /www/index.html
EXPOSE 8080
CMD ["httpd", "-f", "-p", "8080", "-h", "/www"]
FROM base AS checked
HEALTHCHECK --interval=1s CMD test -e /tmp/up
CMD ["sh", "-c", "sleep 0.3; touch /tmp/up; exec sleep 60"]
FROM base
"""
FILES = {"Dockerfile": DOCKERFILE, "page": "hello from a service\n"}


def run(workplace: Workplace, definition: str) -> Pipeline:
    return workplace.run(FILES | {"gantry.yml": definition})


def test_a_test_reaches_its_services_by_name_once_they_are_ready(
    workplace: Workplace, client: Any, alice: Any
) -> None:
    pipeline = run(
        workplace,
        f"""
services:
  web: {{stage: web, {SMALL}}}
tests:
  unit:
    command: "wget -q -O - http://web:8080/; wget -q -O - http://late:9000/"
    {SMALL.replace(", ", chr(10) + "    ")}
    services:
      web:
      late:
        stage: base
        entrypoint: [sh, -c]
        command:
          - sleep 0.5; wget -q -O /tmp/index.html http://web:8080; exec httpd -f -p 9000 -h /tmp
        healthcheck: {{http: 9000/index.html}}
        depends_on: [web]
        memory: 64m
        cpus: 0.5
""",
    )
    job = pipeline.jobs.get(name="unit")
    assert (job.state, job.reason) == ("passed", "")
    log = log_of(job)
    assert log.count("out hello from a service") == 2
    assert "1 sys web: web" in log
    steps = list(job.steps.all())
    assert [step.text.partition(":")[0] for step in steps][:2] == ["web", "late"]
    assert [step.state for step in steps] == ["passed"] * 3
    assert [step.receipt["outcome"] for step in steps] == ["stopped", "stopped", "exited"]
    assert steps[0].receipt["peak_memory"] > 0
    assert job.options["services"]["late"]["limits"]["memory"] == 64 << 20
    client.force_login(alice)
    page = client.get(f"{pipeline.get_absolute_url()}?job=unit").content.decode()
    assert page.count("with the test") == 2


NEVER_READY = [
    (
        "command: [sh, -c, 'echo no such table; exit 3']",
        "The service db ended with exit code 3 before it was ready.",
    ),
    (
        "command: [sh, -c, 'echo waiting; sleep 60'], healthcheck: {tcp: 5432, retries: 3}",
        "The service db was not ready within 3 s: nothing listens on port 5432.",
    ),
    (
        "command: [sleep, '60'], healthcheck: {tcp: 1, retries: 1, start_period: 2s}",
        "The service db was not ready within 3 s: nothing listens on port 1.",
    ),
    (
        "command: [sleep, '60'], healthcheck: {tcp: 1, retries: 2, interval: 2s}",
        "The service db was not ready within 4 s: nothing listens on port 1.",
    ),
    (
        "command: [sleep, '60'], healthcheck: {test: 'echo not yet; false', retries: 3}",
        "The service db was not ready within 3 s: its health check ended with exit code 1:"
        " not yet.",
    ),
    (
        "command: [httpd, -f, -p, '80'], healthcheck: {http: 80/none, retries: 3}",
        "The service db was not ready within 3 s: GET /none on port 80 is answered with 404.",
    ),
    (
        "command: [nc, -ll, -p, '80', -e, echo, x], healthcheck: {http: '80', retries: 3}",
        "The service db was not ready within 3 s: GET / on port 80 has no answer: what"
        " answered does not speak HTTP.",
    ),
    (
        "command: [sh, -c, 'echo starting; sleep 60'], healthcheck: {log: up and, retries: 3}",
        "The service db was not ready within 3 s: its log has not said 'up and'.",
    ),
    (
        "command: [httpd, -f, -p, '127.0.0.1:80'], healthcheck: {tcp: 80, retries: 3}",
        "The service db was not ready within 3 s: nothing listens on port 80.",
    ),
    (
        "command: [sh, -c, 'sleep 1; exec tail /dev/zero'], memory: 16m, healthcheck: {tcp: 1}",
        "The service db was ended, out of memory: memory limit of 16 MiB reached, tail (pid 1) was"
        " killed before it was ready.",
    ),
    (
        "command: 'sh -c \"oops'",
        "The service db could not be run (The command 'sh -c \"oops' cannot be split into"
        " words: No closing quotation) before it was ready.",
    ),
    ("image: 'busybox:none'", "The image busybox:none is not in the store"),
    ("user: nosuch", "The service db could not be run (The image has no user 'nosuch') before"),
]


def test_a_service_that_never_gets_ready_fails_the_job_and_says_why(workplace: Workplace) -> None:
    """A job for each of the ways, side by side."""
    few = "cpus: 0.1, pids: 16"
    tests = "".join(
        f"  way-{number}: {{command: 'true', memory: 64m, {few},"
        f" services: {{db: {{{service}, {few}}}}}}}\n"
        for number, (service, _) in enumerate(NEVER_READY)
    )
    pipeline = run(workplace, f"tests:\n{tests}")
    for number, (service, reason) in enumerate(NEVER_READY):
        job = pipeline.jobs.get(name=f"way-{number}")
        assert (job.state, job.reason.startswith(reason)) == ("failed", True), job.reason
        assert job.place.startswith(f"gantry.yml: tests.way-{number}.services.db")
        if not job.excerpt and "never" not in reason and "image" not in reason:
            told = {"oops": "Write it as a list of words.", "nosuch": "Create it first"}
            hint = next((words for part, words in told.items() if part in service), "It logged no")
            assert job.hint.startswith(hint)
        if "sh, -c, 'echo" in service:
            assert job.excerpt in {"no such table", "waiting", "starting"}
            assert job.steps.get(position=1).state == "failed"


CANNOT_RUN = {
    "user: nosuch": ("The image has no user 'nosuch'.", "Create it first, or use a number."),
    "user: '99999999999'": ("User or group id 99999999999 is outside", "Use an id from 0 to 65535"),
    "working_dir: /proc/self/fd/8": (
        "The working directory may not be in /proc",
        "Use a directory",
    ),
    "working_dir: /bin/busybox": ("The working directory /bin/busybox is no", "Name a directory"),
    "entrypoint: [/no/such]": (
        "The command ended with exit code 127 (/no/such: not found).",
        "Name a",
    ),
    "entrypoint: [/etc/nsswitch.conf]": (
        "The command ended with exit code 126 (/etc",
        "Name a prog",
    ),
}


def test_what_a_test_cannot_be_run_with_is_told_with_its_place_and_the_next_step(
    workplace: Workplace,
) -> None:
    tests = "".join(
        f"  way-{number}: {{command: 'true', memory: 64m, cpus: 0.2, {asked}}}\n"
        for number, asked in enumerate(CANNOT_RUN)
    )
    pipeline = run(workplace, f"tests:\n{tests}")
    for number, (reason, hint) in enumerate(CANNOT_RUN.values()):
        job = pipeline.jobs.get(name=f"way-{number}")
        assert (job.state, job.reason.startswith(reason)) == ("failed", True), job.reason
        assert job.hint.startswith(hint), job.hint
        if "exit code" not in reason:
            assert job.place == f"gantry.yml: tests.way-{number}"


def test_log_image_and_exec_checks_let_a_test_begin(workplace: Workplace) -> None:
    pipeline = run(
        workplace,
        f"""
tests:
  unit:
    command: "true"
    services:
      image: {{stage: checked, {SMALL}}}
      log: {{command: [sh, -c, "echo it is up; sleep 60"], healthcheck: {{log: is up}}}}
      exec: {{command: [sleep, "60"], healthcheck: {{test: [CMD, test, -d, /proc]}}, {SMALL}}}
      once: {{command: [touch, /tmp/x], {SMALL}}}
      none: {{command: [sleep, "60"], {SMALL}}}
""",
    )
    job = pipeline.jobs.get(name="unit")
    assert (job.state, job.reason) == ("passed", "")
    log = log_of(job)
    for words in (
        "its health check passes",
        "its log says 'is up'",
        "its process runs",
    ):
        assert words in log
    # What ended at once was ready by that, unless it was found at work still.
    assert "4 sys Done." in log or "4 sys Ready after" in log
    assert "The service once ended with exit code 0 while the test ran." in log


def test_what_need_only_be_started_is_not_waited_for(workplace: Workplace) -> None:
    """Neither by another service nor by the test: its check never passes."""
    never = "{command: [sleep, '60'], healthcheck: {tcp: 1}, memory: 64m, cpus: 0.5}"
    pipeline = run(
        workplace,
        f"""
services:
  never: {never}
  also: {never}
  web: {{stage: web, depends_on: {{never: {{condition: service_started}}}}, {SMALL}}}
tests:
  unit:
    command: "wget -q -O - http://web:8080"
    services: [web, also]
    depends_on: {{also: {{condition: service_started}}, web: {{condition: service_healthy}}}}
""",
    )
    job = pipeline.jobs.get(name="unit")
    assert (job.state, job.reason) == ("passed", "")
    steps = {step.text.partition(":")[0]: step for step in job.steps.all()}
    assert steps["never"].receipt["outcome"] == "stopped"


def test_what_must_complete_first_is_waited_for_in_order(workplace: Workplace) -> None:
    pipeline = run(
        workplace,
        f"""
services:
  web: {{stage: web, {SMALL}}}
  migrate:
    command: [sh, -c, "sleep 0.4; wget -q -O - http://web:8080 && echo migrated"]
    depends_on: [web]
    memory: 64m
tests:
  unit:
    command: "echo tested"
    services: [migrate]
    depends_on: {{migrate: {{condition: service_completed_successfully}}}}
""",
    )
    job = pipeline.jobs.get(name="unit")
    assert (job.state, job.reason) == ("passed", "")
    log = log_of(job)
    assert log.index("out hello") < log.index("out migrated") < log.index("out tested")


def test_secrets_of_a_service_are_its_own_and_masked_in_its_log(workplace: Workplace) -> None:
    secret = ProjectSecret(project=workplace.project, name="PASSWORD")
    secret.put(Secret("correct-horse"))
    secret.save()
    pipeline = run(
        workplace,
        """
tests:
  unit:
    command: 'echo "mine: $PASSWORD"; ls /run/secrets || true'
    services:
      db:
        command: [sh, -c, "cat /run/secrets/PASSWORD; echo; echo up $PASSWORD; exec sleep 60"]
        secrets: [PASSWORD]
        healthcheck: {log: "up "}
        memory: 64m
""",
    )
    job = pipeline.jobs.get(name="unit")
    assert (job.state, job.reason) == ("passed", "")
    assert "correct-horse" not in job.log_path.read_text()
    assert "2 out mine: \n" in log_of(job) + "\n"


def test_a_noisy_service_takes_nothing_of_its_tests_log(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_runner, "SERVICE_CAP", 100_000)
    monkeypatch.setitem(logs.LogWriter.__init__.__kwdefaults__, "cap", 100_000)
    pipeline = run(
        workplace,
        f"""
services:
  noisy:
    stage: base
    command: [sh, -c, 'seq 1000000 1400000; touch /tmp/done; exec sleep 60']
    healthcheck: {{test: test -e /tmp/done}}
    {SMALL.replace(", ", chr(10) + "    ")}
tests:
  unit: {{command: seq 5000, services: [noisy], {SMALL}}}
""",
    )
    job = pipeline.jobs.get(name="unit")
    assert (job.state, job.reason) == ("passed", "")
    lines = list(logs.LogReader(job.log_path))
    own = [line.text for line in lines if (line.step, line.stream) == (2, "out")]
    assert own == [str(number) for number in range(1, 5001)]
    kept = [int(line.text) for line in lines if (line.step, line.stream) == (1, "out")]
    assert kept[-1] == 1_400_000
    said = [line.text for line in lines if (line.step, line.stream) == (1, "sys")]
    assert "[100000 bytes of a service's output are kept: of what follows, only its end]" in said
    missing = (400_001 - len(kept)) * 8
    assert f"[{missing} bytes were written here and are not kept]" in said


def test_one_that_dies_while_the_test_runs_is_told_beside_its_failure(
    workplace: Workplace,
) -> None:
    serve = "echo up; nc -l -p 80 < /dev/null"
    pipeline = run(
        workplace,
        f"""
tests:
  unit:
    command: "for it in db web; do until nc $it 80; do sleep 0.1; done; done; sleep 2; exit 4"
    services:  # each serves once
      db: {{command: [sh, -c, "{serve}; exit 9"], healthcheck: {{log: up}}, {SMALL}}}
      web: {{command: [sh, -c, "{serve}"], healthcheck: {{log: up}}, {SMALL}}}
      once: {{command: ["true"], {SMALL}}}
    depends_on: {{once: {{condition: service_completed_successfully}}}}
""",
    )
    job = pipeline.jobs.get(name="unit")
    assert job.reason == (
        "The command ended with exit code 4."
        " The service db ended with exit code 9 while the test ran."
        " The service web ended with exit code 0 while the test ran."  # a daemon that forked
    )


def test_a_retry_begins_with_fresh_services(workplace: Workplace) -> None:
    pipeline = run(
        workplace,
        """
tests:
  unit:
    command: "false"
    retries: 1
    services:
      db:
        command: [sh, -c, "ls /tmp; touch /tmp/old; echo up; exec sleep 60"]
        healthcheck: {log: up}
""",
    )
    job = pipeline.jobs.get(name="unit")
    assert [step.position for step in job.steps.all()] == [1, 2, 3, 4]
    assert "old" not in log_of(job).replace("touch /tmp/old", "")


def test_cancelling_ends_test_and_services_within_seconds(workplace: Workplace) -> None:
    pipeline = workplace.queue(
        FILES
        | {
            "gantry.yml": "tests: {unit: {command: 'true', services: {db: {command: [sleep, '60'],"
            " healthcheck: {tcp: 1}}}}}"
        }
    )

    def cancel() -> None:
        while not pipeline.jobs.filter(name="unit", state="running").exists():
            time.sleep(0.1)
        services.cancel(pipeline=Pipeline.objects.get(pk=pipeline.pk), by="alice")
        connection.close()

    thread = threading.Thread(target=cancel)
    thread.start()
    began = time.monotonic()
    story.run(pipeline.pk)
    thread.join()
    pipeline.refresh_from_db()
    assert pipeline.state == "cancelled"
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("asked", "reached"), [("network: none", False), ("network: egress", True)]
)
def test_a_test_has_a_way_out_only_when_it_asks(
    workplace: Workplace, asked: str, reached: bool
) -> None:
    pipeline = run(
        workplace,
        f"""
tests:
  unit:
    command: "ip route | grep -q default"
    {asked}
  beside:
    command: "ip route | grep -q default"
    {asked}
    services: {{db: {{command: [sleep, "60"]}}}}
""",
    )
    states = {job.name: job.state for job in pipeline.jobs.filter(kind="test")}
    assert states == dict.fromkeys(("unit", "beside"), "passed" if reached else "failed")


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        ("services: {db: {memory: 900g}}", "gantry.yml: tests.unit.services.db.memory"),
        ("services: [big]", "gantry.yml: services.big.pids"),
        ("services: {db: {stage: none}}", "gantry.yml: tests.unit.services.db.stage"),
        ("services: {db: {secrets: [X]}}", "gantry.yml: tests.unit.services.db.secrets"),
    ],
)
def test_what_a_service_may_not_have_is_refused_at_its_place(
    workplace: Workplace, asked: str, place: str
) -> None:
    shared = "services: {big: {pids: 100000}}\n" if "big" in asked else ""
    pipeline = run(workplace, f"{shared}tests: {{unit: {{command: 'true', {asked}}}}}")
    assert (pipeline.state, pipeline.place) == ("failed", place)


def test_services_count_in_the_pipelines_one_budget() -> None:
    definition = parse("tests: {a: {memory: 64m, services: {b: {memory: 32m, pids: 10}}}}")
    plan = planned(definition, definition.tests or {})
    limits = limits_of_job(plan, "a", Limits())
    assert (limits.memory, limits.pids, limits.cpus) == (96 << 20, 266, 2)


def test_a_matrix_chooses_images_of_services() -> None:
    definition = parse(
        "services: {db: {image: 'postgres:${PG}'}}\n"
        "tests: {a: {matrix: {PG: [15, 16]}, services: {db: , x: {image: 'x:${PG}'}}}}"
    )
    plan = planned(definition, definition.tests or {})
    chosen = [
        [one.service.image for one in plan.services[job].values()] for job in ("a (15)", "a (16)")
    ]
    assert chosen == [["postgres:15", "x:15"], ["postgres:16", "x:16"]]
