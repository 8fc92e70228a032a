"""Forgejo: as Gitea (https://codeberg.org/api/swagger)."""

from __future__ import annotations

from ciserver.notifications.forges.gitea import REPOSITORY, TOKEN, request

__all__ = ["API", "NAME", "REPOSITORY", "TOKEN", "request"]

NAME = "forgejo"
API = "https://codeberg.org/api/v1"
