"""Gitea: ``POST /repos/{owner}/{repo}/statuses/{sha}`` of https://docs.gitea.com/api/."""

from __future__ import annotations

from ciserver.notifications.forges.requests import CONTEXT, Request, Told

NAME = "gitea"
API = "https://gitea.com/api/v1"
REPOSITORY = "OWNER/NAME"
TOKEN = "token with “repository: read and write”"  # noqa: S105 - words for people
STATES = {
    "pending": "pending",
    "running": "pending",
    "success": "success",
    "failure": "failure",
    "cancelled": "error",
}


def request(api: str, repository: str, token: str, told: Told) -> Request:
    return Request(
        f"{api}/repos/{repository}/statuses/{told.sha}",
        {
            "state": STATES[told.state],
            "target_url": told.url,
            "description": told.description,
            "context": CONTEXT,
        },
        {"Authorization": f"token {token}"},
    )
