"""Each step of a deployment is written down before it is done, and again when it ended."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.utils import timezone

from ciserver.releases import leases
from ciserver.releases.leases import Cancelled, Lease
from ciserver.releases.models import Deployment, DeploymentState, DeploymentStep, Host
from ciserver.releases.sealed import masked

AFTER = ("retire", "leave")  # what nobody cancels: another release serves already
_NUMBERING = threading.Lock()  # hosts of one deployment are worked on side by side


class Note:
    """What a step has to say about itself when it is done."""

    text = ""


@dataclass(frozen=True, slots=True)
class Recorder:
    """Steps of ``deployment`` on ``host``. A step begins only while ``lease`` holds, and unless
    it is one of AFTER, while nobody has cancelled the deployment."""

    deployment: Deployment
    host: Host
    lease: Lease

    @contextmanager
    def step(self, name: str) -> Iterator[Note]:
        if name in AFTER:
            self.lease.check()
        else:
            self.lease.check_wanted()
        with _NUMBERING:
            row = DeploymentStep.objects.create(
                deployment=self.deployment,
                host=self.host,
                name=name,
                position=self.deployment.steps.count() + 1,
            )
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
        self._end(row, DeploymentState.SUCCEEDED, note.text)

    @staticmethod
    def _end(row: DeploymentStep, state: DeploymentState, detail: str) -> None:
        DeploymentStep.objects.filter(pk=row.pk, state=DeploymentState.RUNNING).update(
            state=state, detail=detail, finished_at=timezone.now()
        )
