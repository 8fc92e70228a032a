"""Who may ask what of an environment's containers."""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict, dataclass
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet

from ciserver.accounts.models import AuditEntry
from ciserver.lib.problems import Refused
from ciserver.projects.models import Project, Role
from ciserver.projects.services import require_role
from ciserver.releases import policy
from ciserver.releases.daytwo import wire
from ciserver.releases.models import ContainerCommand, Environment, Host, Running

LOOKS = ("ps", "logs", "attach")
CHANGES = ("stop", "start", "restart")
ENTERS = ("exec", "get", "put")
VERBS = (*LOOKS, *CHANGES, *ENTERS)
ON_ALL = ("ps", *CHANGES)  # without a host they mean every one
MOST_WORDS = 8192  # characters of a command
SINCE = re.compile(r"[0-9]+[smh]|[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:.]{5,15}(Z|[+-][0-9:]{5})?)?")


@dataclass(frozen=True, slots=True)
class Options:
    """Of ``logs``: ``tail`` lines (-1: all), ``since``, ``follow``; of ``exec``: ``stdin``."""

    tail: int = 100
    since: str = ""
    follow: bool = False
    stdin: bool = False


@transaction.atomic
def ask(
    *,
    environment: Environment,
    user: Any,
    verb: str,
    host: str = "",
    words: list[str] | None = None,
    options: Options | None = None,
) -> ContainerCommand:
    """Write down what the watcher is to do. Raises Refused.

    Viewers may list containers and developers read logs; what changes or enters one is for those
    who may promote to the environment. All but listing is audited.
    """
    words, options = words or [], options or Options()
    _may(user, environment, verb)
    _check(verb, words, options)
    name = user.get_username()
    row = ContainerCommand.objects.create(
        environment=environment,
        host=host_of(environment, host, verb),
        verb=verb,
        words=words,
        options=asdict(options),
        asked_by=name,
    )
    if verb != "ps":
        where = f" on {row.host}" if row.host else ""
        line = shlex.join(words)[:200]
        detail = {"words": line} if line else {}
        AuditEntry.record(
            actor=name, action=f"container.{verb}", target=f"{environment}{where}", **detail
        )
    transaction.on_commit(lambda: wire.wake(row.pk))
    return row


def visible_to(user: Any) -> QuerySet[ContainerCommand]:
    """Who asked, and who maintains the project."""
    maintained = Project.objects.with_role(user, Role.MAINTAINER)
    seen = Project.objects.visible_to(user)
    mine = Q(asked_by=user.get_username(), environment__project__in=seen)
    return ContainerCommand.objects.filter(mine | Q(environment__project__in=maintained))


def _may(user: Any, environment: Environment, verb: str) -> None:
    if verb in LOOKS:
        require_role(user, environment.project, Role.VIEWER if verb == "ps" else Role.DEVELOPER)
    elif not policy.may_promote(user, environment):
        raise Refused(
            f"Only who may promote to {environment} may {verb} there.",
            code="permission-denied",
            hint="Ask a maintainer of the project.",
            status=403,
        )


def _check(verb: str, words: list[str], options: Options) -> None:
    if verb not in VERBS:
        raise Refused(
            f"{verb!r} is nothing that can be asked of a container.",
            code="command.verb",
            hint=f"Ask for one of: {', '.join(VERBS)}.",
            status=400,
        )
    if verb == "exec" and not words:
        raise Refused(
            "No command is given.", code="command.words", hint="Name a program to run.", status=400
        )
    if verb in {"get", "put"} and (len(words) != 1 or not words[0].startswith("/")):
        raise Refused(
            "A path inside the container is needed, and it begins with '/'.",
            code="command.path",
            hint="Give one, such as /var/log.",
            status=400,
        )
    if any("\0" in word for word in words) or len(shlex.join(words)) > MOST_WORDS:
        raise Refused(
            f"A command has at most {MOST_WORDS} characters, and no NUL.",
            code="command.words",
            hint="Give the rest on its standard input, or copy a script there and run that.",
            status=400,
        )
    if options.since and not SINCE.fullmatch(options.since):
        raise Refused(
            f"{options.since!r} is no time to begin at.",
            code="command.since",
            hint="Give how long ago (90s, 10m, 2h), or a time such as 2026-01-31T12:00:00Z.",
            status=400,
        )


def host_of(environment: Environment, name: str, verb: str) -> Host | None:
    """The one that is named, or the only one; None means all. Raises Refused."""
    rows = Running.objects.filter(environment=environment).select_related("host")
    hosts = {row.host.name: row.host for row in rows}
    if not hosts and verb != "ps":
        raise Refused(
            f"Nothing runs in {environment} yet.",
            code="command.nothing",
            hint="Promote a release to it first.",
            status=409,
        )
    if name:
        if name not in hosts:
            raise Refused(
                f"{environment} does not run on a host {name!r}.",
                code="command.host",
                hint=f"It runs on: {', '.join(hosts) or 'none'}.",
                status=404,
            )
        return hosts[name]
    if verb in ON_ALL:
        return None
    if len(hosts) > 1:
        raise Refused(
            f"{environment} runs on several hosts.",
            code="command.host",
            hint=f"Name one of them: {', '.join(hosts)}.",
            status=400,
        )
    return next(iter(hosts.values()))
