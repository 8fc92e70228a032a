"""Errors of deploy targets: each is one sentence for the deployment's page.

TargetError
├── CommandFailed     the engine refused; carries its last words
├── CommandTimedOut   it did not answer in time
├── CommandTooLoud    it said more than anybody reads
├── NotUnderstood     what it said is no answer to what was asked
├── NoEngine          neither podman nor docker works there
├── HostAway          no ssh connection, or it was lost
├── KeyRefused        sshd does not take our key
├── HostKeyChanged    sshd has another key than the one that was pinned
├── ImageUnreadable   the registry did not give the image that was recorded
└── TrafficError      the proxy on the host did not take a route
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

LAST_WORDS = 600  # characters
FULL = "no space left on device"
UNTIMELY = "certificate has expired or is not yet valid"  # as Go's crypto/x509 has it


class TargetError(Exception):
    """Something on a host, or between us and it, did not work."""


class CommandFailed(TargetError):
    def __init__(self, argv: Sequence[str], code: int, words: str) -> None:
        words = words.strip()[-LAST_WORDS:] or "it said nothing"
        words = f"{words.rstrip('. ')}. {_next_step(words)} again."
        super().__init__(f"'{_short(argv)}' failed with exit code {code}: {words}")
        self.code = code


def _next_step(words: str) -> str:
    if FULL in words.lower():
        return "Make room on the host, then deploy"
    if UNTIMELY in words:
        return "Set the host's clock right, or renew that certificate, then deploy"
    return "See to that there, then try"


class CommandTimedOut(TargetError):
    def __init__(self, argv: Sequence[str], seconds: float) -> None:
        super().__init__(
            f"'{_short(argv)}' did not end within {seconds:g} s. See how busy the host is and"
            " whether its engine answers, then try again."
        )


class CommandTooLoud(TargetError):
    def __init__(self, argv: Sequence[str], most: int) -> None:
        super().__init__(
            f"'{_short(argv)}' wrote more than {most >> 20} MiB and was ended."
            " See on the host what it has to say."
        )


class NotUnderstood(TargetError):
    def __init__(self, asked: str) -> None:
        super().__init__(
            f"What the host answered to {asked} is no answer that podman, docker or Caddy gives."
            " Look at what is installed there under these names, and who has been there."
        )


@contextmanager
def understood(asked: str) -> Iterator[None]:
    """A host may say anything: what cannot be read as an answer is an error that names it."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise NotUnderstood(asked) from error


class NoEngine(TargetError):
    pass


class HostAway(TargetError):
    pass


class KeyRefused(TargetError):
    pass


class HostKeyChanged(TargetError):
    """``fingerprint`` is that of the key that was offered; empty if ssh did not say."""

    def __init__(self, host: str, fingerprint: str) -> None:
        super().__init__(
            f"The host key of {host} is not the one that was pinned"
            f"{f', but {fingerprint}' if fingerprint else ''}: it was installed anew, or somebody"
            " stands between. If you know why, accept it by"
            f" 'gantry hosts accept-key {host} {fingerprint or 'FINGERPRINT'}'."
        )
        self.fingerprint = fingerprint


class ImageUnreadable(TargetError):
    pass


class TrafficError(TargetError):
    pass


def _short(argv: Sequence[str]) -> str:
    """Program and verb: options could hold an environment's variables."""
    if list(argv[:2]) == ["sh", "-c"] and len(argv) > 4:
        argv = argv[4:]  # a script that runs what follows its name
    return shlex.join(argv[:2])
