"""Wildcards as regular expressions that take time in proportion to what they are matched with.

Whoever pushes writes the patterns: ``*a*a*a*a*a*b`` must not keep a worker busy for years.
"""

from __future__ import annotations

from collections.abc import Sequence

STAR = "*"


def one_way(tokens: Sequence[str]) -> str:
    """Regular expression of ``/``, ``*`` and expressions of one character each.

    It never tries a place twice: behind a ``*`` the first place where the next text fits is as
    good as any, so that it need not be given up again (fnmatch.translate does the same); only
    the last ``*`` of a component must reach its end.
    """
    text = ""
    component: list[str] = []
    for piece in [*tokens, "/"]:
        if piece == "/":
            text += _component(component) + "/"
            component = []
        else:
            component.append(piece)
    return text[:-1]


def _component(pieces: Sequence[str]) -> str:
    chunks = [""]
    for piece in pieces:
        if piece == STAR:
            chunks.append("")
        else:
            chunks[-1] += piece
    first, *rest = chunks
    if not rest:
        return first
    *middle, last = rest
    return first + "".join(f"(?>[^/]*?{chunk})" for chunk in middle if chunk) + f"[^/]*{last}"
