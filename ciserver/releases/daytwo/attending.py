"""The watcher's other half: does what is asked of containers, each in a thread of its own."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta

import redis
from django.db import close_old_connections, connection
from django.db.models import Q
from django.utils import timezone

from ciserver.releases.daytwo import verbs, wire
from ciserver.releases.daytwo.wire import Line
from ciserver.releases.hosts import opened
from ciserver.releases.models import CommandState, ContainerCommand
from ciserver.releases.targets.engine import END_MARKED, MARK
from ciserver.releases.targets.errors import TargetError

log = logging.getLogger(__name__)
AT_ONCE = 32
LOOK = 2  # seconds between two looks, when nobody wakes us
BEAT = 5.0  # seconds
DEAD = timedelta(seconds=30)  # without a beat
KEPT = timedelta(days=7)


def attend() -> None:
    """Never returns."""
    with ThreadPoolExecutor(AT_ONCE, "command") as pool:
        looks = 0
        while True:
            try:
                if looks % 15 == 0:
                    pool.submit(_apart, sweep)
                for number in claim():
                    pool.submit(_apart, carry_out, number)
            except Exception:
                log.exception("what is asked of containers cannot be read")
            close_old_connections()
            wire.wait(LOOK)
            looks += 1


def claim() -> list[int]:
    """Those that were asked and that nobody else has taken."""
    queued = ContainerCommand.objects.filter(state=CommandState.QUEUED)
    taken = []
    for number in queued.order_by("pk").values_list("pk", flat=True)[:AT_ONCE]:
        now = timezone.now()
        if queued.filter(pk=number).update(state=CommandState.RUNNING, beat_at=now):
            taken.append(number)
    return taken


def carry_out(number: int) -> None:
    """Do one, and tell whoever reads how it ended."""
    rows = ContainerCommand.objects.select_related("environment__project", "host")
    command = rows.get(pk=number)
    line = Line(number)
    code: int | None = None
    reason = ""
    with Beating(command, line):
        try:
            code = verbs.carry_out(command, line)
        except (verbs.CannotBe, TargetError) as error:
            reason = str(error)
        except (redis.RedisError, OSError) as error:
            reason = f"It was cut off: {error}."
        except Exception as error:
            log.exception("command %s failed", number)
            reason = f"Gantry failed at it ({type(error).__name__}). See the watcher's log."
        finally:
            _end(command, code, reason)
    line.end(exit_code=code, reason=reason)


def sweep() -> None:
    """Fail what a watcher that died was at, and end what it had started; forget what is old."""
    now = timezone.now()
    lost = ContainerCommand.objects.filter(
        Q(state=CommandState.RUNNING, beat_at__lt=now - DEAD)
        | Q(state=CommandState.QUEUED, asked_at__lt=now - 2 * DEAD)
    ).select_related("host")
    for command in lost:
        _end(command, None, "The worker that was at it is gone. Ask again.")
        if command.host and command.verb == "exec" and command.beat_at:
            with suppress(TargetError), opened(command.host) as target:
                argv = ["sh", "-c", END_MARKED, MARK, verbs.mark_of(command)]
                target.machine.attempt(argv, timeout=30)
    ContainerCommand.objects.filter(asked_at__lt=now - KEPT).delete()


def _end(command: ContainerCommand, code: int | None, reason: str) -> None:
    state = CommandState.FAILED if reason else CommandState.ENDED
    mine = ContainerCommand.objects.filter(pk=command.pk).exclude(
        state__in=(CommandState.ENDED, CommandState.FAILED)
    )
    mine.update(state=state, exit_code=code, reason=reason)


class Beating:
    """Says that the command is being done, in its row and to whoever reads."""

    def __init__(self, command: ContainerCommand, line: Line) -> None:
        self._row = ContainerCommand.objects.filter(pk=command.pk)
        self._line = line
        self._over = threading.Event()
        self._thread = threading.Thread(target=_apart, args=(self._beat,), daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            self._row.update(beat_at=timezone.now())
            with suppress(redis.RedisError, OSError):
                self._line.send(b"k", until=lambda: True)


def _apart(work: object, *args: object) -> None:
    """In a thread, whose connection to the database ends with the work."""
    assert callable(work)  # noqa: S101 - ours
    try:
        work(*args)
    except Exception:
        log.exception("a command's thread failed")
    finally:
        connection.close()
