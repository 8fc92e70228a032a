"""Commits from other people's repositories for ADD: asked for, fetched alone, never checked out.

git runs as the project's own user, without configuration, hooks, submodules, redirects or
credentials of this machine, with the addresses that were judged (``addresses``), and with caps
on time and size. A checkout's files are read from the objects, as of any other context.

ssh runs only for a user whom /etc/passwd knows, and a project's is not there. So that no two
projects share one (they could look into each other's processes), git and ssh get a mount
namespace with a passwd of that user alone.
"""

from __future__ import annotations

import base64
import os
import re
import shlex
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from builders.context.command import ENVIRONMENT, SETTINGS
from builders.errors import ContextError
from builders.memory import memory_folder
from builders.remote.addresses import Unreachable, bracketed, parse_allowed, reachable
from builders.remote.places import GitPlace

MOST_BYTES = 4 << 30  # of one pack
_ASK_SECONDS = 60.0
_FETCH_SECONDS = 600.0
_LINE = re.compile(r"([0-9a-f]{40}|[0-9a-f]{64})\t(\S+)")
_SYSTEM_HOSTS = "/etc/ssh/ssh_known_hosts"
# As ``ciserver.lib.ssh``, which this package does not know; a test holds the two together.
SSH_OPTIONS: Mapping[str, str] = {
    "BatchMode": "yes",
    "CanonicalizeHostname": "no",
    "CheckHostIP": "no",
    "ForwardAgent": "no",
    "GlobalKnownHostsFile": _SYSTEM_HOSTS,
    "HashKnownHosts": "no",
    "IdentityFile": "none",  # the agent's keys are all
    "PermitLocalCommand": "no",
    "PreferredAuthentications": "publickey",
    "ProxyCommand": "none",
    "ServerAliveCountMax": "3",
    "ServerAliveInterval": "30",
    "UpdateHostKeys": "no",
}
# nscd would answer before the file is read. Words: the passwd, the user's id, the command.
_AS_NAMED_USER = """
mount --bind "$1" /etc/passwd || exit
! test -d /run/nscd || mount -t tmpfs none /run/nscd || exit
id=$2; shift 2
exec setpriv --reuid "$id" --regid "$id" --clear-groups -- "$@"
"""
_KEPT_FOR_NOTHING = ("zeroPaddedFilemode", "missingSpaceBeforeDate", "badTimezone")
_SETTINGS: Mapping[str, str] = {
    **SETTINGS,
    "core.logAllRefUpdates": "false",  # reflogs hold times
    "fetch.fsckObjects": "true",
    "http.followRedirects": "false",  # closes dumb HTTP's alternates too
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "60",
    "http.proxy": "",
    "index.threads": "1",
    "pack.threads": "1",
    "protocol.version": "2",
    "transfer.bundleURI": "false",
    **{f"fetch.fsck.{fault}": "ignore" for fault in _KEPT_FOR_NOTHING},
}


@dataclass(frozen=True, kw_only=True)
class Access:
    """How a repository may be reached. ``owner`` is the host id that git runs as.

    ``token`` is for https alone, ``agent`` and ``known_hosts`` are for ssh.
    """

    owner: int
    allow: Sequence[str] = ()
    token: bytes | None = field(default=None, repr=False)
    agent: Path | None = None
    known_hosts: Path | None = None


class Repository:
    """One repository that is asked and fetched from. Raises ContextError throughout."""

    def __init__(self, place: GitPlace, folder: Path, access: Access) -> None:
        self._place = place
        self._access = access
        self.git_dir = folder / "repository.git"
        self._folder = folder
        self._addresses: list[str] | None = None

    def commit(self) -> str:
        """The id of the commit that the place means now; a full id is believed."""
        if self._place.commit:
            return self._place.commit
        ref = self._place.ref
        names = _names(ref)
        asked = [*names, *(f"{name}^{{}}" for name in names)]
        words = self._git("ls-remote", "--end-of-options", self._place.url, *asked)
        found: dict[str, str] = {name: sha for sha, name in _LINE.findall(words)}
        for name in names:
            # A branch first, as git checkout does it; a tag's own commit rather than the tag.
            sha = found.get(f"{name}^{{}}") or found.get(name)
            if sha:
                return sha
        raise self._wrong(f"it has no branch or tag {ref!r}" if ref else "it has no commit")

    def fetch(self, commit: str) -> Path:
        """Bring the one commit here; the bare repository that holds it."""
        self._git("init", "--quiet", "--bare", "--template=", str(self.git_dir))
        try:
            self._fetch("--depth=1", commit)
        except ContextError:
            # A server that gives no bare ids (uploadpack.allowAnySHA1InWant): ask by names.
            wanted = [f"+{n}:{n}" for n in _names(self._place.ref)] if self._named else []
            if wanted:
                self._fetch_any(wanted)
            else:
                self._fetch("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
        self._check_there(commit)
        return self.git_dir

    def keep_git_dir(self, commit: str) -> None:
        """Make of the bare repository what ``.git`` of a clone of the commit alone would be.

        The same commit gives the same bytes: one pack without deltas, an index without times.
        """
        inside = (f"--git-dir={self.git_dir}",)
        self._git(*inside, "config", "core.bare", "false")
        self._git(*inside, "config", "remote.origin.url", self._place.url)
        self._git(*inside, "config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")
        self._git(*inside, "update-ref", "--no-deref", "HEAD", commit)
        repack = ("repack", "-q", "-a", "-d", "-F", "--depth=0", "--window=0", "--threads=1")
        self._git(*inside, *repack)
        self._git(*inside, "read-tree", commit)

    @property
    def _named(self) -> bool:
        return bool(self._place.ref) and not self._place.commit

    def _fetch_any(self, wanted: Sequence[str]) -> None:
        last: ContextError | None = None
        for spec in wanted:
            try:
                return self._fetch("--depth=1", spec)
            except ContextError as error:
                last = error
        raise last or self._wrong("it has no such ref")

    def _fetch(self, *words: str) -> None:
        options = [word for word in words if word.startswith("--")]
        specs = [word for word in words if not word.startswith("--")]
        self._git(
            f"--git-dir={self.git_dir}", "fetch", "--quiet", "--no-tags", "--no-write-fetch-head",
            "--no-recurse-submodules", "--no-auto-maintenance", *options,
            "--end-of-options", self._place.url, *specs, seconds=_FETCH_SECONDS,
        )  # fmt: skip

    def _check_there(self, commit: str) -> None:
        asked = (f"--git-dir={self.git_dir}", "cat-file", "-e", f"{commit}^{{commit}}")
        try:
            self._git(*asked)
        except ContextError:
            raise self._wrong(f"it has no commit {commit}") from None

    def _git(self, *args: str, seconds: float = _ASK_SECONDS) -> str:
        settings = [word for key, value in _SETTINGS.items() for word in ("-c", f"{key}={value}")]
        if self._place.scheme != "ssh" and args[0] != "init":
            settings += ["-c", f"http.curloptResolve={self._resolved()}"]
        words = ["prlimit", f"--fsize={MOST_BYTES}", "--core=0", "git", *settings, *args]
        with ExitStack() as stack:
            user: int | None = None
            if os.geteuid() == 0 and self._place.scheme == "ssh":
                words = _named(words, self._access.owner, stack.enter_context(memory_folder()))
            elif os.geteuid() == 0:
                user = self._access.owner
            return self._ended(self._started(words, user), seconds)

    def _started(self, words: Sequence[str], user: int | None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            words,
            env=self._environment(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            start_new_session=True,
        )

    def _ended(self, process: subprocess.Popen[bytes], seconds: float) -> str:
        """What it printed. Raises ContextError where it ended badly or took too long."""
        late = threading.Event()

        def end() -> None:
            late.set()
            _end(process)

        timer = threading.Timer(seconds, end)
        timer.start()
        try:
            output, words = process.communicate()
        except BaseException:
            _end(process)
            raise
        finally:
            timer.cancel()
        if late.is_set():
            raise self._wrong(f"it did not answer within {seconds:.0f} seconds")
        if process.returncode != 0:
            raise self._wrong(*_said(words.decode("utf-8", "replace"), process.returncode))
        return output.decode("utf-8", "replace")

    def _environment(self) -> dict[str, str]:
        env = {**ENVIRONMENT, "GIT_ALLOW_PROTOCOL": self._place.scheme}
        if self._place.scheme == "ssh":
            env["GIT_SSH_COMMAND"] = shlex.join(self._ssh())
            env["GIT_SSH_VARIANT"] = "ssh"
            env["SSH_AUTH_SOCK"] = str(self._access.agent or "")
        elif self._access.token is not None and self._place.scheme == "https":
            # In the environment, which only this user's own processes can read: not in `ps`.
            login = base64.b64encode(b"x-access-token:" + self._access.token.strip()).decode()
            env |= {
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "http.extraHeader",
                "GIT_CONFIG_VALUE_0": f"Authorization: Basic {login}",
            }
        return env

    def _ssh(self) -> list[str]:
        known = [str(self._access.known_hosts)] if self._access.known_hosts else []
        options = {
            **SSH_OPTIONS,
            "ConnectTimeout": "30",
            "HostKeyAlias": self._place.host,
            "Hostname": self._judged()[0],
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": shlex.quote(known[0]) if known else "/dev/null",
        }
        if self._place.port != 22:
            options["HostKeyAlias"] = f"[{self._place.host}]:{self._place.port}"
        pairs = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        return ["ssh", "-F", "none", *pairs]

    def _resolved(self) -> str:
        places = ",".join(bracketed(address) for address in self._judged())
        return f"{self._place.host}:{self._place.port}:{places}"

    def _judged(self) -> list[str]:
        if self._addresses is None:
            allowed = parse_allowed(self._access.allow)
            try:
                self._addresses = reachable(self._place.host, self._place.port, allowed)
            except Unreachable as error:
                raise self._wrong(str(error), error.hint) from None
        return self._addresses

    def _wrong(self, why: str, hint: str = "") -> ContextError:
        url = self._place.url[:200]
        return ContextError(f"ADD cannot fetch {url}: {why}.", hint=hint, code="context.remote")


def _named(words: Sequence[str], user: int, folder: Path) -> list[str]:
    """The command line of ``words`` as the user id ``user``, which has a name for them alone."""
    passwd = folder / "passwd"
    passwd.write_text(f"project:x:{user}:{user}::/nonexistent:/usr/sbin/nologin\n")
    passwd.chmod(0o644)
    own = ["unshare", "--mount", "--propagation", "private"]
    return [*own, "sh", "-c", _AS_NAMED_USER, "sh", str(passwd), str(user), *words]


def _names(ref: str) -> list[str]:
    """Full names that a short one may mean, the likeliest first."""
    if not ref:
        return ["HEAD"]
    if ref.startswith("refs/"):
        return [ref]
    return [f"refs/heads/{ref}", f"refs/tags/{ref}", f"refs/{ref}"]


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)  # the transport's helpers too
    except ProcessLookupError:
        process.kill()


# git's words -> what is wrong, and the next step
_CLUES = {
    "could not read Username": (
        "it wants a sign-in",
        "Pass a token with --secret id=GIT_AUTH_TOKEN,src=FILE.",
    ),
    "Authentication failed": (
        "it does not take the token",
        "Is GIT_AUTH_TOKEN right, and not expired?",
    ),
    "Permission denied (publickey": (
        "it takes none of the agent's keys",
        "Is the key known there? `ssh-add -l` lists what is offered.",
    ),
    "Host key verification failed": (
        "its host key is not known here",
        "Put its line into /etc/ssh/ssh_known_hosts, or into --secret id=GIT_KNOWN_HOSTS,src=FILE.",
    ),
    "could not read Password": (
        "it wants a sign-in",
        "Pass a token with --secret id=GIT_AUTH_TOKEN,src=FILE.",
    ),
    "not found": ("there is no such repository", "Is it spelled right, and may you read it?"),
    "requested URL returned error: 30": (
        "it redirects to another address",
        "Write the address that it redirects to.",
    ),
    "signal 25": (
        f"it is larger than {MOST_BYTES >> 20} MiB",
        "Name one branch or tag (#NAME), of which no history is fetched, or ADD a file by its URL.",
    ),
}


def _said(words: str, code: int) -> tuple[str, str]:
    """What went wrong, from git's own words, and what to do."""
    for clue, found in _CLUES.items():
        if clue in words:
            return found
    lines = [line.strip() for line in words.strip().splitlines() if line.strip()]
    said = next((line for line in lines if line.startswith(("fatal:", "error:"))), "")
    last = said or (lines[-1] if lines else f"git ended with code {code}")
    return last.removeprefix("fatal: ").removeprefix("error: ").rstrip(".")[:300], ""
