"""What it takes to type each command: what stands for a name, who types it, what must be there."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.machines import Machine
from tests.walk.commands import commands_of, page_of
from tests.walk.elsewhere import ELSEWHERE
from tests.walk.place import Place, Said

ADDRESS = "http://127.0.0.1:8000"

# As a browser does it: by forms, with cookies.
SIGN_UP = """
ask() {{ curl -sf -L -b jar-{name} -c jar-{name} -e {address}/ "$@"; }}
mark() {{ grep -o 'name="csrfmiddlewaretoken" value="[^"]*' | head -n 1 | cut -d'"' -f4; }}
mark=$(ask '{link}' | mark)
form=$(ask -o /dev/null -w '%{{url_effective}}' '{link}')
words='a long word of {name}'
ask -o /dev/null -d "csrfmiddlewaretoken=$mark" --data-urlencode "new_password1=$words" \
    --data-urlencode "new_password2=$words" "$form"
mark=$(ask {address}/login/ | mark)
ask -o /dev/null -d "csrfmiddlewaretoken=$mark&username={name}" \
    --data-urlencode "password=$words" {address}/login/
mark=$(ask {address}/tokens/ | mark)
ask -H "X-CSRFToken: $mark" -H 'Content-Type: application/json' \
    -d '{{"name": "laptop", "scope": "write"}}' {address}/api/v1/tokens/
"""


@dataclass(frozen=True)
class Way:
    """How one command is typed. ``swap``: words of the page and what they are here.

    By ``says`` or ``then``, or by what is waited for, it shows that it did what the page says: an
    exit code alone is not enough (``test_accounted_for``).

    What is known only when it is typed is a function of the walk.
    """

    swap: dict[str, Words] = field(default_factory=dict)
    given: Words = ""  # standard input
    says: Words = ""  # what must be among the lines that it says
    code: int = 0
    until: str | Callable[[Walk], bool] = ""  # has been said, or is so: then Ctrl-C
    stays: bool = False  # instead of Ctrl-C it goes on
    after: float = 0  # seconds, then Ctrl-C
    user: str = ""
    cwd: str = ""
    env: dict[str, Words] = field(default_factory=dict)
    before: Callable[[Walk], object] | None = None
    then: Callable[[Walk, Said], object] | None = None
    seconds: float = 240


Words = str | Callable[["Walk"], str]
Ways = dict[str, Way | Sequence[Way]]


@dataclass(frozen=True)
class Page:
    """A page as it is followed from its beginning to its end, or ``only`` some of its commands.

    ``ways``: of the commands that take more than being typed. ``names``: words of the whole page
    and what they are here. ``before``: what its reader has when they begin.
    """

    name: str
    ways: Ways = field(default_factory=dict)
    names: dict[str, Words] = field(default_factory=dict)
    before: Callable[[Walk], object] | None = None
    only: Sequence[str] = ()
    leaves: Sequence[str] = ()  # to another row

    def commands(self) -> list[str]:
        """Those that are typed here."""
        every = [
            line
            for line in commands_of(page_of(self.name))
            if (self.name, line) not in ELSEWHERE
            and (not self.only or line in self.only)
            and line not in self.leaves
        ]
        unknown = {*self.ways, *self.only} - set(every)
        assert not unknown, f"{self.name} has no {sorted(unknown)}"
        return every


@dataclass
class Walk:
    """One reader, who does not type again what another page has told already."""

    place: Place
    other: Machine  # to deploy to
    typed: set[tuple[str, str]] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)

    def page(self, page: Page) -> None:
        """What is not typed yet of its commands, in its order."""
        left = {
            line: [way] if isinstance(way, Way) else list(way) for line, way in page.ways.items()
        }
        followed = {line for name, line in self.typed if name == page.name}
        told = {line for _, line in self.typed} - set(page.ways)
        if page.before:
            page.before(self)
        for line in page.commands():
            if line in followed or line in told:
                continue
            way = left[line].pop(0) if left.get(line) else Way()
            self.typed.add((page.name, line))
            self._type(page.name, line, way, page.names)

    def _type(self, page: str, line: str, way: Way, names: dict[str, Words]) -> None:
        if way.before:
            way.before(self)
        words = line
        for word, here in {**way.swap, **names}.items():
            words = words.replace(word, self._words(here))
        said = self.place.type(
            words,
            cwd=way.cwd or _folder(words),
            given=self._words(way.given),
            until=partial(way.until, self) if callable(way.until) else way.until,
            after=way.after,
            user=way.user,
            env={name: self._words(value) for name, value in way.env.items()},
            stays=way.stays,
            seconds=way.seconds,
        )
        stopped = bool(way.until or way.after)
        good = said.code in ({way.code, 130, -2} if stopped else {way.code})
        if not good or not re.search(self._words(way.says), said.text, re.MULTILINE):
            self.wrong.append(
                f"{page}: {line}\n    as {words}\n    ended with {said.code}:\n"
                + "\n".join(f"    | {row}" for row in said.text.splitlines()[-25:])
            )
            return
        if way.then:
            way.then(self, said)

    def _words(self, words: Words) -> str:
        return words if isinstance(words, str) else words(self)

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
            time.sleep(1)  # each look is a command
        return found

    def push(self, title: str, files: dict[str, str]) -> str:
        """Commit ``files`` of the project and push them; the commit."""
        for name, text in files.items():
            self.place.write(f"/root/shop/{name}", text)
        self.sh(f"git add -A && git commit -qm '{title}' && git push -q gantry HEAD:main")
        return self.sh("git rev-parse HEAD").strip()

    def release(self, title: str, greeting: str) -> None:
        """Push and wait until it serves in qa; its name is kept as ``newest``."""
        commit = self.push(title, {"root/srv/index.html": greeting})

        def look() -> str:
            rows = self.ask("gantry releases shop")
            return next((str(row["name"]) for row in rows if row["commit"] == commit), "")

        self.kept["newest"] = self.wait(f"a release of {title}", look)
        self.wait(f"the deployment of {title}", self._all_deployed)
        self.runs("shop", "qa", self.kept["newest"])

    def _all_deployed(self) -> bool:
        """No deployment of the project is on its way."""
        token = f"Authorization: Bearer {self.kept['token']}"
        asked = f"{ADDRESS}/api/v1/deployments/?project=shop&page_size=5"
        rows = json.loads(self.sh(f"curl -sf -H '{token}' '{asked}'", cwd="/root"))["results"]
        return not {"queued", "running"} & {row["state"] for row in rows}

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

    def newest(self, project: str) -> Any:
        """Its newest pipeline."""
        [row] = self.ask(f"gantry pipelines {project} --limit 1")
        return row

    def ended(self, project: str, state: str) -> None:
        """Wait until its newest pipeline has ended, as it should."""
        unfinished = {"queued", "running"}
        self.wait(
            f"a pipeline of {project}", lambda: self.newest(project)["state"] not in unfinished
        )
        row = self.newest(project)
        assert row["state"] == state, row

    def passed(self, project: str) -> None:
        self.ended(project, "passed")

    def take_token(self) -> None:
        """The one that ``gantry admin`` logged the client in with; Git is given it, too."""
        file = self.place.path("/root/.config/gantry/client.json")
        self.kept["token"] = json.loads(file.read_text())["token"]
        host = ADDRESS.removeprefix("http://").replace(":", "%3a")
        line = f"http://x:{self.kept['token']}@{host}\n"
        self.place.write("/root/.git-credentials", line, 0o600)

    def sign_up(self, name: str) -> None:
        """Make a user who opens the link and makes a token, which is kept under the name."""
        link = self.sh(f"gantry users new {name}").splitlines()[-1]
        said = self.sh(SIGN_UP.format(link=link, name=name, address=ADDRESS), cwd="/tmp")
        self.kept[name] = json.loads(said)["token"]


def proved(line: str, **more: Any) -> Callable[[Walk, Said], object]:
    """For ``Way.then``: what works if a command that says nothing did what it is for."""
    return lambda walk, _: walk.sh(line, **more)


def _folder(line: str) -> str:
    """In the checkout of Gantry, or in the project's."""
    first = next(iter(shlex.split(line, comments=True)), "") if "<<" not in line else ""
    of_gantry = first.startswith((".", "cd", "systemctl", "pip", "python")) or "./gantry" in line
    return "/root/gantry" if of_gantry else "/root/shop"
