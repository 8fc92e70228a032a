"""Completing the logs of jobs whose worker was killed, from what their sandboxes had written.

The output of a sandbox is on its machine's disk, unmasked and by stream, until a worker has all of
it (``runtime.outlets``); of a dead worker it is kept (``runtime.unread``). That it is kept tells
that its worker is dead, so this need not wait for the lease to end. It is written to the log once
more, from its beginning, by a writer that leaves out what the log holds.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass

from ciserver.lib.crypto import SealBroken, Secret, seal, unseal
from ciserver.lib.masking import Masker
from ciserver.lib.problems import Refused
from ciserver.pipelines import events, logfiles
from ciserver.pipelines.logs import LogWriter
from ciserver.pipelines.models import Job
from runtime import owner, unread
from runtime.reap import reap
from runtime.sandbox import Stream
from runtime.state import StateDirectory
from runtime.unread import Unread

log = logging.getLogger(__name__)
STREAMS = {Stream.STDOUT: "out", Stream.STDERR: "err"}
_AT_ONCE = 256 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class _Left:
    """The output of one step of one job, and the secrets that its log masks."""

    output: Unread
    job: int
    step: int
    before: dict[str, int]  # records of each stream that came from elsewhere
    apart: dict[int, int]  # steps with limits of their own
    masker: Masker


def note_of(job: Job, step: int, writer: LogWriter) -> str:
    """What a sandbox is told to keep beside its output, so that this can be done."""
    secrets = json.dumps([secret.reveal() for secret in writer.masker.secrets])
    return json.dumps(
        {
            "job": job.pk,
            "step": step,
            "before": writer.records(step),
            "apart": writer.limits,
            "secrets": seal(Secret(secrets), _place(job.pk)) if writer.masker.secrets else "",
        }
    )


def complete_logs(state: StateDirectory) -> None:
    """Complete those of dead workers of this machine, and forget what these left to be read.

    Raises nothing: what cannot be done now is left for the next time.
    """
    try:
        _complete_all(state)
    except Exception:  # a database that is away, say: a log must not keep a pipeline from running
        log.exception("logs of dead workers were not completed")


def _complete_all(state: StateDirectory) -> None:
    if any(not owner.is_alive(box.record.owner) for box in state.boxes()):
        for done in reap(state):
            log.warning("tidied: %s", done)
    with unread.alone(state):
        for left in _all_left(state):
            try:
                _complete(left)
            except (OSError, Refused) as error:
                log.warning("the log of job %s was not completed: %s", left.job, error)
            else:
                unread.drop(state, left.output.id)


def _all_left(state: StateDirectory) -> Iterator[_Left]:
    for output in unread.listed(state):
        try:
            note = json.loads(output.note)
            job, sealed = note["job"], note["secrets"]
            values = json.loads(unseal(sealed, _place(job)).reveal()) if sealed else []
            apart = {int(step): cap for step, cap in note.get("apart", {}).items()}
        except (ValueError, TypeError, KeyError):
            continue  # of somebody else
        except SealBroken as error:
            log.warning("what %s wrote is not shown: %s", output.id, error)
            continue
        masker = Masker(map(Secret, values))
        yield _Left(output, job, note["step"], note["before"], apart, masker)


def _complete(left: _Left) -> None:
    job = Job.objects.select_related("pipeline").filter(pk=left.job).first()
    if job is None:
        return
    try:
        with logfiles.reopened(job.log_path):
            _write(left, job)
    except FileNotFoundError:
        return  # the log has been forgotten
    Job.objects.filter(pk=job.pk).exclude(log_bytes=None).update(log_bytes=None)  # pack it again
    events.publish(job.pipeline_id)


def _write(left: _Left, job: Job) -> None:
    with LogWriter(job.log_path, complete=True, apart=left.apart) as writer:
        writer.masker = left.masker
        for stream, name in STREAMS.items():
            writer.disown(left.step, name, left.before.get(name, 0))
            path = left.output.file(stream)
            if not path.exists():
                continue
            with path.open("rb") as file:
                while data := file.read(_AT_ONCE):
                    writer.write(left.step, name, data)
        writer.flush(left.step)


def _place(job: int) -> str:
    return f"secrets of the log of job {job}"
