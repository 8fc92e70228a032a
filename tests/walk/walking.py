"""What it takes to type each command: what stands for a name, who types it, what must be there."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.walk.commands import commands_of
from tests.walk.place import CHECKOUT, Place, Said

ADDRESS = "http://127.0.0.1:8000"


@dataclass(frozen=True)
class Way:
    """How one command is typed. ``swap``: words of the page and what they are here."""

    swap: dict[str, str] = field(default_factory=dict)
    given: str = ""  # standard input
    says: str = ""  # must be among what it says
    code: int = 0
    until: str = ""  # then Ctrl-C
    after: float = 0  # seconds, then Ctrl-C
    outside: bool = False  # with the way to the package mirror
    user: str = ""
    cwd: str = ""
    env: dict[str, str] = field(default_factory=dict)
    before: Callable[[Walk], object] | None = None
    then: Callable[[Walk, Said], object] | None = None
    seconds: float = 240


Ways = dict[str, Way | Sequence[Way]]


@dataclass
class Walk:
    """``once``: commands that are not typed a second time where another page has them, too."""

    place: Place
    typed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    once: set[str] = field(default_factory=set)

    def page(
        self, name: str, ways: Ways, names: dict[str, str] | None = None, *, rest: bool = True
    ) -> None:
        """Every command of it, or without ``rest`` those of ``ways`` alone, in its order.

        ``names``: words of the whole page and what they are here.
        """
        path = CHECKOUT / (name if name == "README.md" else f"docs/{name}")
        left = {line: [way] if isinstance(way, Way) else list(way) for line, way in ways.items()}
        commands = commands_of(path)
        unknown = set(ways) - set(commands)
        assert not unknown, f"{name} has no {sorted(unknown)}"
        for line in commands if rest else [line for line in commands if line in ways]:
            way = left[line].pop(0) if left.get(line) else Way()
            if line in self.once and line in self.typed and line not in ways:
                continue
            self.typed.append(line)
            self._type(name, line, way, names or {})

    def _type(self, page: str, line: str, way: Way, names: dict[str, str]) -> None:
        if way.before:
            way.before(self)
        words = line
        for word, here in {**names, **way.swap}.items():
            words = words.replace(word, here)
        said = self.place.type(
            words,
            cwd=way.cwd or _folder(words),
            given=way.given,
            until=way.until,
            after=way.after,
            outside=way.outside,
            user=way.user,
            env=way.env,
            seconds=way.seconds,
        )
        stopped = bool(way.until or way.after)
        good = said.code in ({way.code, 130, -2} if stopped else {way.code})
        if not good or (way.says and not re.search(way.says, said.text)):
            self.wrong.append(
                f"{page}: {line}\n    as {words}\n    ended with {said.code}:\n"
                + "\n".join(f"    | {row}" for row in said.text.splitlines()[-25:])
            )
            return
        if way.then:
            way.then(self, said)

    def sh(self, line: str, **more: Any) -> str:
        """What the walk itself does between the commands of a page; it has to work."""
        said = self.place.type(line, **{"cwd": "/root/shop", **more})
        assert said.code == 0, f"{line}: {said.text}"
        return said.text

    def ask(self, line: str) -> Any:
        """A command's --json."""
        return json.loads(self.sh(f"{line} --json 2>/dev/null", cwd="/root"))

    def wait(self, what: str, look: Callable[[], Any], seconds: float = 120) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := look()):
            assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
            time.sleep(0.5)
        return found

    def up(self) -> None:
        """Wait until the service answers."""
        look = f"curl -sf -o /dev/null {ADDRESS}/readyz"
        self.wait("the service", lambda: self.place.type(look).code == 0)

    def runs(self, project: str, environment: str, release: str = "") -> None:
        """Wait until a release, or any, runs there."""

        def look() -> bool:
            running = [
                one
                for row in self.ask("gantry status")
                if (row["project"], row["name"]) == (project, environment)
                for one in row["running"]
            ]
            return any(release in ("", one["release"]) and one["healthy"] for one in running)

        self.wait(f"{release} in {environment} of {project}", look)

    def passed(self, project: str) -> None:
        """Wait until its newest pipeline has ended, and well."""
        state = self.wait(
            f"a pipeline of {project}",
            lambda: [
                row["state"]
                for row in self.ask(f"gantry pipelines {project} --limit 1")
                if row["state"] not in {"queued", "running"}
            ],
        )
        assert state == ["passed"], state


def _folder(line: str) -> str:
    """In the checkout of Gantry, or in the project's."""
    first = next(iter(shlex.split(line, comments=True)), "") if "<<" not in line else ""
    of_gantry = first.startswith((".", "cd", "systemctl", "pip", "python")) or "./gantry" in line
    return "/root/gantry" if of_gantry else "/root/shop"
