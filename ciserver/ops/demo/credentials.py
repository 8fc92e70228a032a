"""The administrator's name, password and token, kept so that a second demo can show them."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from ciserver.config import Config
from ciserver.ops.supervisor import output_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """``password`` is what was printed first; whoever changed it since knows better."""

    username: str
    password: str
    token: str


def obtain(config: Config) -> Credentials:
    """Makes the administrator if there is none, and a new token in place of the last one."""
    command = ("python", "manage.py", "bootstrap", "--token-name", "gantry demo")
    printed = output_of(command, config, what="Making the administrator")
    made = json.loads(printed.splitlines()[-1])
    file = config.home / "demo" / "credentials.json"
    password = made["password"] or _kept_password(file)
    credentials = Credentials(username=made["username"], password=password, token=made["token"])
    _write(file, asdict(credentials))
    _write(_client_settings(), {"url": config.url, "token": credentials.token})
    return credentials


def _kept_password(file: Path) -> str:
    if file.exists():
        return str(json.loads(file.read_text())["password"])
    return "(the one you chose; './gantry up' and manage.py bootstrap --new-password make another)"


def _client_settings() -> Path:
    """Where the client looks; see ``ciserver.cli.settings``."""
    configured = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(configured) / "gantry" / "client.json"


def _write(file: Path, value: dict[str, str]) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        json.dump(value, out)
