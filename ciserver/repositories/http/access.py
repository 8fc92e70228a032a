"""Who may fetch from and push to a hosted repository, by HTTP Basic: any name and a token as the
password, or one's own name and password.

Without either nothing is told, not even whether a project exists.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path

from django.contrib.auth import authenticate

from ciserver.accounts import lock
from ciserver.accounts.models import PREFIX, Token, User
from ciserver.lib.problems import Refused
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


@dataclass(frozen=True, slots=True)
class _Who:
    user: User
    may_write: bool


def admit(slug: str, service: str, authorization: str, address: str = "") -> Admitted:
    """The repository that ``authorization`` opens for ``service``. Raises Denied.

    Wrong passwords are counted by name and ``address``, as those of the sign-in page are.
    """
    name, password = _credentials(authorization)
    who = _by_token(password) or _by_password(name, password, address)
    if who is None:
        raise Denied(
            401, "Give a Gantry token as password, with any user name; or your own name and "
            "password. A token is made under your account.",
        )  # fmt: skip
    project = Project.objects.visible_to(who.user).filter(slug=slug).first()
    if project is None:
        raise Denied(404, f"There is no project {slug!r}, or you may not see it.")
    if not project.hosted:
        raise Denied(404, f"{slug!r} is not hosted here but at {project.clone_url}.")
    if service == RECEIVE:
        _may_push(who, project)
    place = create_hosted(project)
    return Admitted(project.pk, who.user.get_username(), place, limits_for(project, who.user))


def _by_token(password: str) -> _Who | None:
    token = Token.objects.find(password)
    if token is None:
        return None
    token.touch()
    return _Who(token.user, token.may_write)


def _by_password(name: str, password: str, address: str) -> _Who | None:
    """None too for a token that is over: that is no guess of somebody's password."""
    if not (name and password) or password.startswith(PREFIX):
        return None
    try:
        guess = lock.begin(name, address)
    except Refused as refusal:
        raise Denied(refusal.status, str(refusal)) from None
    user = authenticate(username=name, password=password)
    if not isinstance(user, User):
        lock.failed(guess, through="git")
        return None
    lock.passed(guess)
    return _Who(user, may_write=True)


def _may_push(who: _Who, project: Project) -> None:
    if not who.may_write:
        raise Denied(403, "This token may only read. Push with one of the scope 'write'.")
    if not project.allows(who.user, Role.DEVELOPER):
        raise Denied(
            403, f"Pushing to {project} needs the role developer. Ask an owner of the project."
        )
    if project.archived_at:
        raise Denied(
            403,
            f"{project} is archived: it can be fetched, not pushed to. An owner opens it again: "
            f"gantry restore {project}",
        )


def _credentials(authorization: str) -> tuple[str, str]:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        pair = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    name, _, password = pair.partition(":")
    return name, password
