"""GitHub and GitHub Enterprise: https://docs.github.com/rest/commits/statuses."""

from __future__ import annotations

from ciserver.notifications.forges.requests import CONTEXT, Request, Told

NAME = "github"
API = "https://api.github.com"
REPOSITORY = "OWNER/NAME"
TOKEN = "fine-grained token with “Commit statuses: write”"  # noqa: S105 - words for people
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
        {
            "Authorization": f"Bearer {token}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        },
    )
