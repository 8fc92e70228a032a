"""How git is started for a context: from an empty environment, as the repository's owner.

The worker is root and hosted repositories belong to the web process; were git to run as root
there, their configuration could name programs for it. ``ciserver.repositories.command`` says the
same for the service, which this package does not know; a test holds the two together.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

CHUNK = 1 << 20

SETTINGS: Mapping[str, str] = {
    "core.alternateRefsCommand": "/bin/true",  # an empty word is run too, and complains
    "core.askPass": "/bin/false",
    "core.bigFileThreshold": "16m",  # bigger blobs are streamed, and are not held in memory
    "core.fsmonitor": "false",
    "core.hooksPath": "/dev/null",
    "credential.helper": "",
    "gc.auto": "0",
    "log.showSignature": "false",
    "maintenance.auto": "false",
    "protocol.allow": "never",
    "protocol.ext.allow": "never",
    "protocol.file.allow": "never",
    "safe.bareRepository": "explicit",
    "submodule.recurse": "false",
}
ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/nonexistent",
    "XDG_CONFIG_HOME": "/nonexistent",
    "LC_ALL": "C.UTF-8",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    # A repository's own protocol.X.allow beats protocol.allow, and git before 2.45 does not know
    # GIT_NO_LAZY_FETCH: a partial clone's settings must not make git run a transport.
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "/bin/false",
    "GIT_SSH_COMMAND": "/bin/false",
}


class GitTrouble(Exception):
    """Git's own last words, or that it took too long."""


def start(
    git_dir: Path, *args: str, stdin: int = subprocess.DEVNULL, stderr: int | IO[bytes]
) -> subprocess.Popen[bytes]:
    """``git ARGS`` in ``git_dir``, with its stdout on a pipe."""
    settings = [word for key, value in SETTINGS.items() for word in ("-c", f"{key}={value}")]
    return subprocess.Popen(
        [*_as_owner(git_dir), "git", *settings, f"--git-dir={git_dir}", *args],
        env=ENVIRONMENT,
        cwd="/",
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=stderr,
        bufsize=CHUNK,
    )


def output(git_dir: Path, *args: str, seconds: float) -> Iterator[bytes]:
    """What ``git ARGS`` prints, as it comes; whoever stops early ends git too.

    Raises GitTrouble when git ended badly or printed for longer than ``seconds``.
    """
    with tempfile.TemporaryFile() as words:
        process = start(git_dir, *args, stderr=words)
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, end)
        timer.start()
        try:
            with process:
                try:
                    while data := process.stdout.read1(CHUNK):  # type: ignore[union-attr]
                        yield data
                except BaseException:
                    process.kill()
                    raise
        finally:
            timer.cancel()
        if late.is_set():
            raise GitTrouble(f"git {args[0]} did not end within {seconds:g} seconds")
        if process.returncode != 0:
            raise GitTrouble(_last_words(words) or f"git ended with code {process.returncode}")


def _as_owner(git_dir: Path) -> list[str]:
    """What to write before a command for it to run as the owner: nothing to stay who we are.

    Of ``subprocess.Popen``, ``user`` would fork where it can else vfork: in a worker of 150 MB
    that is 18 ms of a core, of which this takes 3.
    """
    try:
        status = git_dir.stat()
    except FileNotFoundError:
        return []  # git says it better
    if os.geteuid() != 0 or status.st_uid == 0:
        return []
    return ["setpriv", f"--reuid={status.st_uid}", f"--regid={status.st_gid}", "--clear-groups"]


def _last_words(words: IO[bytes]) -> str:
    words.seek(max(0, words.seek(0, os.SEEK_END) - 4096))
    lines = words.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else ""
