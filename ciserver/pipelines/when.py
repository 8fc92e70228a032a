"""``when``: for which pipelines a test is run, by what started them and what they change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from ciserver.pipelines import expression
from ciserver.pipelines.values import Names, Part

Event = Literal["push", "tag", "pull_request", "manual", "schedule", "api"]
_ANY = "**"


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
    paths: Some | None = None
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
        return ""

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
    parts = pattern.strip("/").split("/")
    reached = _past_stars({0}, parts)
    for name in path.split("/"):
        if len(parts) in reached:
            return True
        reached = _past_stars(
            {
                at + (parts[at] != _ANY)
                for at in reached
                if parts[at] == _ANY or fnmatchcase(name, parts[at])
            },
            parts,
        )
    return len(parts) in reached


def _past_stars(reached: set[int], parts: list[str]) -> set[int]:
    """A ``**`` may also stand for nothing."""
    for at, part in enumerate(parts):
        if at in reached and part == _ANY:
            reached.add(at + 1)
    return reached
