"""What several forges take alike: GitHub's commit statuses, which Gitea took over, and Bitbucket's
build statuses, which its two editions have in common."""

from __future__ import annotations

from collections.abc import Mapping

from ciserver.notifications.forges.requests import CONTEXT, Request, Told

_COMMIT = {
    "pending": "pending",
    "running": "pending",
    "success": "success",
    "failure": "failure",
    "cancelled": "error",
}
_BUILD = {
    "pending": "INPROGRESS",
    "running": "INPROGRESS",
    "success": "SUCCESSFUL",
    "failure": "FAILED",
}


def commit_status(api: str, repository: str, told: Told, headers: Mapping[str, str]) -> Request:
    """``POST /repos/{owner}/{repo}/statuses/{sha}``"""
    return Request(
        f"{api}/repos/{repository}/statuses/{told.sha}",
        {
            "state": _COMMIT[told.state],
            "target_url": told.url,
            "description": told.description,
            "context": CONTEXT,
        },
        headers,
    )


def build_status(url: str, token: str, told: Told, *, cancelled: str) -> Request:
    """``cancelled`` is the edition's word for it."""
    return Request(
        url,
        {
            "key": CONTEXT,
            "name": f"Gantry #{told.pipeline}",
            "state": (_BUILD | {"cancelled": cancelled})[told.state],
            "url": told.url,
            "description": told.description,
        },
        {"Authorization": f"Bearer {token}"},
    )
