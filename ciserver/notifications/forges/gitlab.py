"""GitLab: https://docs.gitlab.com/api/commits/#set-commit-pipeline-status."""

from __future__ import annotations

from urllib.parse import quote

from ciserver.notifications.forges.requests import CONTEXT, Request, Told

NAME = "gitlab"
API = "https://gitlab.com/api/v4"
REPOSITORY = "GROUP/NAME, or the project's number"
TOKEN = "project access token, role Developer, scope api"  # noqa: S105 - words for people
STATES = {
    "pending": "pending",
    "running": "running",
    "success": "success",
    "failure": "failed",
    "cancelled": "canceled",
}


def request(api: str, repository: str, token: str, told: Told) -> Request:
    return Request(
        f"{api}/projects/{quote(repository, safe='')}/statuses/{told.sha}",
        {
            "state": STATES[told.state],
            "name": CONTEXT,
            "target_url": told.url,
            "description": told.description,
        },
        {"PRIVATE-TOKEN": token},
    )
