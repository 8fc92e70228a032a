"""How a sandbox ended, in words, and what to do about it."""

from __future__ import annotations

from ciserver.pipelines.faults import FILE
from runtime.spec import Outcome, Receipt

WORDS = {
    Outcome.OOM: "Out of memory",
    Outcome.TIMEOUT: "Out of time",
    Outcome.PIDS: "Too many processes",
    Outcome.DISK: "Out of disk",
    Outcome.OUTPUT: "Too much output",
    Outcome.SILENT: "Silent for too long",
    Outcome.CANCELLED: "Cancelled",
}

_KEYS = {
    Outcome.OOM: "memory",
    Outcome.TIMEOUT: "timeout",
    Outcome.PIDS: "pids",
    Outcome.DISK: "disk",
    Outcome.SILENT: "silence",
}
_OF_PIPELINE = {"memory": "GANTRY_PIPELINE_MEMORY_MIB", "pids": "GANTRY_PIPELINE_PIDS"}
_OF_COMPOSE = {"memory": "mem_limit", "pids": "pids_limit"}


def ended(receipt: Receipt) -> str:
    """``ended with exit code 1``, ``ended out of memory: memory limit of 64 MiB reached``"""
    if receipt.outcome is Outcome.EXITED:
        more = f" ({receipt.detail})" if receipt.detail else ""
        return f"ended with exit code {receipt.exit_code}{more}"
    return f"was ended, {WORDS[receipt.outcome].lower()}: {receipt.detail}"


def next_step(receipt: Receipt, place: str) -> str:
    """What to do about a test that is written at ``place`` and that a limit has ended."""
    key = _KEYS.get(receipt.outcome)
    if key is None:
        return "Have it write less." if receipt.outcome is Outcome.OUTPUT else ""
    if "for the whole pipeline reached" in receipt.detail:
        return (
            f"Lower `{key}` of the tests and services that run at once, so that fewer do, or have "
            f"{_OF_PIPELINE[key]} raised by whoever runs Gantry."
        )
    if key == "disk" and receipt.detail.startswith("limit of "):  # of a number of files
        key = "inodes"
    what = "Have it say what it does" if key == "silence" else "Have it take less"
    if place.startswith(f"{FILE}: "):
        return f"{what}, or raise `{key}` of {place.removeprefix(f'{FILE}: ')}."
    if ": " in place and key in _OF_COMPOSE:
        return f"{what}, or raise `{_OF_COMPOSE[key]}` there."
    return f"{what}, or write the test in {FILE} with its own `{key}`."
