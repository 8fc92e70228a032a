"""Gitea: ``POST /repos/{owner}/{repo}/statuses/{sha}`` of https://docs.gitea.com/api/."""

from __future__ import annotations

from ciserver.notifications.forges.requests import Request, Told
from ciserver.notifications.forges.shared import commit_status

NAME = "gitea"
API = "https://gitea.com/api/v1"
REPOSITORY = "OWNER/NAME"
TOKEN = "token with “repository: read and write”"  # noqa: S105 - words for people


def request(api: str, repository: str, token: str, told: Told) -> Request:
    return commit_status(api, repository, told, {"Authorization": f"token {token}"})
