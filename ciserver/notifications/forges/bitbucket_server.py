"""Bitbucket Data Center: "Store a build status" of
https://developer.atlassian.com/server/bitbucket/rest/, from version 7.4 on."""

from __future__ import annotations

from ciserver.notifications.forges.requests import Request, Told
from ciserver.notifications.forges.shared import build_status

NAME = "bitbucket-server"
API = ""
REPOSITORY = "PROJECT/NAME"
TOKEN = "HTTP access token with “Repository read”"  # noqa: S105 - words for people


def request(api: str, repository: str, token: str, told: Told) -> Request:
    project, _, name = repository.partition("/")
    commits = f"{api}/rest/api/latest/projects/{project}/repos/{name}/commits"
    return build_status(f"{commits}/{told.sha}/builds", token, told, cancelled="CANCELLED")
