"""Bitbucket Data Center: "Store a build status" of
https://developer.atlassian.com/server/bitbucket/rest/, from version 7.4 on."""

from __future__ import annotations

from ciserver.notifications.forges.requests import CONTEXT, Request, Told

NAME = "bitbucket-server"
API = ""
REPOSITORY = "PROJECT/NAME"
TOKEN = "HTTP access token with “Repository read”"  # noqa: S105 - words for people
STATES = {
    "pending": "INPROGRESS",
    "running": "INPROGRESS",
    "success": "SUCCESSFUL",
    "failure": "FAILED",
    "cancelled": "CANCELLED",
}


def request(api: str, repository: str, token: str, told: Told) -> Request:
    project, _, name = repository.partition("/")
    return Request(
        f"{api}/rest/api/latest/projects/{project}/repos/{name}/commits/{told.sha}/builds",
        {
            "key": CONTEXT,
            "name": f"Gantry #{told.pipeline}",
            "state": STATES[told.state],
            "url": told.url,
            "description": told.description,
        },
        {"Authorization": f"Bearer {token}"},
    )
