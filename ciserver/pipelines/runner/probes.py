"""Is a service ready? One try each; the answer is why it is not, or nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from builders.containers import Container
from builders.images.config import Healthcheck as ImageCheck
from builders.images.config import ImageConfig
from ciserver.lib.endings import Ending
from ciserver.lib.image_words import seconds_of, tcp_ports
from ciserver.lib.masking import Masker
from ciserver.pipelines.ansi import plain
from ciserver.pipelines.service_definition import Healthcheck
from runtime.errors import SandboxError
from runtime.network import NetworkHandle, reach
from runtime.spec import Outcome

# What docker does with an image's HEALTHCHECK that leaves them out (moby, "Healthcheck").
IMAGE_INTERVAL = 30.0  # seconds
IMAGE_TIMEOUT = 30.0
IMAGE_RETRIES = 3
IMAGE_MOST_RETRIES = 1000
FIRST_PAUSE = 0.05  # seconds between two tries
SLOWEST = 2.0  # seconds between two tries: a test waits for it, so it is asked more often
UP_FOR = 0.5  # seconds; what cannot start at all has ended by then
KEPT = 64 * 1024  # bytes of the last output
TOLD, TOLD_OF_TRY = 4096, 200  # characters of them, on a page
TRY_OUTPUT = 64 * 1024

Probe = Callable[[], str]


class Tail:
    """The end of a service's output, and whether ``words`` were among all of it. For threads."""

    def __init__(self, masker: Masker, words: str = "") -> None:
        self._masker = masker
        self._words = words.encode()
        self._lock = threading.Lock()
        self._ending = Ending(KEPT)
        self._last = b""  # as much as words that come in two pieces may have begun in
        self._seen = False

    def add(self, data: bytes) -> None:
        with self._lock:
            if self._words and not self._seen:  # also where two pieces meet
                last = self._last + data
                self._seen = self._words in last
                self._last = last[max(len(last) - len(self._words) + 1, 0) :]
            self._ending.add(data)

    def another(self) -> Tail:
        """An empty one, for what else may print the same secrets."""
        return Tail(self._masker)

    @property
    def seen(self) -> bool:
        return self._seen

    def lines(self, most: int) -> str:
        """The last lines as a row can hold them, without control characters and secrets. These
        are taken out before anything is cut: half a secret would not be known as one."""
        with self._lock:
            text = self._ending.whole_lines().decode(errors="replace")
        lines = "\n".join(map(plain, text.split("\n"))).rstrip().split("\n")
        return "\n".join(map(self._masker.mask_text, lines[-most:]))[-TOLD:]


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds: at most between two tries, of one try, until it counts as never getting ready."""

    interval: float = 1.0
    timeout: float = 5.0
    longest: float = 60.0


@dataclass(frozen=True, slots=True)
class Readiness:
    """``kind`` and what it asks: a command, a port, PORT/PATH, or words of the log.

    Kind ``up``: nothing tells, so it is ready once its process runs.
    """

    kind: str
    command: tuple[str, ...] | str = ()
    port: int = 0
    path: str = ""
    words: str = ""
    times: Times = Times()

    def describe(self) -> str:
        match self.kind:
            case "test":
                return "its health check passes"
            case "tcp":
                return f"port {self.port} answers"
            case "http":
                return f"GET {self.path} on port {self.port} is answered"
            case "log":
                return f"its log says {self.words!r}"
        return "its process runs"


def readiness(check: Healthcheck | None, config: ImageConfig) -> Readiness:
    """What ``gantry.yml`` says, else the image's HEALTHCHECK, else its lowest EXPOSEd port.

    Times that are written beside no check are those of the image's own, as Compose has it.
    """
    check = check or Healthcheck()
    times = Times(min(check.interval, SLOWEST), check.timeout, check.longest)
    if check.test is not None:
        command = _test_command(check.test)
        return (
            Readiness("test", command=command, times=times)
            if command
            else Readiness("up", times=times)
        )
    if check.tcp is not None:
        return Readiness("tcp", port=check.tcp, times=times)
    if check.http is not None:
        port, slash, path = check.http.partition("/")
        return Readiness("http", port=int(port), path=slash + path or "/", times=times)
    if check.log is not None:
        return Readiness("log", words=check.log, times=times)
    own = config.healthcheck
    if own is not None and (command := _test_command(own.test)):
        return Readiness("test", command=command, times=_times_of(own, check))
    ports = tcp_ports(config.exposed_ports)
    return Readiness("tcp", port=min(ports), times=times) if ports else Readiness("up", times=times)


def _times_of(own: ImageCheck, said: Healthcheck) -> Times:
    times: dict[str, float] = {
        "interval": seconds_of(own.interval, IMAGE_INTERVAL),
        "timeout": seconds_of(own.timeout, IMAGE_TIMEOUT),
        "start_period": seconds_of(own.start_period, 0),
        "retries": min(own.retries, IMAGE_MOST_RETRIES) if own.retries > 0 else IMAGE_RETRIES,
    }
    times |= {key: getattr(said, key) for key in said.model_fields_set & times.keys()}
    longest = times["start_period"] + times["retries"] * times["interval"]
    return Times(min(times["interval"], SLOWEST), times["timeout"], longest)


def pauses(interval: float) -> Iterator[float]:
    """Seconds between the tries of a check, without end: short at first, then ``interval``."""
    pause = FIRST_PAUSE
    while True:
        yield pause
        pause = max(min(pause * 1.5, interval), FIRST_PAUSE)


def _test_command(test: Sequence[str] | str) -> tuple[str, ...] | str:
    """Compose's forms: a line for the shell; CMD, CMD-SHELL or NONE in front; or plain words."""
    if isinstance(test, str):
        return test
    match list(test):
        case ["NONE", *_] | []:
            return ()
        case ["CMD-SHELL", line, *_]:
            return line
        case ["CMD", *words]:
            return tuple(words)
    return tuple(test)


def probe_for(asked: Readiness, container: Container, member: NetworkHandle, log: Tail) -> Probe:
    """The probe of one running service. It tells why the service is not ready, or "" when it is."""
    match asked.kind:
        case "test":
            return lambda: _run(asked, container, log.another())
        case "tcp":
            return lambda: _connect(asked, member)
        case "http":
            return lambda: _get(asked, member)
        case "log":
            return lambda: "" if log.seen else f"its log has not said {asked.words!r}"
    return _Up(container)


@dataclass(slots=True)
class _Up:
    """Nothing tells when it is ready: it must have run for a moment."""

    container: Container
    since: float | None = None

    def __call__(self) -> str:
        if not self.container.is_running():
            return "its process does not run yet"
        now = time.monotonic()
        self.since = self.since or now
        return "" if now - self.since >= UP_FOR else "its process has just been started"


def _run(asked: Readiness, container: Container, last: Tail) -> str:
    try:
        receipt = container.execute(
            asked.command,
            timeout=asked.times.timeout,
            output=TRY_OUTPUT,
            on_output=lambda stream, data: last.add(data),
        )
    except SandboxError as error:  # just starting, or just ended
        return f"its health check could not be run: {error.message.rstrip('.')}"
    if receipt.ok:
        return ""
    if receipt.outcome is not Outcome.EXITED:
        return f"its health check was ended: {receipt.detail}"
    words = last.lines(1)[:TOLD_OF_TRY]
    said = f": {words}" if words else ""
    return f"its health check ended with exit code {receipt.exit_code}{said}"


def _connect(asked: Readiness, member: NetworkHandle) -> str:
    try:
        reach.connect(member, asked.port, timeout=asked.times.timeout).close()
    except OSError:
        return f"nothing listens on port {asked.port}"
    return ""


def _get(asked: Readiness, member: NetworkHandle) -> str:
    try:
        status = reach.http_status(member, asked.port, asked.path, timeout=asked.times.timeout)
    except ConnectionRefusedError:
        return f"nothing listens on port {asked.port}"
    except OSError as error:
        return f"GET {asked.path} on port {asked.port} has no answer: {error}"
    if 200 <= status < 400:
        return ""
    return f"GET {asked.path} on port {asked.port} is answered with {status}"
