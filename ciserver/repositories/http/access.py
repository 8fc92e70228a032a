"""Who may fetch from and push to a hosted repository: HTTP Basic, any name, a token as password.

Without a token that is alive nothing is told, not even whether a project exists.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path

from ciserver.accounts.models import Token
from ciserver.projects.models import Project, Role
from ciserver.repositories.git import create_hosted
from ciserver.repositories.rules import Limits, limits_for

UPLOAD = "git-upload-pack"
RECEIVE = "git-receive-pack"


class Denied(Exception):
    """The request gets ``status`` and the message, which git shows as 'remote: …'."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Admitted:
    project_id: int
    user: str
    git_dir: Path
    limits: Limits


def admit(slug: str, service: str, authorization: str) -> Admitted:
    """The repository that ``authorization`` opens for ``service``. Raises Denied."""
    token = Token.objects.find(_password(authorization))
    if token is None:
        raise Denied(
            401, "Give a Gantry token as password, with any user name. Make one under your account."
        )
    token.touch()
    project = Project.objects.visible_to(token.user).filter(slug=slug).first()
    if project is None:
        raise Denied(404, f"There is no project {slug!r}, or you may not see it.")
    if not project.hosted:
        raise Denied(404, f"{slug!r} is not hosted here but at {project.clone_url}.")
    if service == RECEIVE:
        _may_push(token, project)
    place = create_hosted(project)
    return Admitted(project.pk, token.user.get_username(), place, limits_for(project, token.user))


def _may_push(token: Token, project: Project) -> None:
    if not token.may_write:
        raise Denied(403, "This token may only read. Push with one of the scope 'write'.")
    if not project.allows(token.user, Role.DEVELOPER):
        raise Denied(
            403, f"Pushing to {project} needs the role developer. Ask an owner of the project."
        )


def _password(authorization: str) -> str:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        pair = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
    return pair.partition(":")[2]
