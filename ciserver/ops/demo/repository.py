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
        if (self.path / ".git").exists():
            title = self._change_one_line()
        else:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(self._example, self.path, ignore=ignored, dirs_exist_ok=True)
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

    def _change_one_line(self) -> str:
        """The smallest useful commit: another greeting. Returns its title."""
        count = int(self._git("rev-list", "--count", "HEAD"))
        words = f"Hello number {count + 1}"
        file = self.path / GREETING
        line = f'GREETING = "{words}"'
        file.write_text(re.sub(r"^GREETING = .*$", line, file.read_text(), flags=re.MULTILINE))
        return f"Say {words[0].lower()}{words[1:]}"

    def _git(self, *words: str) -> str:
        done = subprocess.run(
            ["git", *words],
            cwd=self.path,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
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
