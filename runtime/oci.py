"""Command lines of runc and crun, as values. Nothing is run here.

Both take the same words for what is needed here (runtime-spec "Command Line Interface").
"""

from __future__ import annotations

from pathlib import Path

from runtime.host import OciRuntime
from runtime.process import Command


def run_command(runtime: OciRuntime, *, id: str, bundle: Path, root: Path, log: Path) -> Command:
    """Create, start and wait for the container of ``bundle``; exits with its exit code.

    ``root`` is where the runtime keeps its own state of this one container. runc is told
    to keep the container, so that its cgroup can still be read after the end; crun has no
    such option and is given a cgroup below the one that is read (see runtime.bundle).
    """
    keep = ("--keep",) if runtime.name == "runc" else ()
    return Command(
        (
            str(runtime.path),
            "--root",
            str(root),
            "--log",
            str(log),
            "--log-format",
            "json",
            "run",
            *keep,
            "--bundle",
            str(bundle),
            id,
        )
    )


def exec_command(
    runtime: OciRuntime, *, id: str, root: Path, log: Path, process: Path, part: str
) -> Command:
    """Run the program of file ``process`` in the running container; exits with its exit code.

    ``part`` names a cgroup below the container's that exists already.
    """
    return Command(
        (
            *(str(runtime.path), "--root", str(root), "--log", str(log), "--log-format", "json"),
            *("exec", "--cgroup", part, "--process", str(process), id),
        )
    )
