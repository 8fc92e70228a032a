"""GitHub and GitHub Enterprise: https://docs.github.com/rest/commits/statuses."""

from __future__ import annotations

from ciserver.notifications.forges.requests import Request, Told
from ciserver.notifications.forges.shared import commit_status

NAME = "github"
API = "https://api.github.com"
REPOSITORY = "OWNER/NAME"
TOKEN = "fine-grained token with “Commit statuses: write”"  # noqa: S105 - words for people


def request(api: str, repository: str, token: str, told: Told) -> Request:
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/vnd.github+json",
        "X-GitHub-Api-Version": "2022-11-28",
    }
    return commit_status(api, repository, told, headers)
