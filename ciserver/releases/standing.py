"""How an environment may stand, as something to ask for: by the matrix and by the API."""

from __future__ import annotations

from django.db.models import Q

from ciserver.releases.models import DeploymentState

STANDING: dict[str, Q] = {
    "unhealthy": Q(running__healthy=False),
    "drift": ~Q(running__drift="") & Q(running__isnull=False),
    "waiting": Q(deployments__state=DeploymentState.WAITING),
    "moving": Q(deployments__state__in=(DeploymentState.QUEUED, DeploymentState.RUNNING)),
}
