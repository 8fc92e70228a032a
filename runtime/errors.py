"""Errors of the sandbox runtime.

    SandboxError
    ├── SpecError        the caller asked for something that cannot be (bad path, user, limit)
    ├── HostError        this machine lacks something: kernel feature, cgroup controller, program
    ├── RuntimeFailed    runc/crun could not create the container; carries its own words
    └── Cancelled        only where there is no receipt to carry the outcome

A process that fails inside a sandbox is no error here: its Receipt tells.
"""

from __future__ import annotations


class SandboxError(Exception):
    """A sentence for a person and, as ``hint``, the next step."""

    code = "sandbox"

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class SpecError(SandboxError):
    code = "sandbox.spec"


class HostError(SandboxError):
    code = "sandbox.host"


class RuntimeFailed(SandboxError):
    code = "sandbox.runtime"
