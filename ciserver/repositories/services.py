"""What people ask of a project's repository: its default branch and what a push may do."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django.db import transaction

from ciserver.accounts.models import AuditEntry, User
from ciserver.lib.crypto import Secret
from ciserver.lib.problems import Refused
from ciserver.projects import origins
from ciserver.projects.models import Project, Role
from ciserver.projects.services import require
from ciserver.repositories import git
from ciserver.repositories.models import Access
from ciserver.repositories.names import is_ref
from ciserver.repositories.rules import MOST_MIB, MOST_REFS, wrong_pattern

RULES = (
    "clone_url",
    "default_branch",
    "protected_branches",
    "protected_tags",
    "push_role",
    "max_push_mib",
    "max_push_refs",
)


@transaction.atomic
def set_rules(*, project: Project, user: User, **rules: Any) -> Project:
    """Change some of RULES. Needs the role maintainer; whoever may protect less than the owners
    want is one of them. Raises Refused, naming the field in ``code``."""
    require(user, project, Role.MAINTAINER)
    row = Project.objects.select_for_update().get(pk=project.pk)
    if "clone_url" in rules:
        rules["clone_url"] = _fit_address(row, rules["clone_url"])
    before = {name: getattr(row, name) for name in rules}
    for name, value in rules.items():
        _check(name, value)
        setattr(row, name, value)
    changed = {name: value for name, value in rules.items() if before[name] != value}
    if changed:
        row.save(update_fields=list(changed))
        AuditEntry.record(
            actor=user.username, action="project.git-rules", target=row.slug, **changed
        )
    if "default_branch" in changed:
        git.set_default_branch(row)
    if "clone_url" in changed and _server(before["clone_url"]) != _server(row.clone_url):
        # Whoever names another server must not be given what the one before it was told.
        Access.objects.filter(project=row).update(
            username="", password_sealed="", host_keys="", host_keys_at=None
        )
    return row


def _fit_address(project: Project, url: str) -> str:
    """As it is stored. A repository does not move between Gantry and a forge: what is hosted here
    would be left behind, or begin empty. Raises Refused."""
    if url == project.clone_url:
        return url
    if project.hosted or not url:
        raise Refused(
            "Gantry hosts this repository." if project.hosted else "An address is needed.",
            code="git.clone_url",
            hint="Make a new project to build it from elsewhere."
            if project.hosted
            else "Make a new project without one to have Gantry host it.",
            status=409 if project.hosted else 400,
        )
    url = origins.normal(url)
    origins.check(url, ssh=True)
    return url


def _server(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


@transaction.atomic
def renew_key(*, project: Project, user: User) -> Access:
    """A new deploy key; the one before it is gone. Needs the role maintainer."""
    access = _access(project, user)
    access.renew_key()
    access.save()
    AuditEntry.record(actor=user.username, action="project.deploy-key", target=project.slug)
    return access


@transaction.atomic
def set_login(*, project: Project, user: User, username: str, password: Secret | None) -> Access:
    """What an https repository asks for; nobody reads it again. An empty name removes it.

    Needs the role maintainer. Raises Refused.
    """
    access = _access(project, user)
    if username:
        _check_login(project, username, password)
    access.username, access.password_sealed = username, ""
    if username and password:
        access.put_password(password)
    access.save()
    action = "project.git-login.set" if username else "project.git-login.remove"
    AuditEntry.record(actor=user.username, action=action, target=project.slug)
    return access


@transaction.atomic
def forget_host_keys(*, project: Project, user: User) -> Access:
    """Pin whatever key the host shows next. Needs the role maintainer."""
    access = _access(project, user)
    access.host_keys, access.host_keys_at = "", None
    access.save()
    AuditEntry.record(actor=user.username, action="project.host-key.forget", target=project.slug)
    return access


def _access(project: Project, user: User) -> Access:
    require(user, project, Role.MAINTAINER)
    if project.hosted:
        raise Refused(
            "Gantry hosts this repository: there is nothing to get into.",
            code="git.hosted",
            hint="Push to it with your name and a token. Only a repository elsewhere needs a key.",
        )
    return Access.objects.get_or_create(project=project)[0]


def _check_login(project: Project, username: str, password: Secret | None) -> None:
    wrong = ""
    if not project.clone_url.startswith("https:") and not origins.is_allowed(project.clone_url):
        wrong = "A password travels over https:// alone, and this repository's address is not that."
    elif password is None or not password.reveal():
        wrong = "A name needs its password, or a token in its place."
    elif ":" in username:
        wrong = "A name cannot hold a colon (RFC 7617, 2)."
    elif not (username.isprintable() and password.reveal().isprintable()):
        wrong = "Name and password must be printable, in one line."
    if wrong:
        hint = "Give the name and the password that git clone takes, or use a deploy key instead."
        raise Refused(wrong, code="git.login", hint=hint, status=400)


def _check(name: str, value: Any) -> None:
    wrong = ""
    match name:
        case "clone_url":
            pass  # by _fit_address, which also says how it is stored
        case "default_branch":
            if not is_ref(f"refs/heads/{value}"):
                wrong = f"{str(value)[:80]!r} cannot be a branch."
        case "protected_branches" | "protected_tags":
            wrong = wrong_pattern(value)
        case "push_role":
            if value not in {Role.DEVELOPER, Role.MAINTAINER, Role.OWNER}:
                wrong = "The role is developer, maintainer or owner."
        case "max_push_mib":
            wrong = _beyond(value, MOST_MIB)
        case "max_push_refs":
            wrong = _beyond(value, MOST_REFS)
        case _:
            raise TypeError(f"{name} is no rule of a repository")
    if wrong:
        raise Refused(wrong, code=f"git.{name}", hint="Nothing was changed.", status=400)


def _beyond(value: int, most: int) -> str:
    return "" if 1 <= value <= most else f"This must be between 1 and {most}."
