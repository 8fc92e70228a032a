"""The administrator and a token: made by ``manage.py bootstrap``, shown to whoever is root here.

The first password is kept in a folder of root's, so that a second demo can show it again.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from ciserver.cli import settings
from ciserver.cli.settings import Settings
from ciserver.config import Config
from ciserver.ops.supervisor import output_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """``password`` is the one made here; whoever changed it since knows better."""

    username: str
    password: str
    token: str


def obtain(config: Config, *, called: str, new_password: bool = False) -> Credentials:
    """The administrator, made if there is none, with a new token in place of the last called
    so. The client of whoever runs this is logged in by it."""
    command = ["python", "manage.py", "bootstrap", "--token-name", called]
    command += ["--new-password"] if new_password else []
    printed = output_of(command, config, what="Making the administrator")
    made = json.loads(printed.splitlines()[-1])
    file = config.home / "demo" / "credentials.json"
    password = made["password"] or _kept_password(file)
    credentials = Credentials(username=made["username"], password=password, token=made["token"])
    _write(file, {"username": credentials.username, "password": credentials.password})
    settings.save(Settings(url=config.url, token=credentials.token))
    return credentials


def _kept_password(file: Path) -> str:
    if file.exists():
        return str(json.loads(file.read_text())["password"])
    return "(the one you chose; another: ./gantry admin --new-password)"


def _write(file: Path, value: dict[str, str]) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        json.dump(value, out)
