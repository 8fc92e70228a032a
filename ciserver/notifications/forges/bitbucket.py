"""Bitbucket Cloud: https://developer.atlassian.com/cloud/bitbucket/rest/api-group-commit-statuses/."""

from __future__ import annotations

from ciserver.notifications.forges.requests import CONTEXT, Request, Told

NAME = "bitbucket"
API = "https://api.bitbucket.org/2.0"
REPOSITORY = "WORKSPACE/NAME"
TOKEN = "repository access token with “Repositories: write”"  # noqa: S105 - words for people
STATES = {
    "pending": "INPROGRESS",
    "running": "INPROGRESS",
    "success": "SUCCESSFUL",
    "failure": "FAILED",
    "cancelled": "STOPPED",
}


def request(api: str, repository: str, token: str, told: Told) -> Request:
    return Request(
        f"{api}/repositories/{repository}/commit/{told.sha}/statuses/build",
        {
            "key": CONTEXT,
            "name": f"Gantry #{told.pipeline}",
            "state": STATES[told.state],
            "url": told.url,
            "description": told.description,
        },
        {"Authorization": f"Bearer {token}"},
    )
