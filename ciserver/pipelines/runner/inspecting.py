"""Runs what somebody asked for over what a failed job left."""

from __future__ import annotations

from ciserver.lib import outbox
from ciserver.pipelines.inspections import TOPIC
from ciserver.pipelines.models import Inspection, State
from ciserver.pipelines.runner.workshop import open_workshop
from runtime import kept
from runtime.errors import SandboxError

TIMEOUT = 60.0  # seconds: chores of others wait behind it
MOST_OUTPUT = 256 * 1024  # bytes


def inspect(inspection_id: int) -> None:
    """Run it once; a second wake-up finds nothing to do, and what a dead worker began is lost."""
    rows = Inspection.objects.filter(pk=inspection_id)
    if rows.filter(state=State.QUEUED).update(state=State.RUNNING):
        outbox.keep(TOPIC, inspection_id)
        rows.update(**_run(rows.get()))


def _run(asked: Inspection) -> dict[str, object]:
    """The fields that tell how it went."""
    got: list[bytes] = []
    try:
        receipt = kept.execute(
            open_workshop().state,
            asked.kept,
            asked.command,
            timeout=TIMEOUT,
            output=MOST_OUTPUT,
            on_output=lambda stream, data: got.append(data),
        )
    except SandboxError as error:
        return {"state": State.FAILED, "reason": str(error)}
    text = b"".join(got).decode(errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
    return {
        "state": State.PASSED,
        "exit_code": receipt.exit_code,
        "output": text,
        "reason": receipt.detail,
    }
