"""Each step of a deployment is written down before it is done, and again when it ended."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from django.db import transaction
from django.utils import timezone

from ciserver.releases import leases
from ciserver.releases.leases import Cancelled, Lease
from ciserver.releases.models import Deployment, DeploymentState, DeploymentStep, Host
from ciserver.releases.sealed import masked

AFTER = ("retire", "leave")  # what nobody cancels: another release serves already
# Hosts of one deployment are worked on side by side, and one at a time writes: SQLite lets those
# wait longer who find it busy.
_WRITING = threading.Lock()


class Note:
    """What a step has to say about itself when it is done."""

    text = ""


@dataclass(frozen=True, slots=True)
class Recorder:
    """Steps of ``deployment`` on ``host``. A step begins only while ``lease`` holds, and unless
    it is one of AFTER, while nobody has cancelled the deployment.

    ``step`` may say that another one follows at once. Its end is then written with the beginning
    of that one, in one transaction: each is a commit that four hosts would wait for in turn.
    """

    deployment: Deployment
    host: Host
    lease: Lease
    _ended: list[tuple[DeploymentStep, str, datetime]] = field(default_factory=list)

    @contextmanager
    def step(self, name: str, *, followed: bool = False) -> Iterator[Note]:
        try:
            self._check(name)
        except BaseException:
            self.flush()
            raise
        row = self._begin(name)
        leases.tell(self.deployment)
        note = Note()
        try:
            yield note
        except Cancelled as asked:
            self._end(row, DeploymentState.CANCELLED, str(asked))
            raise
        except Exception as error:
            self._end(row, DeploymentState.FAILED, masked(self.deployment, str(error)))
            raise
        self._ended.append((row, note.text, timezone.now()))
        if not followed:
            self.flush()

    def flush(self) -> None:
        """Write down what ended, should nothing follow after all."""
        if self._ended:
            with _WRITING, transaction.atomic():
                self._write_ended()
            self._ended.clear()

    def _check(self, name: str) -> None:
        if name in AFTER:
            self.lease.check()
        else:
            self.lease.check_wanted()

    def _begin(self, name: str) -> DeploymentStep:
        with _WRITING, transaction.atomic():
            self._write_ended()
            row = DeploymentStep.objects.create(
                deployment=self.deployment,
                host=self.host,
                name=name,
                position=self.deployment.steps.count() + 1,
            )
        self._ended.clear()
        return row

    def _write_ended(self) -> None:
        for row, detail, at in self._ended:
            self._write(row, detail, at, state=DeploymentState.SUCCEEDED)

    def _end(self, row: DeploymentStep, state: DeploymentState, detail: str) -> None:
        with _WRITING:
            self._write(row, detail, timezone.now(), state=state)

    @staticmethod
    def _write(row: DeploymentStep, detail: str, at: datetime, *, state: DeploymentState) -> None:
        DeploymentStep.objects.filter(pk=row.pk, state=DeploymentState.RUNNING).update(
            state=state, detail=detail, finished_at=at
        )
