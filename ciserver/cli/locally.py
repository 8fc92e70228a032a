"""A container of an environment, made on this machine: pulled by digest, started, removed."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from rich.text import Text

from ciserver.cli import attached, engines, output
from ciserver.cli.client import Row
from ciserver.cli.engines import Asked, Engine
from ciserver.cli.errors import CliError, Exit

LIMITS = ("cgroup", "controller", "limit", "cpu", "memory")  # words of an engine that has none


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """``place`` (PROJECT@ENV) as ``recipe`` tells of it, the API's row. ``publish`` is (port here,
    port of the container), ``given`` are variables of the caller's, ``service`` its address.

    What is said on the way goes to standard error: the output is the container's.
    """

    place: str
    recipe: Row
    engine: Engine
    service: str
    publish: Sequence[tuple[int, int]]
    given: dict[str, str]
    command: Sequence[str]
    limited: bool
    name: str = field(default_factory=lambda: f"gantry-run-{secrets.token_hex(4)}")

    def show(self) -> int:
        """Run it in the foreground; its exit code. Whatever happens it is removed."""
        # Without a command it is a server, which as process 1 may not heed the Ctrl-C of a
        # terminal of its own: then it is ours to end it.
        interactive = bool(self.command)
        terminal = interactive and sys.stdin.isatty() and sys.stdout.isatty()
        with self._made(interactive=interactive, terminal=terminal):
            self._say_addresses("" if terminal else " Ctrl-C ends and removes it.")
            return attached.show(self.engine, self.name, interactive=interactive, terminal=terminal)

    def leave(self, *, quiet: bool) -> int:
        """Start it in the background, and unless ``quiet`` say what it is called."""
        with self._made(interactive=False, terminal=False) as undo:
            self._carry_out(self.engine.start(self.name), "start")
            undo.pop_all()
        if not quiet:
            self._say_addresses("")
            output.console.print(self.name)
            program = self.engine.program
            output.next_step(f"{program} logs -f {self.name}; {program} rm --force {self.name}")
        return 0

    @property
    def described(self) -> Row:
        return {
            "container": self.name,
            "engine": self.engine.program,
            "release": self.recipe["release"],
            "commit": self.recipe["commit"],
            "image": self.reference,
            "addresses": self.addresses,
            "missing_secrets": self.missing,
        }

    @property
    def reference(self) -> str:
        return f"{self.recipe['repository']}@{self.recipe['digest']}"

    @property
    def addresses(self) -> list[str]:
        return [f"http://127.0.0.1:{here}" for here, _ in self.publish]

    @property
    def missing(self) -> list[str]:
        return [name for name in self.recipe["secrets"] if name not in self.given]

    @contextmanager
    def _made(self, *, interactive: bool, terminal: bool) -> Iterator[ExitStack]:
        """Pull the image and make the container, which is removed with what is yielded."""
        limits = (self.recipe["memory_mib"], self.recipe["cpus"], self.recipe["pids"])
        asked = Asked(
            name=self.name,
            label=self.place,
            reference=self.reference,
            limits=limits if self.limited else None,
            publish=self.publish,
            command=self.command,
            interactive=interactive,
            terminal=terminal,
        )
        environment = engines.env_file(self.recipe["variables"] | self.given)
        with attached.heard(signal.default_int_handler), ExitStack() as undo:
            self._pull()
            self._say_missing()
            undo.callback(attached.remove, self.engine, self.name)
            self._carry_out(self.engine.create(asked), "make", environment)
            yield undo

    def _pull(self) -> None:
        program = self.engine.program
        known = f"{self.place} runs {self.recipe['release']} ({self.recipe['commit'][:8]})"
        if _told(self.engine.has(self.reference)).returncode == 0:
            _say(f"{known}, which {program} has already: {self.reference}")
            return
        _say(f"{known}. {program} pulls {self.reference}")
        with self._credentials() as folder:
            quiet = not sys.stderr.isatty()
            argv = self.engine.pull(self.reference, quiet=quiet, folder=folder)
            pulled = (
                _told(argv) if quiet else subprocess.run(argv, stdout=attached.STDERR, check=False)
            )
        if pulled.returncode != 0:
            words = _last_words(pulled.stderr) if quiet else "see above"
            raise CliError(
                f"{program} cannot pull {self.reference}: {words}.",
                next_step=self._way_to_registry(),
                exit_code=Exit.UNREACHABLE,
            )

    @contextmanager
    def _credentials(self) -> Iterator[Path | None]:
        """A folder with a password for this repository; None where the user's own must do."""
        login, registry = self.recipe["login"], self.recipe["repository"].partition("/")[0]
        if login is None:
            yield None
            return
        with engines.credentials(
            self.engine, registry, login["username"], login["password"]
        ) as folder:
            yield folder

    def _way_to_registry(self) -> str:
        registry = self.recipe["repository"].partition("/")[0]
        service = httpx.URL(self.service).host
        if engines.is_loopback(self.reference) and not engines.is_loopback(service):
            port = registry.rpartition(":")[2]
            return (
                "That registry answers on the service's own machine alone. Lead to it, then try"
                f" again: ssh -N -L {port}:{registry} {service}"
            )
        return f"See that {registry} and {self.service} can be reached from here, then try again."

    def _carry_out(self, argv: list[str], verb: str, stdin: bytes = b"") -> None:
        ended = _told(argv, stdin)
        if ended.returncode == 0:
            return
        program, words = self.engine.program, _last_words(ended.stderr)
        about_limits = self.limited and any(word in words.lower() for word in LIMITS)
        raise CliError(
            f"{program} cannot {verb} it: {words}.",
            next_step="It may do without the environment's limits: --no-limits"
            if about_limits
            else f"See that '{program} run' works here, then try again.",
            exit_code=Exit.REFUSED,
        )

    def _say_missing(self) -> None:
        if names := self.missing:
            _say(
                f"It lacks {', '.join(names)}: secrets stay in the service. Give values of your"
                f" own: --env {names[0]}=... or --env-file FILE"
            )

    def _say_addresses(self, more: str) -> None:
        if self.publish:
            _say(f"It answers on {', '.join(self.addresses)}.{more}")


def _told(argv: list[str], stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(argv, input=stdin, capture_output=True, check=False)


def _last_words(stderr: bytes) -> str:
    lines = [line for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip().removeprefix("Error: ").rstrip(".") if lines else "it said nothing"


def _say(text: str) -> None:
    output.complaints.print(Text(text, style="dim"), soft_wrap=True)
