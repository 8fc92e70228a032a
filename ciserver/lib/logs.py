"""Our own log lines: one JSON object each, so that no input can forge a second one."""

from __future__ import annotations

import json
import logging
import logging.config
import sys
import threading
from types import TracebackType
from typing import Any

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "ciserver.lib.logs.JsonFormatter"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
    "loggers": {
        "django.server": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        "httpx": {"level": "WARNING"},
    },
}
log = logging.getLogger(__name__)


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # of arguments that do not fit logging would print a traceback
        return f"{record.msg!s} {record.args!r}"


def only_json() -> None:
    """Have all that this process says be such lines: before Django is set up, too, and what
    nobody caught in whichever thread. Python itself would print a traceback, line by line."""
    logging.config.dictConfig(LOGGING)
    logging.captureWarnings(capture=True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log.critical("the process ends by an error", exc_info=(kind, error, trace))


def _uncaught_in_thread(told: threading.ExceptHookArgs) -> None:
    if told.exc_value is None or isinstance(told.exc_value, SystemExit):
        return
    name = told.thread.name if told.thread else ""
    error = (told.exc_type, told.exc_value, told.exc_traceback)
    log.error("the thread %s ended by an error", name, exc_info=error)


def _unraisable(told: sys.UnraisableHookArgs) -> None:
    if told.exc_value is None:
        return
    error = (told.exc_type, told.exc_value, told.exc_traceback)
    log.error("%s in %r", told.err_msg or "an error was ignored", told.object, exc_info=error)
