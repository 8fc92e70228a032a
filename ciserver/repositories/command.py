"""One Git command: an environment from nothing, hardened configuration, limited time.

Git runs as whoever owns the repository. The worker is root and hosted repositories belong to
the web process; were Git to run as root there, their configuration could name programs for it.
``builders.context.command`` starts Git under the same rules; a test holds the two together.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from git import Git
from git.exc import GitCommandError

from ciserver.repositories.errors import GitFailed

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TIMEOUT = 30.0  # seconds
MEMORY = 2 * 1024**3  # bytes that each process of Git may hold
KILLED = {124, 137, -9}  # how timeout(1) ends when it had to end its command

# Old but harmless faults, in the history of many well-known repositories.
FORGIVEN = ("zeroPaddedFilemode", "missingSpaceBeforeDate", "badTimezone")

SETTINGS: Mapping[str, str] = {
    "core.alternateRefsCommand": "/bin/true",  # an empty word is run too, and complains
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.askPass": "/bin/false",
    "core.bigFileThreshold": "16m",  # a larger blob goes through in pieces, never whole into memory
    "credential.helper": "",
    "gc.auto": "0",
    "gc.autoDetach": "false",
    "maintenance.auto": "false",
    "http.followRedirects": "false",
    "log.showSignature": "false",
    "protocol.ext.allow": "never",
    "protocol.file.allow": "never",
    "safe.bareRepository": "explicit",
    "submodule.recurse": "false",
    "transfer.fsckObjects": "true",
    **{f"fetch.fsck.{fault}": "ignore" for fault in FORGIVEN},
    **{f"receive.fsck.{fault}": "ignore" for fault in FORGIVEN},
}


def environment(
    *, protocols: str = "none", settings: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The whole environment of a Git process; nothing of ours is inherited.

    ``protocols`` is what it may speak ("https:http:ssh"), ``settings`` is further configuration.
    """
    result = {
        "PATH": PATH,
        "HOME": "/nonexistent",
        "XDG_CONFIG_HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_SYSTEM": "/dev/null",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_ALLOW_PROTOCOL": protocols,
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",  # refs/replace, which anyone may push, must not lie to us
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "GIT_SSH_COMMAND": "/bin/false",
    }
    pairs = {**SETTINGS, **(settings or {})}
    result["GIT_CONFIG_COUNT"] = str(len(pairs))
    for position, (key, value) in enumerate(pairs.items()):
        result[f"GIT_CONFIG_KEY_{position}"] = key
        result[f"GIT_CONFIG_VALUE_{position}"] = value
    return result


def run(
    *arguments: str,
    git_dir: Path | None = None,
    owner: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = TIMEOUT,
    memory: int = MEMORY,
    largest: int | None = None,
) -> bytes:
    """What ``git ARGUMENTS`` printed. Raises GitFailed when it ended badly or too late.

    It runs as whoever owns ``owner``, which is ``git_dir`` unless given. ``memory`` holds for each
    of its processes, ``largest`` for each file that it writes; both in bytes.
    """
    place = owner or git_dir
    if place is None:
        raise TypeError("git needs git_dir or owner to know whose rights to take")
    limits = [f"--data={memory}", *([f"--fsize={largest}"] if largest else [])]
    command = _command(arguments, git_dir, env or environment(), timeout, limits)
    try:
        output = Git(place).execute(
            [*_as_owner(place), *command], stdout_as_string=False, strip_newline_in_stdout=False
        )
    except GitCommandError as error:
        raise _failure(arguments, error, timeout) from None
    if not isinstance(output, bytes):
        raise TypeError("git was asked for bytes")
    return output


def _command(
    arguments: Sequence[str],
    git_dir: Path | None,
    env: Mapping[str, str],
    timeout: float,
    limits: Sequence[str],
) -> list[str]:
    # GitPython adds to the environment it finds; only env(1) makes one from nothing. And
    # timeout(1) ends the whole process group, so that no transport helper is left behind.
    # A file that grows too large is then an error to Git, and not the end of it.
    start = ["timeout", "--signal=KILL", str(timeout), "env", "-i", "--ignore-signal=XFSZ"]
    start += [f"{name}={value}" for name, value in env.items()]
    start += ["prlimit", *limits]
    where = [f"--git-dir={git_dir}"] if git_dir else []
    return [*start, "git", *where, *arguments]


def _as_owner(place: Path) -> list[str]:
    """A program that becomes the owner, rather than ``subprocess.Popen`` that does: it would fork
    where it can else vfork, and copy the page tables of a process of 150 MB each time."""
    status = place.stat()
    if os.geteuid() != 0 or status.st_uid == 0:
        return []
    return ["setpriv", f"--reuid={status.st_uid}", f"--regid={status.st_gid}", "--clear-groups"]


def _failure(arguments: Sequence[str], error: GitCommandError, timeout: float) -> GitFailed:
    name = next((word for word in arguments if not word.startswith("-")), "")
    if error.status in KILLED:
        return GitFailed(f"git {name} did not end within {timeout:g} seconds.")
    stderr = error.stderr.strip()
    said = stderr.removeprefix("stderr: ").strip("'\n ")
    return GitFailed(f"git {name} failed: {said or f'exit code {error.status}'}")
