"""``when``: for which pipelines a test is run, by what started them and what they change."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from ciserver.pipelines import expression
from ciserver.pipelines.values import Names, Part

Event = Literal["push", "tag", "pull_request", "manual", "schedule", "api"]
_ANY = "**"
_PIECE = re.compile(r"\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)
MOST_PATHS = 50


@dataclass(frozen=True, slots=True)
class Trigger:
    """What started a pipeline, and for what. ``paths`` are the files it changes; None when that
    cannot be said, and then every path counts as changed."""

    ref: str
    event: str = "push"
    protected: bool = False
    fork: bool = False
    by: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    paths: frozenset[str] | None = None

    @property
    def names(self) -> dict[str, str]:
        """What an expression may ask."""
        tag = self.ref.startswith("refs/tags/")
        short = self.ref.removeprefix("refs/heads/").removeprefix("refs/tags/")
        return {
            "ref": self.ref,
            "branch": "" if tag else short,
            "tag": short if tag else "",
            "event": self.event,
            "protected": str(self.protected).lower(),
            "fork": str(self.fork).lower(),
            "by": self.by,
            **{f"inputs.{name}": value for name, value in self.inputs.items()},
        }


def _events(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _readable(text: str) -> str:
    expression.parse(text)
    return text


Events = Annotated[
    list[Event],
    BeforeValidator(_events),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(get_args(Event))},
                {"type": "array", "items": {"enum": list(get_args(Event))}},
            ],
            "description": "what started the pipeline: one, or a list",
        }
    ),
]


Some = Annotated[Names, Field(min_length=1)]


class When(Part):
    """The pipelines for which a test is run: all that is written must hold, and of a list one."""

    branch: Some | None = None
    tag: Some | None = None
    event: Annotated[Events, Field(min_length=1)] | None = None
    paths: Annotated[Some, Field(max_length=MOST_PATHS)] | None = None
    if_: Annotated[str, AfterValidator(_readable)] | None = Field(default=None, alias="if")

    def refusal(self, trigger: Trigger) -> str:
        """Why that pipeline leaves the test out; empty when it runs."""
        return (
            self._ref_refusal(trigger.ref)
            or self._event_refusal(trigger.event)
            or self._path_refusal(trigger.paths)
            or self._if_refusal(trigger)
        )

    def _ref_refusal(self, ref: str) -> str:
        if self.branch is None and self.tag is None:
            return ""
        for kind, prefix, patterns in (
            ("branch", "refs/heads/", self.branch),
            ("tag", "refs/tags/", self.tag),
        ):
            if ref.startswith(prefix):
                name = ref.removeprefix(prefix)
                if any(fnmatchcase(name, pattern) for pattern in patterns or ()):
                    return ""
                wanted = f"only {' or '.join(patterns)}" if patterns else f"not for a {kind}"
                return f"It is {wanted}, and this is {kind} {name}."
        wanted = " or ".join([*(self.branch or ()), *(self.tag or ())])
        return f"It is only {wanted}, and this is {ref}, no branch or tag of the project."

    def _event_refusal(self, event: str) -> str:
        if self.event is None or event in self.event:
            return ""
        return f"It is only for {' or '.join(self.event)}, and this was started by {event}."

    def _path_refusal(self, paths: frozenset[str] | None) -> str:
        if self.paths is None or paths is None:
            return ""
        if any(matches(pattern, path) for pattern in self.paths for path in paths):
            return ""
        return f"Nothing that it is for has changed: {', '.join(self.paths)}."

    def _if_refusal(self, trigger: Trigger) -> str:
        if self.if_ is None or expression.parse(self.if_).holds(trigger.names):
            return ""
        return f"This does not hold: {self.if_}"


def matches(pattern: str, path: str) -> bool:
    """Whether ``path`` is what ``pattern`` names, or lies in it. ``*`` stays inside a folder,
    ``**`` crosses any number of them. Takes time in proportion to both lengths."""
    return _matcher(pattern).match(f"/{path}") is not None


@lru_cache(maxsize=1024)
def _matcher(pattern: str) -> re.Pattern[str]:
    """Of paths that begin with a slash. Between two ``**`` the first place that fits is as good as
    any, so no other is tried."""
    sections = [""]
    for part in pattern.strip("/").split("/"):
        if part == _ANY:
            sections.append("")
        else:
            sections[-1] += "/" + _name(part)
    first, *others = sections
    further = "".join(rf"(?>(?:/[^/]+)*?{one}(?=/|\Z))" for one in others if one)
    return re.compile(rf"{first}(?=/|\Z){further}", re.DOTALL)


def _name(part: str) -> str:
    """As fnmatch(3) matches one name. Between two stars, too, the first place that fits will do."""
    sections = [""]
    for piece in _PIECE.findall(part):
        if piece == "*":
            sections.append("")
        elif piece == "?":
            sections[-1] += "[^/]"
        else:
            sections[-1] += "(?!/)" + fnmatch.translate(piece).removesuffix(r"\Z")
    first, *others = sections
    if not others:
        return first
    *middle, last = others
    return first + "".join(rf"(?>[^/]*?{one})" for one in middle if one) + rf"[^/]*{last}"
