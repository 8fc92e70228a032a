"""How a sandbox ended, in words."""

from __future__ import annotations

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


def ended(receipt: Receipt) -> str:
    """``ended with exit code 1``, ``ended out of memory: memory limit of 64 MiB reached``"""
    if receipt.outcome is Outcome.EXITED:
        more = f" ({receipt.detail})" if receipt.detail else ""
        return f"ended with exit code {receipt.exit_code}{more}"
    return f"was ended, {WORDS[receipt.outcome].lower()}: {receipt.detail}"
