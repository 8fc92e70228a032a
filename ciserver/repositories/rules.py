"""What a push to a hosted repository may do: which refs are protected, from whom, and how much.

``hooks/pre-receive`` keeps the rules, because only Git's own hook sees the pushed commits before
a ref moves. A pattern holds letters, digits, ``*``, ``?`` and ``/._-`` alone, so that Python's
``fnmatch`` and the hook's shell mean the same by it; ``*`` takes ``/`` too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ciserver.projects.models import Project, Role

PATTERN = re.compile(r"[A-Za-z0-9*?/._-]{1,200}")
MOST_PATTERNS = 50
MOST_MIB = 2048  # of one push
MOST_REFS = 500  # moved by one push


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one push by one person. ``lacks`` is the role that pushing to a protected ref takes."""

    protected: tuple[str, ...] = ()  # patterns of full refs
    lacks: str = ""
    pack: int = MOST_MIB * 1024**2  # bytes
    refs: int = MOST_REFS


def limits_for(project: Project, user: Any) -> Limits:
    """What holds for a push of ``user`` to ``project``."""
    role = Role(project.push_role)
    return Limits(
        protected=tuple(protected_refs(project)),
        lacks="" if project.allows(user, role) else role.label,
        pack=project.max_push_mib * 1024**2,
        refs=project.max_push_refs,
    )


def protected_refs(project: Project) -> list[str]:
    """Patterns of full refs; the default branch is always the first of them."""
    branches = [project.default_branch, *project.protected_branches]
    found = [f"refs/heads/{name}" for name in branches]
    return found + [f"refs/tags/{name}" for name in project.protected_tags]


def wrong_pattern(patterns: Sequence[str]) -> str:
    """What is wrong with one of ``patterns``, in a sentence; empty when nothing is."""
    if len(patterns) > MOST_PATTERNS:
        return f"There may be {MOST_PATTERNS} patterns at most."
    bad = next((pattern for pattern in patterns if not PATTERN.fullmatch(pattern)), None)
    if bad is None:
        return ""
    return f"{bad[:80]!r} is no pattern: letters, digits, '/', '.', '_', '-', '*' and '?' make one."
