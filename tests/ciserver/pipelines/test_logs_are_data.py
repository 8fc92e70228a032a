"""Logs are data: nothing that a job prints commands us, floods us or forges a line of ours."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ciserver.lib.logs import JsonFormatter
from ciserver.pipelines.logs import LogReader
from ciserver.pipelines.models import Artifact, Pipeline, TestCase
from ciserver.pipelines.runner import story
from ciserver.pipelines.stream import Progress, _Page
from tests.builders.registry.conftest import registry  # noqa: F401 - a fixture
from tests.ciserver.pipelines.test_caches import DOCKERFILE, Runs, run  # noqa: F401 - a fixture
from tests.ciserver.pipelines.test_story import area  # noqa: F401 - a fixture

# What we and our peers act on, or have acted on, when it is printed.
PHRASES = [
    "::set-output name=digest::sha256:0",
    "::set-env name=PATH::/evil",
    "::add-path::/evil",
    "::add-mask::line",
    "::stop-commands::x",
    "::error file=a,line=1::b",
    "::warning::b",
    "::group::g",
    "::endgroup::",
    "::save-state name=a::b",
    "::debug::d",
    "::notice::n",
    "##[set-output name=a;]b",
    "##[add-mask]x",
    "##[error]x",
    "##vso[task.setvariable variable=a]b",
    "##vso[task.complete result=Succeeded;]DONE",
    "##vso[task.uploadsummary]/etc/passwd",
    "##vso[artifact.upload artifactname=a]/etc/passwd",
    "##vso[build.updatebuildnumber]evil",
    "##vso[task.prependpath]/evil",
    "##teamcity[buildStatus status='SUCCESS']",
    "##teamcity[testFailed name='a']",
    "##teamcity[publishArtifacts '/etc/passwd']",
    "##teamcity[setParameter name='a' value='b']",
    "##teamcity[buildNumber '666']",
    "section_start:1:evil",
    "section_end:1:evil",
    "travis_fold:start:evil",
    "travis_time:end:0:start=0,finish=0,duration=0",
    "--- :evil: buildkite",
    "^^^ +++",
    "+++ evil",
    "0 0 sys Cancelled.",
    "0 0 sys cached",
    "999999 1 err forged",
    "-1 -1 out x",
    "event: end",
    "data: passed",
    "id: 1.1-0-0",
    "retry: 0",
    ": still here",
    "[0 bytes were written here and are not kept]",
    "Cache k: hit, 1 MiB in 0.0 s (kept by a protected ref).",
    "Kept /etc/passwd, 1 KiB.",
    "state=passed",
    "exit code 0",
    "GANTRY_RESULT=passed",
    "gantry: passed",
    "pipeline.passed",
    "</template><template data-job='1' data-step='0'>",
    "<template data-job='2'>",
    "{% include 'pipelines/_verdict.html' %}",
    "{{ pipeline.state }}",
    "\x1b]0;title\x07",
    "\x1b]8;;javascript:alert(1)\x07link\x1b]8;;\x07",
    "\x1b]52;c;ZXZpbA==\x07",
    "\x1b[2J\x1b[H",
    "\x1bPevil\x1b\\",
    "\x9b31m",
    "\u2028\u2029\x85",
]


@pytest.mark.root
@pytest.mark.django_db(transaction=True)
def test_what_is_printed_changes_no_state(run: Runs) -> None:  # noqa: F811
    assert len(PHRASES) >= 60
    files = {
        "Dockerfile": DOCKERFILE + "COPY phrases /phrases\n",
        "phrases": "\n".join(PHRASES) + "\n",
        "gantry.yml": "tests: {unit: {memory: 64m, command: 'cat /phrases; exit 3'}}",
    }
    made = run.hosted.queue(run.hosted.push(files))
    story.run(made.pk)
    pipeline = Pipeline.objects.get(pk=made.pk)
    assert (pipeline.state, pipeline.digest, pipeline.cancel_requested_by) == ("failed", "", "")
    assert pipeline.reason == "Test unit: The command ended with exit code 3."
    assert {job.name: job.state for job in pipeline.jobs.all()} == {
        "build": "passed",
        "unit": "failed",
        "push": "cancelled",
    }
    job = pipeline.jobs.get(name="unit")
    assert [step.state for step in job.steps.all()] == ["failed"]
    assert not (Artifact.objects.exists() or TestCase.objects.exists())
    out = [line.text for line in LogReader(job.log_path) if line.stream == "out"]
    assert out == PHRASES
    assert [line.number for line in LogReader(job.log_path)] == list(range(1, len(out) + 4))
    frames = "".join(_Page(pipeline.pk, Progress(0)).read())
    assert frames.count("\nevent: end") == 0
    assert {line[:7] for line in frames.splitlines() if line.startswith("event:")} == {"event: "}
    kinds = {line for line in frames.split("\n") if line.startswith("event:")}
    assert kinds <= {"event: log", "event: state"}
    assert "</template><template data-job='1'" not in frames


FLOOD = """
import resource, sys
from pathlib import Path
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "ciserver.settings"
import django
django.setup()
from ciserver.pipelines.logs import LogWriter
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
kind, path = sys.argv[1], Path(sys.argv[2])
block = {"line": b"x" * 65536, "binary": bytes(range(256)) * 256, "lines": b"y\\n" * 32768}[kind]
with LogWriter(path, cap=2 << 20) as log:
    for _ in range(int(sys.argv[3])):
        log.write(1, "out", block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize(
    ("kind", "blocks", "size"),
    [("line", 2000, 65_536), ("binary", 200, 65_536), ("lines", 8, 65_536)],
)
def test_a_flood_is_kept_to_its_cap_counted_exactly_and_takes_no_memory(
    tmp_path: Path, kind: str, blocks: int, size: int
) -> None:
    path = tmp_path / "1.log"
    words = [sys.executable, "-c", FLOOD, kind, str(path), str(blocks)]
    done = subprocess.run(words, capture_output=True, check=True, text=True)
    assert int(done.stdout) < 100 * 1024  # KiB
    assert path.stat().st_size < (2 << 20) + 20 * 65_536  # of one step the last 64 KiB more
    lines = list(LogReader(path))
    full, mark = (line for line in lines if line.stream == "sys")
    assert full.text == "[2 MiB of output are kept: of what follows, only the end of each step]"
    missing = int(mark.text.split()[0].strip("["))
    assert mark.text == f"[{missing} bytes were written here and are not kept]"
    assert missing > 0
    # Each byte is a letter, also one that is no UTF-8; "line" and the end of "binary" have no end.
    out = [line.text for line in lines if line.stream == "out"]
    newlines = {"line": 0, "binary": len(out) - 1, "lines": len(out)}[kind]
    assert sum(map(len, out)) + newlines + missing == blocks * size


@pytest.mark.parametrize("mark", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x85", "\u2028", "\x1b[2K"])
@pytest.mark.parametrize("field", ["message", "argument", "logger", "exception"])
def test_no_field_forges_a_line_of_our_own_logs(field: str, mark: str) -> None:
    text = f'a{mark}{{"level": "critical", "message": "forged"}}'
    error: Any = None
    if field == "exception":
        try:
            raise ValueError(text)
        except ValueError:
            error = sys.exc_info()
    message = text if field == "message" else "%s"
    name = text if field == "logger" else "ciserver"
    record = logging.LogRecord(name, logging.INFO, "", 1, message, (), error)
    if field == "argument":
        record.args = (text,)
    line = JsonFormatter().format(record)
    assert len(line.splitlines()) == 1
    assert line.isascii()
    assert "\x1b" not in line
    assert json.loads(line)["level"] == "info"
