"""The user's side of git: a clone of the example, its commits and ``git push``."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
from pathlib import Path

from ciserver.config import Config
from ciserver.ops.credentials import Credentials
from ciserver.ops.errors import OpsError
from ciserver.ops.launch import CHECKOUT

GREETING = Path("hello/greeting.py")


class Repository:
    """A working copy of ``examples/<project>`` below $GANTRY_HOME, kept between runs."""

    def __init__(self, config: Config, project: str, login: Credentials) -> None:
        self.path = config.home / "demo" / project
        self._url = f"{config.url}/git/{project}.git"
        self._environment = _git_environment(login)
        self._example = CHECKOUT / "examples" / project

    def commit(self) -> str:
        """One more commit, the first of which is the example as it is; returns its id."""
        if self._is_whole() or self._clone():
            title = self._change_one_line()
        else:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(self._example, self.path, ignore=ignored)
            self._git("init", "--quiet", "--initial-branch=main")
            title = "Say hello"
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message", title)
        return self._git("rev-parse", "HEAD").strip()

    def push(self) -> None:
        self._git("push", "--quiet", self._url, "HEAD:refs/heads/main")

    @property
    def title(self) -> str:
        return self._git("log", "-1", "--format=%s").strip()

    def _is_whole(self) -> bool:
        """Is it there, and not as a run left it that was killed while it made or changed it?"""
        inner = self.path / ".git"
        if not inner.is_dir() or (inner / "index.lock").exists():
            return False
        return self._run("rev-parse", "--verify", "HEAD", folder=self.path).returncode == 0

    def _clone(self) -> bool:
        """Starts anew from what was pushed before, if anything was."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        clone = ("clone", "--quiet", "--branch", "main", self._url, self.path.name)
        return self._run(*clone, folder=self.path.parent).returncode == 0

    def _change_one_line(self) -> str:
        """The smallest useful commit: another greeting. Returns its title."""
        count = int(self._git("rev-list", "--count", "HEAD"))
        words = f"Hello number {count + 1}"
        file = self.path / GREETING
        line = f'GREETING = "{words}"'
        file.write_text(re.sub(r"^GREETING = .*$", line, file.read_text(), flags=re.MULTILINE))
        return f"Say {words[0].lower()}{words[1:]}"

    def _run(self, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", *words],
            cwd=folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def _git(self, *words: str) -> str:
        done = self._run(*words, folder=self.path)
        if done.returncode != 0:
            raise OpsError(
                f"git {words[0]} failed: {done.stderr.strip() or done.stdout.strip()}",
                next_step=f"The working copy is {self.path}; removing it starts it anew.",
            )
        return done.stdout


def _git_environment(login: Credentials) -> dict[str, str]:
    """No settings of this machine's users; the token in no file and on no command line."""
    basic = base64.b64encode(f"{login.username}:{login.token}".encode()).decode()
    person = {"NAME": "Gantry demo", "EMAIL": "demo@gantry.invalid"}
    identity = {f"GIT_{who}_{k}": v for who in ("AUTHOR", "COMMITTER") for k, v in person.items()}
    return identity | {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "http.extraHeader",
        "GIT_CONFIG_VALUE_0": f"Authorization: Basic {basic}",
    }
