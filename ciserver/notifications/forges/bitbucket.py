"""Bitbucket Cloud: https://developer.atlassian.com/cloud/bitbucket/rest/api-group-commit-statuses/."""

from __future__ import annotations

from ciserver.notifications.forges.requests import Request, Told
from ciserver.notifications.forges.shared import build_status

NAME = "bitbucket"
API = "https://api.bitbucket.org/2.0"
REPOSITORY = "WORKSPACE/NAME"
TOKEN = "repository access token with “Repositories: write”"  # noqa: S105 - words for people


def request(api: str, repository: str, token: str, told: Told) -> Request:
    url = f"{api}/repositories/{repository}/commit/{told.sha}/statuses/build"
    return build_status(url, token, told, cancelled="STOPPED")
