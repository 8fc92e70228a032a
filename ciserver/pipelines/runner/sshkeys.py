"""The keys that a build may sign with: RUN --mount=type=ssh, and ADD of git over ssh.

Steps get an agent, never a key (``builders.steps.agents``); who gets none is said by the same
rule as for secrets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from builders.steps.agents import DEFAULT
from ciserver.lib.crypto import SealBroken, Secret
from ciserver.pipelines.models import Pipeline
from ciserver.repositories.models import Access

KNOWN_HOSTS = "GIT_KNOWN_HOSTS"
_PRIVATE_KEY = re.compile(r"\s*-----BEGIN ([A-Z]+ )?PRIVATE KEY-----")


@dataclass(frozen=True, slots=True)
class Keys:
    """Private keys by the id of an agent. ``known_hosts``: hosts that are pinned already.

    ``hint`` is the next step for an id that is not among them, which it names as ``{id}``.
    """

    by_id: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    known_hosts: Mapping[str, bytes] = field(default_factory=dict)
    hint: str = ""


def keys_for(pipeline: Pipeline, secrets: Mapping[str, Secret]) -> Keys:
    """The project's deploy key as ``default``, and those of its ``secrets`` that are keys by their
    names. A pull request from a fork gets none."""
    project = pipeline.project
    if pipeline.from_fork:
        return Keys(hint="A pull request from a fork gets none.")
    values = {name: secret.reveal() for name, secret in secrets.items()}
    by_id = {name: text.encode() for name, text in values.items() if _PRIVATE_KEY.match(text)}
    known: dict[str, bytes] = {}
    access = Access.objects.filter(project=project).first()
    with suppress(SealBroken, ValueError):  # fetching says so, where the key is for that
        if access is not None and access.key is not None:
            by_id.setdefault(DEFAULT, access.key.reveal().encode())
            known = {KNOWN_HOSTS: access.host_keys.encode()} if access.host_keys else {}
    hint = (
        f"The agent 'default' has the project's own key: gantry repository key {project} --new. "
        "Any other is a secret that build.secrets names and that is a private key: "
        f"gantry secrets set {project} {{id}} --file KEYFILE."
    )
    return Keys(by_id, known, hint)
